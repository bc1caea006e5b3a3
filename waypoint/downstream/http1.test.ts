import { afterAll, beforeAll, expect, test } from 'vitest';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Exchange } from '../exchange.ts';
import { authorityOf, listen, type TestListener, talk } from './testing.ts';

const HEAD = 'Host: ledger\r\n';

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

async function send(text: string | Buffer, until?: (received: string) => boolean): ReturnType<typeof talk> {
  return await talk(await server.dial(authorityOf('http1')), text, until);
}

const isWhole = (received: string): boolean => /\r\n\r\n.*\n\n/s.test(received);

test('a request is answered, and the connection stays', async () => {
  const answer = await send(`GET /a?b=c HTTP/1.1\r\n${HEAD}X-One: 1\r\nx_two: 2\r\n\r\n`, isWhole);
  expect(answer.text).toMatch(/^HTTP\/1\.1 200 OK\r\ncontent-length: \d+\r\nDate: .*\r\n\r\n/);
  expect(answer.text).toContain('GET ledger /a?b=c\nx-one: 1\nx_two: 2\n');
  expect(answer.ended).toBe(false);
});

test('bytes of a header that are no ASCII go out as they came, also before the body', async () => {
  await using slow = await listen(ca, {
    serveRequest: (exchange) => exchange.respond(200, ['x-name', 'Zo\xc3\xab', 'content-length', '1']),
  });
  const socket = await slow.dial(authorityOf('http1'));
  const { text } = await talk(socket, `GET / HTTP/1.1\r\n${HEAD}\r\n`, (got) => got.includes('\r\n\r\n'));
  expect(text).toContain('x-name: Zo\xc3\xab\r\n');
});

