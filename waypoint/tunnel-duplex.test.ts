import { once } from 'node:events';
import { Agent, createServer, request as httpRequest, type IncomingMessage } from 'node:http';
import {
  connect as connectHttp2,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Readable } from 'node:stream';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { SocketLeg } from '#ztunnel/hbone/socket-leg.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import { type ConnectionPair, connectionPair, OK, request, socketPair } from '#ztunnel/hbone/testing.ts';
import { TunnelDuplex } from './tunnel-duplex.ts';

/** Both ends of a real tunnel as Duplex. */

let pair: ConnectionPair | undefined;

afterEach(() => {
  pair?.client.close('done');
  pair?.server.close('done');
});

/** Not that of `node:stream/consumers`, which destroys what it has read to the end. */
async function buffer(from: Readable): Promise<Buffer> {
  const pieces: Buffer[] = [];
  from.on('data', (piece: Buffer) => pieces.push(piece));
  await once(from, 'end');
  return Buffer.concat(pieces);
}

async function tunnel(): Promise<{ readonly near: TunnelDuplex; readonly far: TunnelDuplex }> {
  const { promise, resolve } = Promise.withResolvers<TunnelStream>();
  pair = await connectionPair((stream) => {
    pair?.server.respond(stream, OK, false);
    resolve(stream);
  });
  const { stream, answer } = request(pair.client);
  await answer;
  const remote = { ip: '10.0.0.9', port: 8080 };
  const near = new TunnelDuplex(stream, { remote });
  const far = new TunnelDuplex(await promise);
  // Those that a test leaves open end with their session.
  for (const end of [near, far]) end.on('error', () => undefined);
  return { near, far };
}

test('each direction ends by itself', async () => {
  const { near, far } = await tunnel();
  near.end('question');
  expect((await buffer(far)).toString()).toBe('question');
  far.end('answer');
  expect((await buffer(near)).toString()).toBe('answer');
  await Promise.all([near, far].map(async (end) => end.closed || (await once(end, 'close'))));
  await eventually('no streams are left', () => pair?.client.streamCount === 0);
});

test('chunks that wait together arrive in order and complete', async () => {
  const { near, far } = await tunnel();
  near.cork();
  for (let index = 0; index < 3_000; index++) near.write(`${index},`);
  near.uncork();
  near.end();
  const text = (await buffer(far)).toString();
  expect(text).toBe(Array.from({ length: 3_000 }, (_, index) => `${index},`).join(''));
});

test('a reader that does not read makes the writer wait', async () => {
  const { near, far } = await tunnel();
  const chunk = Buffer.alloc(64 * 1024);
  let written = 0;
  while (near.write(chunk)) written += chunk.length;
  const push = (): void => {
    while (written < 64 * 1024 * 1024 && near.write(chunk)) written += chunk.length;
  };
  near.on('drain', push);
  let last = -1;
  await eventually('nothing moves', () => {
    const isStill = last === written;
    last = written;
    return isStill;
  });
  expect(written).toBeLessThan(20 * 1024 * 1024);
  near.off('drain', push);
  near.end();
  expect((await buffer(far)).length).toBeGreaterThanOrEqual(written);
});

test('destroy is a reset at the other end', async () => {
  const { near, far } = await tunnel();
  far.resume();
  near.write('half an ans');
  near.destroy();
  const [error] = (await once(far, 'error')) as [Error];
  expect(error.message).toContain('CONNECT_ERROR');
});

test('destroySoon sends what was written, and its end', async () => {
  const { near, far } = await tunnel();
  near.write('all of it');
  near.destroySoon();
  expect((await buffer(far)).toString()).toBe('all of it');
  far.destroy();
});

test('timeout is told after nothing has come or gone', async () => {
  const { near } = await tunnel();
  near.setTimeout(30);
  await once(near, 'timeout');
  expect(near.destroyed).toBe(false);
  near.destroy();
});

test('it says to whom it leads', async () => {
  const { near } = await tunnel();
  expect([near.remoteAddress, near.remotePort, near.remoteFamily]).toEqual(['10.0.0.9', 8080, 'IPv4']);
  near.destroy();
});

test('node:http takes it for a socket, at both ends', async () => {
  const { near, far } = await tunnel();
  const server = createServer((incoming, outgoing) => incoming.pipe(outgoing));
  server.emit('connection', far);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  agent.createConnection = () => near;
  for (const text of ['one', 'two']) {
    const sent = httpRequest({ agent, method: 'POST', host: 'echo' });
    sent.end(text);
    const [answer] = (await once(sent, 'response')) as [IncomingMessage];
    expect((await buffer(answer)).toString()).toBe(text);
  }
  agent.destroy();
});

test('node:http2 takes it for a socket, at both ends', async () => {
  const { near, far } = await tunnel();
  const server = createHttp2Server();
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  server.emit('connection', far);
  const session = connectHttp2('http://echo', { createConnection: () => near });
  const stream = session.request({ ':method': 'POST' });
  stream.end('hello');
  expect((await buffer(stream)).toString()).toBe('hello');
  session.close();
  await once(near, 'close');
});

test('a plain socket can be wrapped as well', async () => {
  const sockets = await socketPair();
  const near = new TunnelDuplex(new SocketLeg(sockets.near));
  const far = new TunnelDuplex(new SocketLeg(sockets.far));
  near.end('over TCP');
  expect((await buffer(far)).toString()).toBe('over TCP');
  far.end('and back');
  expect((await buffer(near)).toString()).toBe('and back');
  await Promise.all([near, far].map(async (end) => end.closed || (await once(end, 'close'))));
});
