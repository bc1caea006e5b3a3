import { once } from 'node:events';
import { type ClientHttp2Session, connect, constants, type IncomingHttpHeaders } from 'node:http2';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Exchange } from '../exchange.ts';
import type { TunnelDuplex } from '../tunnel-duplex.ts';
import { authorityOf, close, listen, type TestListener } from './testing.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const SETTINGS_FRAME = frame(4, 0, 0, Buffer.alloc(0));

let ca: TemporaryAuthority;
let server: TestListener;

beforeAll(async () => {
  ca = await temporaryAuthority();
  server = await listen(ca);
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await ca[Symbol.asyncDispose]();
});

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Literal header fields without indexing, as RFC 7541, 6.2.2, has them. */
function block(fields: readonly (readonly [string, string])[]): Buffer {
  const text = (value: string): Buffer => {
    const bytes = Buffer.from(value, 'latin1');
    const length: number[] = bytes.length < 127 ? [bytes.length] : [127];
    for (let rest = bytes.length - 127; bytes.length >= 127; rest = Math.floor(rest / 128)) {
      length.push(rest >= 128 ? (rest % 128) + 128 : rest);
      if (rest < 128) break;
    }
    return Buffer.concat([Buffer.from(length), bytes]);
  };
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

const GET: readonly (readonly [string, string])[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':authority', 'ledger'],
  [':path', '/'],
];

function headers(stream: number, fields: readonly (readonly [string, string])[], flags = 5): Buffer {
  return frame(1, flags, stream, block(fields));
}

/** Speaks HTTP/2 by hand; the types of the frames that came back, and how it ended. */
async function speak(...frames: readonly Buffer[]): Promise<Spoken> {
  return await speakTo(server, ...frames);
}

interface Spoken {
  readonly socket: TunnelDuplex;
  readonly received: () => Frame[];
  readonly isOver: () => boolean;
}

interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

async function speakTo(target: TestListener, ...frames: readonly Buffer[]): Promise<Spoken> {
  const socket = await target.dial(authorityOf('http2'));
  let bytes = Buffer.alloc(0);
  let isOver = false;
  socket.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
  });
  socket.on('error', () => undefined);
  socket.on('end', () => {
    isOver = true;
  });
  socket.on('close', () => {
    isOver = true;
  });
  for (const piece of [PREFACE, SETTINGS_FRAME, ...frames]) if (!socket.destroyed) socket.write(piece);
  return {
    socket,
    isOver: () => isOver,
    received: () => {
      const found: Frame[] = [];
      for (let at = 0; at + 9 <= bytes.length; ) {
        const length = bytes.readUIntBE(at, 3);
        found.push({
          type: bytes[at + 3] ?? 0,
          flags: bytes[at + 4] ?? 0,
          stream: bytes.readUInt32BE(at + 5),
          payload: bytes.subarray(at + 9, at + 9 + length),
        });
        at += 9 + length;
      }
      return found;
    },
  };
}

async function session(target: TestListener = server): Promise<ClientHttp2Session> {
  const socket = await target.dial(authorityOf('http2'));
  const client = connect('http://ledger', { createConnection: () => socket });
  client.on('error', () => undefined);
  return client;
}

async function request(
  client: ClientHttp2Session,
  fields: Record<string, string | string[]>,
  body?: string,
): Promise<{ readonly headers: IncomingHttpHeaders; readonly text: string; readonly code: number }> {
  const stream = client.request(fields, { endStream: body === undefined });
  let text = '';
  let answer: IncomingHttpHeaders = {};
  stream.on('response', (got) => {
    answer = got;
  });
  stream.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
  });
  stream.on('error', () => undefined);
  if (body !== undefined) stream.end(body);
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.on('close', resolve);
  await promise;
  return { headers: answer, text, code: stream.rstCode ?? 0 };
}

test('a request is answered', async () => {
  const client = await session();
  const { headers: answer, text } = await request(
    client,
    { ':method': 'POST', ':path': '/a?b', ':authority': 'ledger', cookie: ['a=1', 'b=2'], te: 'trailers' },
    'body',
  );
  expect(answer[':status']).toBe(200);
  expect(text).toBe('POST ledger /a?b\nte: trailers\ncookie: a=1; b=2\n\nbody');
  client.destroy();
});

