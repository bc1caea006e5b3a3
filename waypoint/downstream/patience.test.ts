import { once } from 'node:events';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Exchange } from '../exchange.ts';
import { authorityOf, close, listen, type TestListener, talk } from './testing.ts';

/** Callers that are slow, and a waypoint that is to end. */

let ca: TemporaryAuthority;

beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});

const SHORT = { headMs: 100, requestIdleMs: 200, lingerMs: 100 };

test('a head that does not come whole is answered 408', async () => {
  await using server = await listen(ca, { limits: SHORT });
  const socket = await server.dial(authorityOf('http1'));
  const { text, ended } = await talk(socket, 'GET / HTTP/1.1\r\nHost: a\r\n');
  expect(text).toMatch(/^HTTP\/1\.1 408 .*connection: close/s);
  expect(ended).toBe(true);
  expect(server.records).toMatchObject([{ status: 408 }]);
});

test('a connection that says nothing may stay', async () => {
  await using server = await listen(ca, { limits: SHORT });
  const idle = await server.dial(authorityOf('http1'));
  const slow = await server.dial(authorityOf('http1'));
  await talk(slow, 'GET / HTTP/1.1\r\n'); // outlasts the limit
  const { text } = await talk(idle, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', (all) => all.includes('\n\n'));
  expect(text).toMatch(/^HTTP\/1\.1 200/);
  await close(idle);
});

test('a body that stops coming is answered 408, and told to who waits for it', async () => {
  const aborted = Promise.withResolvers<void>();
  await using server = await listen(ca, {
    limits: SHORT,
    serveRequest: (exchange) =>
      exchange.body?.start({
        onData: () => undefined,
        onEnd: () => undefined,
        onAbort: aborted.resolve,
      }),
  });
  const socket = await server.dial(authorityOf('http1'));
  const { text } = await talk(socket, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc');
  expect(text).toMatch(/^HTTP\/1\.1 408 /);
  await aborted.promise;
  expect(server.exchanges[0]?.failure).toMatchObject({ status: 408, flag: 'SI' });
});

test('a body over HTTP/2 that stops coming is answered 408', async () => {
  await using server = await listen(ca, {
    limits: SHORT,
    serveRequest: (exchange) =>
      exchange.body?.start({ onData: () => undefined, onEnd: () => undefined, onAbort: () => undefined }),
  });
  const socket = await server.dial(authorityOf('http2'));
  socket.on('error', () => undefined);
  const client = connectHttp2('http://a', { createConnection: () => socket });
  client.on('error', () => undefined);
  const stream = client.request({ ':method': 'POST', ':path': '/' }, { endStream: false });
  stream.write('abc');
  const [answer] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  expect(answer[':status']).toBe(408);
  client.destroy();
});

test('an answer that nobody reads is reset', async () => {
  const closed = Promise.withResolvers<boolean>();
  await using server = await listen(ca, {
    limits: SHORT,
    serveRequest: (exchange) => {
      exchange.onClose = closed.resolve;
      exchange.respond(200, []);
      while (exchange.write(Buffer.alloc(64 * 1024)));
    },
  });
  const socket = await server.dial(authorityOf('http1'));
  socket.on('error', () => undefined);
  socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  expect(await closed.promise).toBe(false);
  expect(server.exchanges[0]?.failure?.flag).toBe('SI');
});

test('what is left of a body after the answer is read for a while only', async () => {
  await using server = await listen(ca, {
    limits: SHORT,
    serveRequest: (exchange) => {
      exchange.respond(413, ['content-length', '0']);
      exchange.end();
    },
  });
  const socket = await server.dial(authorityOf('http1'));
  const answer = await talk(socket, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n');
  expect(answer.text).toMatch(/^HTTP\/1\.1 413/);
  expect(answer.reset || answer.ended).toBe(true);
});

/** Answers when it is told to. */
async function listenSlowly(): Promise<{ server: TestListener; answer: (at: number) => void }> {
  const server = await listen(ca, { serveRequest: () => undefined });
  return {
    server,
    answer: (at) => {
      const exchange: Exchange | undefined = server.exchanges[at];
      exchange?.respond(200, ['content-length', '2']);
      exchange?.write(Buffer.from('ok'));
      exchange?.end();
    },
  };
}

test('a waypoint that drains answers what it has, and says that it is the last answer', async () => {
  const { server, answer } = await listenSlowly();
  await using _server = server;
  const busy = await server.dial(authorityOf('http1'));
  const idle = await server.dial(authorityOf('http1'));
  const first = talk(busy, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await eventually('the request', () => server.exchanges.length === 1);
  server.drain();
  answer(0);
  expect((await first).text).toMatch(/^HTTP\/1\.1 200 .*connection: close.*\r\n\r\nok$/s);
  // The next request may be on its way already.
  const last = talk(idle, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await eventually('the request', () => server.exchanges.length === 2);
  answer(1);
  expect((await last).text).toMatch(/^HTTP\/1\.1 200 .*connection: close.*\r\n\r\nok$/s);
  await server.listener.untilIdle();
});

test('callers take no new tunnels to a waypoint that drains, and sessions end with their last one', async () => {
  const { server } = await listenSlowly();
  await using _server = server;
  const connection = await server.connect();
  server.drain();
  await eventually('the end of an idle session', () => !connection.isOpen);
  await server.listener.untilIdle();
  await expect(server.connect()).rejects.toThrow();
});

test('HTTP/2 inside is asked to go away, and what it has asked for is answered', async () => {
  const { server, answer } = await listenSlowly();
  await using _server = server;
  const socket = await server.dial(authorityOf('http2'));
  const client = connectHttp2('http://a', { createConnection: () => socket });
  const goaway = once(client, 'goaway');
  const closed = once(client, 'close');
  const stream = client.request({ ':path': '/' });
  await eventually('the request', () => server.exchanges.length === 1);
  server.drain();
  await goaway;
  const response = once(stream, 'response');
  answer(0);
  expect(((await response) as [IncomingHttpHeaders])[0][':status']).toBe(200);
  stream.resume();
  await closed;
  await server.listener.untilIdle();
});

test('what is left at the end is reset', async () => {
  const { server } = await listenSlowly();
  await using _server = server;
  const socket = await server.dial(authorityOf('tcp'));
  const broken = once(socket, 'error');
  server.drain();
  server.listener.close('the time is over');
  await broken;
  await server.listener.untilIdle();
});

/** Answers at once, whatever else is to come. */
function answerEarly(exchange: Exchange): void {
  exchange.respond(403, ['content-length', '2']);
  exchange.write(Buffer.from('no'));
  exchange.end();
}

test('of a body whose answer is over only a little is read, and then the connection ends', async () => {
  await using server = await listen(ca, { limits: { ...SHORT, lingerMs: 800 }, serveRequest: answerEarly });
  const socket = await server.dial(authorityOf('http1'));
  socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n');
  const piece = Buffer.alloc(64 * 1024);
  let text = '';
  socket.on('data', (bytes: Buffer) => {
    text += bytes.toString();
  });
  socket.on('error', () => undefined);
  const push = (): void => {
    while (!socket.destroyed && socket.write(piece));
  };
  socket.on('drain', push);
  push();
  await eventually('the connection is gone', () => socket.destroyed);
  expect(text).toMatch(/^HTTP\/1\.1 403 .*no$/s);
  // What is in flight: windows of the tunnel and of both ends.
  expect(socket.bytesWritten).toBeLessThan(48 * 1024 * 1024);
});

test('a short rest of a body does not cost the connection', async () => {
  await using server = await listen(ca, { serveRequest: answerEarly });
  const socket = await server.dial(authorityOf('http1'));
  const head = 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n';
  await talk(socket, head, (all) => all.endsWith('no'));
  const { text } = await talk(socket, `hello${head}`, (all) => all.endsWith('no'));
  expect(text).toMatch(/^HTTP\/1\.1 403/);
  await close(socket);
});

test('HTTP/2: who is answered is told to send no more', async () => {
  await using server = await listen(ca, { serveRequest: answerEarly });
  const socket = await server.dial(authorityOf('http2'));
  const session = connectHttp2('http://ledger', { createConnection: () => socket });
  const stream = session.request({ ':method': 'POST' });
  stream.write('the first of many');
  let text = '';
  stream.on('data', (bytes: Buffer) => {
    text += bytes.toString();
  });
  await once(stream, 'close');
  expect([text, stream.rstCode]).toEqual(['no', 0]);
  session.destroy();
});
