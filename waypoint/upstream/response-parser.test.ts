import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { HeaderList } from '../exchange.ts';
import { ResponseError, type ResponseHead } from './response-head.ts';
import { ResponseParser } from './response-parser.ts';

interface Seen {
  readonly heads: ResponseHead[];
  readonly informs: number[];
  body: string;
  trailers: HeaderList | undefined;
  switched: string | undefined;
}

function parserFor(
  method: string,
  mayUpgrade = false,
): { readonly parser: ResponseParser; readonly seen: Seen } {
  const seen: Seen = { heads: [], informs: [], body: '', trailers: undefined, switched: undefined };
  const parser = new ResponseParser({
    onInform: ({ status }) => seen.informs.push(status),
    onHead: (head) => seen.heads.push(head),
    onData: (chunk) => {
      seen.body += chunk.toString('latin1');
    },
    onEnd: (trailers) => {
      seen.trailers = trailers;
    },
    onSwitch: (_head, rest) => {
      seen.switched = rest.toString('latin1');
    },
  });
  parser.expect(method, mayUpgrade);
  return { parser, seen };
}

function parse(text: string, method = 'GET'): Seen {
  const { parser, seen } = parserFor(method);
  parser.read(Buffer.from(text, 'latin1'));
  return seen;
}

test.each([
  { when: 'a length is given', text: 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello', body: 'hello' },
  {
    when: 'it comes in chunks',
    text: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n',
    body: 'hello world',
  },
  { when: 'the length is none', text: 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n', body: '' },
  { when: 'there is no reason phrase', text: 'HTTP/1.1 204 \r\n\r\n', body: '' },
  {
    when: 'the status has no body',
    text: 'HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n',
    body: '',
  },
])('the body is what was sent when $when', ({ text, body }) => {
  const seen = parse(text);
  expect(seen.body).toBe(body);
  expect(seen.trailers).toEqual([]);
});

test('an answer to HEAD has no body, whatever its length says', () => {
  expect(parse('HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n', 'HEAD').trailers).toEqual([]);
});

test('an answer without a length ends with its connection', () => {
  const { parser, seen } = parserFor('GET');
  parser.read(Buffer.from('HTTP/1.1 200 OK\r\n\r\nas long as'));
  expect(seen.trailers).toBeUndefined();
  expect(parser.end()).toBe(true);
  expect([seen.body, seen.trailers, seen.heads[0]?.keepsAlive]).toEqual(['as long as', [], false]);
});

test('an answer with a length that ends early is not whole', () => {
  const { parser, seen } = parserFor('GET');
  parser.read(Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf'));
  expect(parser.end()).toBe(false);
  expect(seen.trailers).toBeUndefined();
});

test('trailers come after the body, without what is of the connection', () => {
  const text =
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nGrpc-Status: 0\r\nConnection: x\r\n\r\n';
  expect(parse(text).trailers).toEqual(['grpc-status', '0']);
});

test('headers of the connection, and those that it names, are left out', () => {
  const text =
    'HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-End: 2\r\ncontent-length: 0\r\n\r\n';
  const [head] = parse(text).heads;
  expect(head?.headers).toEqual(['x-end', '2', 'content-length', '0']);
  expect(head?.keepAliveMs).toBe(5_000);
});

test('answers before the answer are told as such', () => {
  const seen = parse(
    'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n',
  );
  expect(seen.informs).toEqual([103]);
  expect(seen.heads[0]?.status).toBe(200);
});

test('after an upgrade the bytes are not ours', () => {
  const { parser, seen } = parserFor('GET', true);
  parser.read(Buffer.from('HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes'));
  expect(seen.switched).toBe('frames');
});

const CHUNKED = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n';

test.each([
  { when: 'it is another protocol', text: 'SSH-2.0-OpenSSH_9\r\n' },
  { when: 'the version is unknown', text: 'HTTP/3.0 200 OK\r\n\r\n' },
  { when: 'the status is no number', text: 'HTTP/1.1 2xx OK\r\n\r\n' },
  { when: 'a line is folded', text: 'HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n' },
  { when: 'a name has a space', text: 'HTTP/1.1 200 OK\r\na : b\r\n\r\n' },
  { when: 'a value has a bare CR', text: 'HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n' },
  { when: 'a value has a bare LF', text: 'HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n' },
  { when: 'a value has a NUL', text: 'HTTP/1.1 200 OK\r\na: b\0\r\n\r\n' },
  {
    when: 'there are two lengths',
    text: 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n',
  },
  { when: 'the length is signed', text: 'HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n' },
  {
    when: 'there are a length and chunks',
    text: 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n',
  },
  { when: 'the encoding is unknown', text: 'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n' },
  { when: 'a chunk size is no number', text: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n' },
  { when: 'a chunk is too long', text: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n' },
  {
    when: 'a size line ends in LF',
    text: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\nab\r\n',
  },
  {
    when: 'an upgrade was not asked for',
    text: 'HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: y\r\n\r\n',
  },
  { when: 'there is more than the answer', text: 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab' },
  { when: 'there are too many headers', text: `HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(101)}\r\n` },
  { when: 'headers do not end', text: `HTTP/1.1 200 OK\r\na: ${'b'.repeat(70_000)}` },
  {
    when: 'a size line does not end',
    text: `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;${'x'.repeat(300)}`,
  },
  { when: 'trailers do not end', text: `${CHUNKED}0\r\nt: ${'x'.repeat(70_000)}` },
  { when: 'there are too many trailers', text: `${CHUNKED}0\r\n${'t: u\r\n'.repeat(101)}\r\n` },
  { when: 'answers before the answer do not end', text: 'HTTP/1.1 103 X\r\n\r\n'.repeat(20) },
])('an answer is refused when $when', ({ text }) => {
  expect(() => parse(text)).toThrow(ResponseError);
});

test('where an answer is cut into pieces makes no difference', () => {
  const text =
    'HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\nt: u\r\n\r\n';
  const whole = parse(text);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }), (sizes) => {
      const { parser, seen } = parserFor('GET');
      const bytes = Buffer.from(text);
      for (let at = 0, step = 0; at < bytes.length; step++) {
        const size = sizes[step % sizes.length] ?? 1;
        parser.read(bytes.subarray(at, at + size));
        at += size;
      }
      expect(seen).toEqual(whole);
    }),
  );
});

test('a header line that fails late is found out in time that grows with its length', () => {
  for (const line of [`x:${' '.repeat(50_000)}\x01`, `x:a${' \t'.repeat(25_000)}a\x01`]) {
    const began = process.threadCpuUsage().user;
    expect(() => parse(`HTTP/1.1 200 OK\r\n${line}\r\n\r\n`)).toThrow(ResponseError);
    expect(process.threadCpuUsage().user - began).toBeLessThan(1_000_000);
  }
});

test('blanks around a value are taken off, and no other characters', () => {
  const [head] = parse('HTTP/1.1 200 OK\r\ncontent-length: 0\r\na: \t b \t\r\nc:\xa0d\r\ne:\r\n\r\n').heads;
  expect(head?.headers).toEqual(['content-length', '0', 'a', 'b', 'c', '\xa0d', 'e', '']);
});