test.each([
  [
    'a length beside chunks',
    `POST / HTTP/1.1\r\n${HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
  ],
  [
    'chunks beside a length',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n`,
    400,
  ],
  ['two lengths', `POST / HTTP/1.1\r\n${HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde`, 400],
  [
    'the same length twice',
    `POST / HTTP/1.1\r\n${HEAD}Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde`,
    400,
  ],
  ['a list of lengths', `POST / HTTP/1.1\r\n${HEAD}Content-Length: 5, 5\r\n\r\nabcde`, 400],
  ['a signed length', `POST / HTTP/1.1\r\n${HEAD}Content-Length: +5\r\n\r\nabcde`, 400],
  [
    'chunked that is not last',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
    400,
  ],
  [
    'another transfer coding',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    501,
  ],
  [
    'two transfer codings',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
  ],
  ['a blank before a coding', `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`, 400],
  ['line feeds alone', 'GET / HTTP/1.1\nHost: ledger\n\n', 400],
  ['a line feed alone in the headers', `GET / HTTP/1.1\r\n${HEAD}X: 1\nY: 2\r\n\r\n`, 400],
  ['a carriage return alone', `GET / HTTP/1.1\r\n${HEAD}X: 1\rY: 2\r\n\r\n`, 400],
  ['a folded line', `GET / HTTP/1.1\r\n${HEAD}X: 1\r\n 2\r\n\r\n`, 400],
  ['NUL in a value', `GET / HTTP/1.1\r\n${HEAD}X: a\0b\r\n\r\n`, 400],
  ['NUL in the path', `GET /a\0b HTTP/1.1\r\n${HEAD}\r\n`, 400],
  ['a control character in a value', `GET / HTTP/1.1\r\n${HEAD}X: a\x01b\r\n\r\n`, 400],
  ['two Hosts', `GET / HTTP/1.1\r\n${HEAD}Host: other\r\n\r\n`, 400],
  ['the same Host twice', `GET / HTTP/1.1\r\n${HEAD}${HEAD}\r\n`, 400],
  ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400],
  ['an empty Host', 'GET / HTTP/1.1\r\nHost:\r\n\r\n', 400],
  ['a Host that is none', 'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n', 400],
  ['a Host with a user', 'GET / HTTP/1.1\r\nHost: user@ledger\r\n\r\n', 400],
  ['a Host with two ports', 'GET / HTTP/1.1\r\nHost: ledger:80:81\r\n\r\n', 400],
  ['a blank in a name', `GET / HTTP/1.1\r\n${HEAD}X One: 1\r\n\r\n`, 400],
  ['a blank behind a name', `GET / HTTP/1.1\r\n${HEAD}X : 1\r\n\r\n`, 400],
  ['an empty name', `GET / HTTP/1.1\r\n${HEAD}: 1\r\n\r\n`, 400],
  ['a target that is no path', `GET ledger HTTP/1.1\r\n${HEAD}\r\n`, 400],
  ['an asterisk for GET', `GET * HTTP/1.1\r\n${HEAD}\r\n`, 400],
  ['a target with a user', `GET http://user@ledger/ HTTP/1.1\r\n${HEAD}\r\n`, 400],
  ['a target without a host', `GET http:///a HTTP/1.1\r\n${HEAD}\r\n`, 400],
  ['another scheme', `GET ftp://ledger/a HTTP/1.1\r\n${HEAD}\r\n`, 400],
  ['CONNECT', `CONNECT other:80 HTTP/1.1\r\n${HEAD}\r\n`, 403],
  ['HTTP/1.0', 'GET / HTTP/1.0\r\n\r\n', 426],
  ['HTTP/0.9', 'GET /\r\n\r\n', 426],
  ['HTTP/3.0', `GET / HTTP/3.0\r\n${HEAD}\r\n`, 400],
  ['no method', ' / HTTP/1.1\r\n\r\n', 400],
  ['101 headers', `GET / HTTP/1.1\r\n${HEAD}${'x: 1\r\n'.repeat(100)}\r\n`, 431],
  ['headers of 61 KiB', `GET / HTTP/1.1\r\n${HEAD}x: ${'a'.repeat(61 * 1024)}\r\n\r\n`, 431],
  ['a path of 61 KiB', `GET /${'a'.repeat(61 * 1024)} HTTP/1.1\r\n${HEAD}\r\n`, 431],
  [
    'an upgrade to what is not known',
    `GET / HTTP/1.1\r\n${HEAD}Connection: upgrade\r\nUpgrade: magic\r\n\r\n`,
    403,
  ],
  [
    'a WebSocket by POST',
    `POST / HTTP/1.1\r\n${HEAD}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc`,
    400,
  ],
  ['an expectation that is not known', `GET / HTTP/1.1\r\n${HEAD}Expect: wonders\r\n\r\n`, 417],
])('%s is refused', async (_what, text, status) => {
  const before = server.records.length;
  const { text: answer, ended } = await send(text);
  expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  expect(answer.split('HTTP/1.1 ')).toHaveLength(2);
  expect(answer.toLowerCase()).toContain('connection: close');
  expect(ended).toBe(true);
  const record = server.records[before];
  expect(record?.status).toBe(status);
  expect(record?.details).not.toBe('');
});

test.each([
  [
    'a chunk size that is none',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n`,
    400,
  ],
  [
    'a chunk that ends without a line end',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n`,
    400,
  ],
  [
    'a chunk size beyond all numbers',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na`,
    400,
  ],
  [
    'line feeds alone between chunks',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n`,
    400,
  ],
  [
    'a flood of chunk extensions',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n3;${'a'.repeat(20_000)}\r\nabc\r\n0\r\n\r\n`,
    413,
  ],
])('%s is answered, and told to who has the request', async (_what, text, status) => {
  const before = server.exchanges.length;
  const { text: answer } = await send(text);
  expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  const exchange = server.exchanges[before];
  expect(exchange?.failure).toMatchObject({ status, flag: 'DPE' });
});

test.each([
  [
    'a method that is not in the standard is passed on',
    `PURGE /x HTTP/1.1\r\n${HEAD}\r\n`,
    'PURGE ledger /x\n',
  ],
  [
    'an absolute target names the host',
    `GET http://real:81/a?b HTTP/1.1\r\n${HEAD}\r\n`,
    'GET real:81 /a?b\n',
  ],
  ['an absolute target without a path', `GET http://real?b HTTP/1.1\r\n${HEAD}\r\n`, 'GET real /?b\n'],
  ['an asterisk for OPTIONS', `OPTIONS * HTTP/1.1\r\n${HEAD}\r\n`, 'OPTIONS ledger *\n'],
  [
    'headers of the connection end here',
    `GET / HTTP/1.1\r\n${HEAD}Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nX-Yours: 2\r\n\r\n`,
    'GET ledger /\nte: trailers\nx-yours: 2\n\n',
  ],
  [
    'an upgrade to h2c is ignored',
    `GET / HTTP/1.1\r\n${HEAD}Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n`,
    'GET ledger /\n\n',
  ],
  ['100 headers', `GET / HTTP/1.1\r\n${HEAD}${'x: 1\r\n'.repeat(99)}\r\n`, 'GET ledger /\nx: 1\n'],
  [
    'a body in chunks',
    `POST / HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\n\r\n`,
    'POST ledger /\n\nabc',
  ],
  [
    'a body with a length',
    `POST / HTTP/1.1\r\n${HEAD}Content-Length: 3\r\n\r\nabc`,
    'POST ledger /\ncontent-length: 3\n\nabc',
  ],
])('%s', async (_what, text, expected) => {
  const { text: answer } = await send(text, (received) => received.includes('\n\n') && isWhole(received));
  expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  expect(answer).toContain(expected);
});