test('an answer without a body is one frame, its trailers among the headers', async () => {
  await using grpc = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.respond(200, ['content-type', 'application/grpc', 'grpc-status', '12']);
      exchange.end();
    },
  });
  const client = await session(grpc);
  const stream = client.request({ ':path': '/a.B/C', ':method': 'POST' });
  const [answer, flags] = (await once(stream, 'response')) as [IncomingHttpHeaders, number];
  expect(answer['grpc-status']).toBe('12');
  expect(flags & constants.NGHTTP2_FLAG_END_STREAM).toBe(constants.NGHTTP2_FLAG_END_STREAM);
  client.destroy();
});

test('bodies and trailers go both ways while both are open', async () => {
  await using grpc = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.respond(200, ['content-type', 'application/grpc']);
      exchange.body?.start({
        onData: (chunk) => exchange.write(chunk),
        onEnd: (trailers) => exchange.end(['grpc-status', '0', ...trailers]),
        onAbort: () => exchange.abort(),
      });
    },
  });
  const client = await session(grpc);
  const stream = client.request(
    { ':path': '/a.B/C', ':method': 'POST' },
    { endStream: false, waitForTrailers: true },
  );
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7' }));
  stream.setEncoding('utf8');
  for (const message of ['one', 'two']) {
    stream.write(message);
    expect(await once(stream, 'data')).toEqual([message]);
  }
  stream.end();
  const [trailers] = (await once(stream, 'trailers')) as [IncomingHttpHeaders];
  expect(trailers).toMatchObject({ 'grpc-status': '0', 'x-sum': '7' });
  client.destroy();
});

test('names that objects have for themselves are names of trailers and of early answers, too', async () => {
  const odd = ['constructor', 'a', '__proto__', 'b', '10', 'c', 'tostring', 'd', 'constructor', 'e'];
  await using answers = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.inform(103, odd);
      exchange.respond(200, []);
      exchange.write(Buffer.from('x'));
      exchange.end(odd);
    },
  });
  const client = await session(answers);
  const stream = client.request({ ':path': '/' });
  stream.resume();
  const seen: (readonly string[])[] = [];
  stream.on('headers', (_headers, _flags, raw?: string[]) => seen.push(raw ?? []));
  stream.on('trailers', (_headers, _flags, raw?: string[]) => seen.push(raw ?? []));
  await once(stream, 'close');
  expect(seen).toHaveLength(2);
  for (const raw of seen) {
    const text = raw.join(' ');
    for (const pair of ['constructor a', 'constructor e', '__proto__ b', '10 c', 'tostring d'])
      expect(text).toContain(pair);
  }
  client.destroy();
});

test('a WebSocket over HTTP/2 is bytes both ways', async () => {
  await using sockets = await listen(ca, {
    serveRequest: (exchange) => {
      const tunnel = exchange.upgrade(101, ['sec-websocket-accept', 'x', 'sec-websocket-protocol', 'chat']);
      tunnel.start({
        onData: (chunk) => tunnel.write(chunk),
        onEnd: () => tunnel.end(),
        onAbort: () => undefined,
        onDrain: () => undefined,
      });
    },
  });
  const client = await session(sockets);
  await once(client, 'remoteSettings');
  const stream = client.request(
    {
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':path': '/chat',
      ':scheme': 'http',
      ':authority': 'a',
    },
    { endStream: false },
  );
  const [answer] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  expect(answer).toMatchObject({ ':status': 200, 'sec-websocket-protocol': 'chat' });
  expect(answer['sec-websocket-accept']).toBeUndefined();
  stream.write('hello');
  expect(String((await once(stream, 'data'))[0])).toBe('hello');
  expect(sockets.exchanges[0]?.head).toMatchObject({ method: 'GET', target: '/chat', upgrade: 'websocket' });
  client.destroy();
});

test('a client that resets is told to who answers', async () => {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  await using slow = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.onClose = resolve;
    },
  });
  const client = await session(slow);
  const stream = client.request({ ':path': '/' });
  stream.on('error', () => undefined);
  await eventually('the request', () => slow.exchanges.length === 1);
  stream.close(constants.NGHTTP2_CANCEL);
  expect(await promise).toBe(false);
  client.destroy();
});

test('an answer to a request with a body is complete when its last frame is out', async () => {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  await using posts = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.onClose = resolve;
      exchange.body?.start({
        onData: () => undefined,
        onEnd: () => {
          exchange.respond(200, ['content-length', '2']);
          setImmediate(() => {
            exchange.write(Buffer.from('ok'));
            exchange.end();
          });
        },
        onAbort: () => undefined,
      });
    },
  });
  const client = await session(posts);
  expect(await request(client, { ':method': 'POST', ':path': '/' }, 'body')).toMatchObject({ text: 'ok' });
  expect(await promise).toBe(true);
  client.destroy();
});

