import type { Case, Difference, Expectation, Field, RawStream } from '../case.ts';

const HEAD: readonly Field[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':authority', 'a.interop.svc.cluster.local'],
  [':path', '/'],
];

const without = (name: string): readonly Field[] => HEAD.filter(([own]) => own !== name);

const REFUSED_400: Expectation = { status: 400, upstream: null, attempts: 0 };

/** node:http2 leaves away a field that is not valid, and goes on with the rest; Envoy resets the stream. */
function leftAway(name: string): Difference {
  return {
    because: 'the field is left away: nothing of it gets to the application',
    aspects: ['status', 'headers', 'body', 'upstream', 'attempts', 'end', 'seen request'],
    envoy: { status: 0, end: 'none', upstream: null, attempts: 0 },
    ours: { status: 200, attempts: 1, seenHeaders: { [name]: null, 'x-smuggled': null } },
  };
}

const NO_CONNECT: Difference = {
  because: 'CONNECT is refused, whatever the routes are',
  aspects: ['status', 'headers', 'body'],
  envoy: { status: 404 },
  ours: { status: 403 },
};

const TWO_HOSTS: Difference = {
  because: 'a request that names two hosts is read in two ways',
  aspects: ['status', 'headers', 'body', 'upstream', 'attempts', 'seen request'],
  envoy: { status: 200, upstream: 'a' },
  ours: REFUSED_400,
};

const stream = (name: string, fields: readonly Field[], expect: Expectation, body?: string): Case => {
  const send: RawStream = body === undefined ? { fields } : { fields, body };
  return { name, to: 'a', send, expect };
};

const REFUSED: Expectation = { upstream: null, attempts: 0 };

export const STREAMS: readonly Case[] = [
  stream('as it should be', HEAD, { status: 200, upstream: 'a' }),
  stream('no method', without(':method'), REFUSED),
  stream('no scheme', without(':scheme'), REFUSED),
  stream('no path', without(':path'), REFUSED),
  stream('an empty path', [...without(':path'), [':path', '']], REFUSED),
  stream('a path without slash', [...without(':path'), [':path', 'x']], REFUSED),
  stream('no authority', without(':authority'), {}),
  stream('no authority, but Host', [...without(':authority'), ['host', 'a.example']], {}),
  { ...stream('authority and another Host', [...HEAD, ['host', 'other.example']], {}), differs: TWO_HOSTS },
  stream('two paths', [...HEAD, [':path', '/other']], REFUSED),
  stream('a pseudo header that is not known', [...HEAD, [':other', 'x']], REFUSED),
  stream('a pseudo header after others', [...without(':path'), ['x-a', '1'], [':path', '/']], REFUSED),
  stream('a pseudo header of answers', [...HEAD, [':status', '200']], REFUSED),
  stream('capitals in a name', [...HEAD, ['X-Capital', '1']], REFUSED),
  { ...stream('a blank in a name', [...HEAD, ['x y', '1']], REFUSED), expect: {}, differs: leftAway('x y') },
  {
    ...stream('CR LF in a value', [...HEAD, ['x-split', 'a\r\nx-smuggled: 1']], REFUSED),
    expect: {},
    differs: leftAway('x-split'),
  },
  {
    ...stream('LF in a value', [...HEAD, ['x-split', 'a\nb']], REFUSED),
    expect: {},
    differs: leftAway('x-split'),
  },
  {
    ...stream('NUL in a value', [...HEAD, ['x-nul', 'a\0b']], REFUSED),
    expect: {},
    differs: leftAway('x-nul'),
  },
  stream('CR LF in the path', [...without(':path'), [':path', '/ HTTP/1.1\r\nx: y']], REFUSED),
  stream('a blank in the path', [...without(':path'), [':path', '/a b']], REFUSED),
  stream('a fragment in the path', [...without(':path'), [':path', '/a#b']], {}),
  stream('a blank in the method', [...without(':method'), [':method', 'GET /x']], REFUSED),
  stream('a blank in the authority', [...without(':authority'), [':authority', 'a b']], REFUSED),
  stream('connection', [...HEAD, ['connection', 'close']], REFUSED),
  stream('transfer-encoding', [...HEAD, ['transfer-encoding', 'chunked']], REFUSED),
  stream('upgrade', [...HEAD, ['upgrade', 'websocket']], REFUSED),
  stream('te: trailers', [...HEAD, ['te', 'trailers']], { status: 200 }),
  stream('two lengths', [...HEAD, ['content-length', '3'], ['content-length', '4']], REFUSED, 'abc'),
  {
    ...stream('blanks around a value', [...HEAD, ['x-blank', ' a ']], {}),
    differs: {
      because: 'the field is left away: a value has no blanks around it (RFC 9113, 8.2.1)',
      aspects: ['seen request'],
      envoy: { seenHeaders: { 'x-blank': 'a' } },
      ours: { seenHeaders: { 'x-blank': null } },
    },
  },
  stream(
    'two hundred fields',
    [...HEAD, ...Array.from({ length: 200 }, (_, i): Field => [`x-${i}`, '1'])],
    REFUSED,
  ),
  {
    ...stream(
      'CONNECT',
      [
        [':method', 'CONNECT'],
        [':authority', 'other.example:443'],
      ],
      REFUSED,
    ),
    differs: NO_CONNECT,
  },
];