test('requests that come without waiting are answered one after the other', async () => {
  const order: string[] = [];
  const started: Exchange[] = [];
  await using slow = await listen(ca, {
    serveRequest: (exchange) => {
      order.push(exchange.head.target);
      started.push(exchange);
    },
  });
  const socket = await slow.dial(authorityOf('http1'));
  const answer = talk(
    socket,
    ['/a', '/b', '/c'].map((path) => `GET ${path} HTTP/1.1\r\n${HEAD}\r\n`).join(''),
    (received) => received.split('HTTP/1.1 200').length === 4,
  );
  for (const at of [0, 1, 2]) {
    const exchange = await eventually('a request', () => started[at]);
    expect(order).toHaveLength(at + 1);
    exchange.respond(200, ['content-length', '0', 'x-path', exchange.head.target]);
    exchange.end();
  }
  const { text } = await answer;
  expect([...text.matchAll(/x-path: (\S+)/g)].map(([, path]) => path)).toEqual(['/a', '/b', '/c']);
});

test('what breaks HTTP behind a request is answered after that request', async () => {
  const { text } = await send(`GET /first HTTP/1.1\r\n${HEAD}\r\nGET / HTTP/1.1\r\nbroken header\r\n\r\n`);
  expect([...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual(['200', '400']);
});

test('the body is asked for when somebody wants it', async () => {
  const socket = await server.dial(authorityOf('http1'));
  const { text } = await talk(
    socket,
    `POST / HTTP/1.1\r\n${HEAD}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n`,
    (received) => received.includes('\r\n\r\n'),
  );
  expect(text).toBe('HTTP/1.1 100 Continue\r\n\r\n');
  const { text: answer } = await talk(socket, 'abc', isWhole);
  expect(answer).toContain('POST ledger /\ncontent-length: 3\n\nabc');
});

test('a body that nobody asks for is not waited for', async () => {
  await using strict = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.respond(403, ['content-length', '0']);
      exchange.end();
    },
  });
  const socket = await strict.dial(authorityOf('http1'));
  const { text, ended } = await talk(
    socket,
    `POST / HTTP/1.1\r\n${HEAD}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n`,
  );
  expect(text).toMatch(/^HTTP\/1\.1 403 .*connection: close/s);
  expect(ended).toBe(true);
});

test('a client may end its direction behind its request', async () => {
  await using slow = await listen(ca, {
    serveRequest: (exchange) => {
      setImmediate(() => {
        exchange.respond(200, ['content-length', '2']);
        exchange.write(Buffer.from('ok'));
        exchange.end();
      });
    },
  });
  const socket = await slow.dial(authorityOf('http1'));
  const answer = talk(socket, `GET / HTTP/1.1\r\n${HEAD}\r\n`);
  socket.end();
  expect((await answer).text).toMatch(/^HTTP\/1\.1 200 .*\r\n\r\nok$/s);
});