test('an answer is not complete when its client resets before the end, without an error too', async () => {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  await using slow = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.onClose = resolve;
      exchange.respond(200, []);
      exchange.write(Buffer.from('half'));
    },
  });
  const client = await session(slow);
  const stream = client.request({ ':path': '/' });
  await once(stream, 'data');
  stream.close(constants.NGHTTP2_NO_ERROR);
  expect(await promise).toBe(false);
  client.destroy();
});

test('an answer that is cut short of its length does not end before it is reset', async () => {
  await using broken = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.respond(200, ['content-length', '8']);
      exchange.write(Buffer.from('half'));
      setImmediate(() => exchange.abort());
    },
  });
  const { socket, received } = await speakTo(broken, headers(1, GET));
  const ofStream = (): Frame[] => received().filter(({ stream }) => stream === 1);
  await eventually('a reset', () => ofStream().some(({ type }) => type === 3));
  expect(ofStream().map(({ type, flags }) => [type, flags])).toEqual([
    [1, 4],
    [0, 0],
    [3, 0],
  ]);
  await close(socket);
});

test('an answer that is cut short is a reset', async () => {
  await using broken = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.respond(200, []);
      exchange.write(Buffer.from('half'));
      setImmediate(() => exchange.abort());
    },
  });
  const client = await session(broken);
  expect(await request(client, { ':path': '/' })).toMatchObject({ code: constants.NGHTTP2_INTERNAL_ERROR });
  client.destroy();
});

test.each([
  ['CONNECT', { ':method': 'CONNECT', ':authority': 'other:80' }, 403],
  ['Host that differs from :authority', { ':path': '/', ':authority': 'ledger', host: 'other' }, 400],
  ['an :authority with two ports', { ':path': '/', ':authority': 'ledger:80:81' }, 400],
])('%s is refused with a status', async (_what, fields, status) => {
  const before = server.records.length;
  const client = await session();
  const { headers: answer } = await request(client, fields);
  expect(answer[':status']).toBe(status);
  expect(server.records[before]).toMatchObject({ status, protocol: 'HTTP/2' });
  client.destroy();
});

test.each<readonly [string, readonly (readonly [string, string])[]]>([
  ['no :path', GET.filter(([name]) => name !== ':path')],
  ['no :method', GET.filter(([name]) => name !== ':method')],
  ['no :scheme', GET.filter(([name]) => name !== ':scheme')],
  ['two :path', [...GET, [':path', '/b']]],
  ['an empty :path', [...GET.slice(0, 3), [':path', '']]],
  ['a :path that is none', [...GET.slice(0, 3), [':path', 'a']]],
  ['a pseudo header that is not known', [...GET, [':magic', '1']]],
  ['a pseudo header behind others', [...GET.slice(0, 3), ['a', 'b'], [':path', '/']]],
  ['a name in upper case', [...GET, ['X-Up', '1']]],
  ['a header of the connection', [...GET, ['connection', 'close']]],
  ['a transfer coding', [...GET, ['transfer-encoding', 'chunked']]],
  ['an upgrade', [...GET, ['upgrade', 'websocket']]],
  ['te that is not trailers', [...GET, ['te', 'gzip']]],
  [
    'an :authority that is no host',
    GET.map(([name, value]) => [name, name === ':authority' ? 'a/b' : value]),
  ],
  ['two lengths', [...GET, ['content-length', '1'], ['content-length', '2']]],
  ['110 headers', [...GET, ...Array.from({ length: 106 }, (_, at): [string, string] => [`x-${at}`, '1'])]],
])('a request with %s is reset, and others of its connection are answered', async (_what, fields) => {
  const before = server.exchanges.length;
  const { socket, received } = await speak(headers(1, fields), headers(3, GET));
  await eventually('a reset and an answer', () => {
    const frames = received();
    return (
      frames.some(({ type, stream }) => type === 3 && stream === 1) &&
      frames.some(({ type, stream }) => type === 1 && stream === 3)
    );
  });
  expect(server.exchanges).toHaveLength(before + 1);
  await close(socket);
});

test.each<readonly [string, string, string]>([
  ['a line end in a value', 'x', 'a\r\nb: c'],
  ['NUL in a value', 'x', 'a\0b'],
  ['a blank in a name', 'x y', 'a'],
])('a header with %s is seen by nobody', async (_what, name, value) => {
  const before = server.exchanges.length;
  const { socket } = await speak(headers(1, [...GET, [name, value], ['y', '1']]));
  const exchange = await eventually('a request', () => server.exchanges[before]);
  expect(exchange.head.headers).toEqual(['y', '1']);
  await close(socket);
});

