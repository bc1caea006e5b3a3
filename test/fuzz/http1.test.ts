import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readClientHello } from '#waypoint/downstream/client-hello.ts';
import { detectProtocol } from '#waypoint/downstream/detect.ts';
import { readHttp1Head, readHttp2Head, readTrailers } from '#waypoint/downstream/request-head.ts';
import {
  CarriedTunnelError,
  formatCarriedTunnel,
  parseCarriedTunnel,
} from '#waypoint/hand-over/carried-tunnel.ts';
import { parseRetryAfter } from '#waypoint/route/retry.ts';
import { decodeToken, encodeToken } from '#waypoint/route/session-token.ts';
import { parseFields, parseHead, ResponseError } from '#waypoint/upstream/response-head.ts';
import { ResponseParser } from '#waypoint/upstream/response-parser.ts';
import { always, bytesNear, inPieces, outcomeOf, textNear } from './fuzz.ts';

const ANSWERS = [
  'HTTP/1.1 200 OK\r\ncontent-length: 5\r\nset-cookie: a=b\r\n\r\nhello',
  'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.0 404 Not Found\r\nconnection: keep-alive\r\n\r\nbody',
  'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nrest',
  'HTTP/1.1 204 \r\nkeep-alive: timeout=5, max=100\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\r\n',
];

/** What a parser makes of an answer, bodies joined; where it refuses, so much as it had told before. */
function seenIn(pieces: readonly Buffer[]): unknown {
  const seen: unknown[] = [];
  let body = '';
  const parser = new ResponseParser({
    onInform: (head) => seen.push(head),
    onHead: (head) => seen.push(head),
    onData: (chunk) => {
      body += chunk.toString('latin1');
    },
    onEnd: (trailers) => seen.push(trailers),
    onSwitch: (head, rest) => {
      seen.push(head);
      body += rest.toString('latin1');
    },
  });
  parser.expect('GET', true);
  const end = outcomeOf(() => {
    for (const piece of pieces) parser.read(piece);
    return parser.end();
  }, ResponseError);
  // After a change of protocol, and after what is refused, the connection is not this parser's any more.
  return { seen, body: seen.length === 0 ? '' : body, end: end ?? 'refused' };
}

test('an answer of a hostile server is the same in whatever pieces it comes, or a ResponseError', () => {
  const bytes = bytesNear(
    ...ANSWERS.filter((each) => !each.includes(' 101 ')).map((each) => Buffer.from(each)),
  );
  always(inPieces(bytes), ({ whole, pieces }) => {
    const [once, again] = [seenIn([whole]), seenIn(pieces)] as Record<'seen' | 'end', unknown>[];
    if (once?.end === 'refused') expect(again?.end).toBe('refused');
    else expect(again).toEqual(once);
  });
});

test('a change of protocol in any pieces is one, or a ResponseError', () => {
  always(bytesNear(Buffer.from(ANSWERS[3] ?? '')), (bytes) => void seenIn([bytes]));
});

test('a head is one, or a ResponseError, and has no line ends in it', () => {
  const heads = ANSWERS.map((each) => each.slice(0, each.indexOf('\r\n\r\n')));
  const padded = `HTTP/1.1 200 OK\r\nx:${' \t'.repeat(25_000)}a${' \t'.repeat(5_000)}\x01`;
  always(fc.oneof(textNear(...heads), fc.constant(padded)), (text) => {
    const parsed = outcomeOf(() => parseHead(text), ResponseError);
    for (const each of parsed?.head.headers ?? []) expect(each).not.toMatch(/[\r\n\0]/);
    outcomeOf(() => parseFields(text.split('\r\n'), 1), ResponseError);
  });
});