test('a client that leaves is told to who answers', async () => {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  await using slow = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.onClose = resolve;
    },
  });
  const socket = await slow.dial(authorityOf('http1'));
  socket.write(`GET / HTTP/1.1\r\n${HEAD}\r\n`);
  await eventually('the request', () => slow.exchanges.length === 1);
  socket.destroy();
  expect(await promise).toBe(false);
});

test('an answer that is cut short shows as such', async () => {
  await using broken = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.respond(200, ['content-length', '100']);
      exchange.write(Buffer.from('half'));
      setImmediate(() => exchange.abort());
    },
  });
  const socket = await broken.dial(authorityOf('http1'));
  expect(await talk(socket, `GET / HTTP/1.1\r\n${HEAD}\r\n`)).toMatchObject({ ended: false, reset: true });
});

test('an early answer comes before the answer', async () => {
  await using early = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.inform(103, ['link', '</a.css>; rel=preload']);
      exchange.respond(200, ['content-length', '0']);
      exchange.end();
    },
  });
  const socket = await early.dial(authorityOf('http1'));
  const { text } = await talk(socket, `GET / HTTP/1.1\r\n${HEAD}\r\n`, (received) =>
    received.includes('200'),
  );
  expect(text).toMatch(/^HTTP\/1\.1 103 \S+\r\nlink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 200 OK\r\n/);
});

test('trailers go to those who want them', async () => {
  await using trailing = await listen(ca, {
    serveRequest: (exchange) => {
      exchange.respond(200, []);
      exchange.write(Buffer.from('body'));
      exchange.end(['x-sum', '42', 'content-length', '7']);
    },
  });
  const ask = async (headers: string): Promise<string> => {
    const socket = await trailing.dial(authorityOf('http1'));
    const until = (received: string): boolean =>
      /\r\n0\r\n.*\r\n\r\n$/s.test(received) || received.endsWith('0\r\n\r\n');
    return (await talk(socket, `GET / HTTP/1.1\r\n${HEAD}${headers}\r\n`, until)).text;
  };
  expect(await ask('TE: trailers\r\n')).toMatch(/4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n$/);
  expect(await ask('')).toMatch(/4\r\nbody\r\n0\r\n\r\n$/);
});

test('a WebSocket is bytes both ways', async () => {
  await using sockets = await listen(ca, {
    serveRequest: (exchange) => {
      expect(exchange.head).toMatchObject({ upgrade: 'websocket', method: 'GET' });
      const tunnel = exchange.upgrade(101, ['connection', 'Upgrade', 'upgrade', 'websocket']);
      tunnel.start({
        onData: (chunk) => tunnel.write(Buffer.from(chunk.toString().toUpperCase())),
        onEnd: () => tunnel.end(),
        onAbort: () => undefined,
        onDrain: () => undefined,
      });
    },
  });
  const socket = await sockets.dial(authorityOf('http1'));
  const closed = Promise.withResolvers<boolean>();
  const first = await talk(
    socket,
    `GET /chat HTTP/1.1\r\n${HEAD}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\nhello`,
    (received) => received.endsWith('HELLO'),
  );
  expect(first.text).toBe(
    'HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nHELLO',
  );
  const [exchange] = sockets.exchanges;
  if (exchange !== undefined) exchange.onClose = closed.resolve;
  const answer = talk(socket, 'bye');
  socket.end();
  expect(await answer).toMatchObject({ text: 'BYE', ended: true });
  expect(await closed.promise).toBe(true);
  expect(exchange?.bytesReceived()).toBe(8);
});

test('a WebSocket that is refused gets an answer', async () => {
  const { text, ended } = await send(
    `GET /chat HTTP/1.1\r\n${HEAD}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  );
  expect(text).toMatch(/^HTTP\/1\.1 200 OK.*GET ledger \/chat\n/s);
  expect(ended).toBe(true);
});

test('requests of others are not disturbed', async () => {
  const [good] = await Promise.all([
    send(`GET /good HTTP/1.1\r\n${HEAD}\r\n`, isWhole),
    ...Array.from({ length: 20 }, () => send('NONSENSE\r\n\r\n')),
  ]);
  expect(good.text).toContain('GET ledger /good\n');
});