/** What a client may flood with; each ends its connection and no other. */
test.each<readonly [string, () => Buffer[]]>([
  [
    'resets of what it has just asked for',
    () =>
      Array.from({ length: 3_000 }, (_, at) =>
        Buffer.concat([headers(2 * at + 1, GET, 4), frame(3, 0, 2 * at + 1, Buffer.from([0, 0, 0, 8]))]),
      ),
  ],
  [
    'a header block without end',
    () => [
      headers(1, GET, 1),
      ...Array.from({ length: 40 }, () => frame(9, 0, 1, block([['x', 'a'.repeat(15_000)]]))),
    ],
  ],
  [
    'empty CONTINUATIONs',
    () => [headers(1, GET, 1), ...Array.from({ length: 20_000 }, () => frame(9, 0, 1, Buffer.alloc(0)))],
  ],
  [
    'frames that are not known on streams that do not exist',
    () => Array.from({ length: 5_000 }, (_, at) => frame(0, 0, 2 * at + 1, Buffer.alloc(0))),
  ],
  [
    'too many settings',
    () => [
      frame(4, 0, 0, Buffer.concat(Array.from({ length: 100 }, () => Buffer.from([0, 99, 0, 0, 0, 1])))),
    ],
  ],
  ['a frame that is too large', () => [frame(0, 0, 1, Buffer.alloc(100_000))]],
  [
    'a window beyond all numbers',
    () => [headers(1, GET, 4), frame(8, 0, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff]))],
  ],
])('%s end the connection', async (_what, frames) => {
  const { isOver } = await speak(...frames());
  await eventually('the end', isOver);
  const client = await session();
  expect((await request(client, { ':path': '/after' })).text).toContain('GET');
  client.destroy();
});

test('PINGs and SETTINGS without end cost no memory: who does not read the answers is cut', async () => {
  const socket = await server.dial(authorityOf('http2'));
  let isOver = false;
  socket.on('error', () => undefined);
  socket.on('close', () => {
    isOver = true;
  });
  const flood = Buffer.concat(
    Array.from({ length: 1_000 }, () => Buffer.concat([frame(6, 0, 0, Buffer.alloc(8)), SETTINGS_FRAME])),
  );
  socket.write(PREFACE);
  // Never read: no 'data' listener.
  for (let sent = 0; sent < 2_000 && !isOver; sent += 1) {
    if (!socket.write(flood))
      await Promise.race([once(socket, 'drain'), eventually('the end', () => isOver, 500)]).catch(
        () => undefined,
      );
    if (socket.writableNeedDrain) break;
  }
  // Either it was cut, or it is held back: its answers fill its window, and nothing more is taken.
  expect(isOver || socket.writableNeedDrain).toBe(true);
  await close(socket);
});

test('many empty DATA frames do not keep others from their answers', async () => {
  const empty = Array.from({ length: 10_000 }, () => frame(0, 0, 1, Buffer.alloc(0)));
  const { socket, received, isOver } = await speak(
    headers(1, [[':method', 'POST'], ...GET.slice(1)], 4),
    Buffer.concat(empty),
    headers(3, GET),
  );
  await eventually(
    'the answer, or the end',
    () => isOver() || received().some(({ type, stream }) => type === 1 && stream === 3),
  );
  await close(socket);
});

test('a body that is longer than it says ends the connection', async () => {
  const before = server.exchanges.length;
  const { isOver } = await speak(
    headers(1, [[':method', 'POST'], ...GET.slice(1), ['content-length', '3']], 4),
    frame(0, 1, 1, Buffer.from('abcdef')),
  );
  await eventually('the end', isOver);
  const exchange: Exchange | undefined = server.exchanges[before];
  expect(exchange?.bytesSent()).toBe(0);
});

test('a client that draws no window holds up only itself', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  await using big = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.respond(200, []);
      while (exchange.write(Buffer.alloc(64 * 1024)));
      if (exchange.head.target === '/stall') return resolve();
      exchange.onDrain = () => exchange.end();
    },
  });
  const stalled = await session(big);
  const stream = stalled.request({ ':path': '/stall' });
  stream.on('error', () => undefined);
  await promise;
  const client = await session(big);
  const answer = await request(client, { ':path': '/go' });
  expect(answer.headers[':status']).toBe(200);
  expect(answer.text.length).toBeGreaterThan(0);
  stalled.destroy();
  client.destroy();
});