test('the head of a request is one, or refused', () => {
  const name = fc.oneof(
    fc.constantFrom(
      'host',
      'content-length',
      'transfer-encoding',
      'upgrade',
      'connection',
      'cookie',
      ':path',
      ':authority',
      ':method',
      ':protocol',
      '__proto__',
    ),
    textNear('x-a'),
  );
  const value = fc.oneof(
    fc.constantFrom('shop', '5', 'chunked', 'websocket', 'h2c', 'upgrade', '/', 'GET', 'CONNECT'),
    textNear('a, b;c'),
  );
  const rawHeaders = fc.array(fc.tuple(name, value), { maxLength: 20 }).map((pairs) => pairs.flat());
  const method = fc.oneof(fc.constantFrom('GET', 'POST', 'CONNECT', 'OPTIONS'), textNear('GET'));
  const head = fc.record({
    method,
    target: textNear('/a/b?c=d', 'http://shop/x', '*'),
    minorVersion: fc.constantFrom(0, 1),
    rawHeaders,
  });
  always(head, (parsed) => {
    expect(['request', 'refused']).toContain(readHttp1Head(parsed).kind);
    expect(['request', 'refused']).toContain(readHttp2Head(parsed.rawHeaders, true).kind);
    expect(readTrailers(parsed.rawHeaders).length % 2).toBe(0);
  });
});

test('what a connection begins with is told apart by 25 bytes, and stays what it was when more comes', () => {
  always(
    bytesNear(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.from('GET / HTTP/1.1\r\n')),
    (bytes) => {
      const found = detectProtocol(bytes);
      if (bytes.length >= 25) expect(found).toBeDefined();
      if (found !== undefined) expect(detectProtocol(Buffer.concat([bytes, Buffer.alloc(9)]))).toBe(found);
    },
  );
});

const HELLO = Buffer.from(
  `16030100590100005503030${'1'.repeat(63)}0000041301130201000028000000110000000f00000c636174616c6f672e73686f70002b0003020304000a0004000200170010000500030268${'32'}`,
  'hex',
);

test('a ClientHello names a server, or none, or is refused; what has begun as one stays one', () => {
  always(inPieces(bytesNear(HELLO)), ({ whole, pieces }) => {
    const check = readClientHello(whole);
    if (check.kind === 'hello') expect(check.serverName ?? 'a').toMatch(/^[a-z0-9_][a-z0-9_.-]{0,252}$/);
    const first = readClientHello(pieces[0] ?? Buffer.alloc(0));
    if (first.kind !== 'more') expect(first.kind).toBe(check.kind === 'more' ? first.kind : check.kind);
  });
});

test('a tunnel on its way to another process is one, or a CarriedTunnelError', () => {
  const state = { early: '', pending: 'aGVsbG8=', hasEnded: false };
  const sample = {
    id: '0123456789abcdef0123456789abcdef',
    claimant: 'spiffe://cluster.local/ns/shop/sa/web',
    caller: {
      identity: 'spiffe://cluster.local/ns/shop/sa/web',
      address: { ip: '10.0.0.1', port: 40_000 },
      baggage: {},
    },
    authority: { ip: '10.96.0.1', port: 80 },
    frontend: 'f',
    downstream: state,
    use: { kind: 'http1' },
  };
  expect(parseCarriedTunnel(sample).caller.identity).toMatchObject({ namespace: 'shop' });
  always(textNear(JSON.stringify(sample)), (text) => {
    const value: unknown = outcomeOf(() => JSON.parse(text), SyntaxError);
    const tunnel = outcomeOf(() => parseCarriedTunnel(value), CarriedTunnelError);
    if (tunnel !== undefined)
      expect(parseCarriedTunnel(JSON.parse(JSON.stringify(formatCarriedTunnel(tunnel))))).toEqual(tunnel);
  });
});

test('a session is where it says, or none', () => {
  const token = encodeToken({ address: '10.0.0.1:8080', expires: 7, created: 1, used: 2 });
  expect(decodeToken(token)).toMatchObject({ address: '10.0.0.1:8080' });
  always(textNear(token, btoa('10.0.0.1:80')), (text) => {
    const decoded = decodeToken(text);
    if (decoded !== undefined) expect(decoded.address.length).toBeLessThanOrEqual(text.length);
  });
});

test('a time to wait is a number, or none', () => {
  always(textNear('120', 'Wed, 21 Oct 2026 07:28:00 GMT'), (text) => {
    expect(parseRetryAfter(text, 0) ?? 0).toBeGreaterThanOrEqual(0);
  });
});
