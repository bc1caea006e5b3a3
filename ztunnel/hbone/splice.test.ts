import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { digest, reader } from '#test/kit/digest.ts';
import { eventually } from '#test/kit/eventually.ts';
import { SocketLeg } from './socket-leg.ts';
import { type Splice, type SpliceEnd, splice } from './splice.ts';
import { CONNECT, connectionPair, OK, request, SETTINGS, socketPair } from './testing.ts';

/** Two applications, a splice at each end of a tunnel, loopback in between: application, near, tunnel, far, application. */
interface Tunnel {
  /** The applications' own sockets. */
  readonly client: Socket;
  readonly server: Socket;
  /** How the splice at either end ended. */
  readonly ends: { near?: SpliceEnd; far?: SpliceEnd };
  readonly nearSplice: Splice;
  readonly farSplice: Splice;
  readonly tunnelSocket: Socket;
  readonly openStreams: () => number;
}

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

async function openTunnel(settings = SETTINGS): Promise<Tunnel> {
  const near = await socketPair();
  const far = await socketPair();
  const ends: Tunnel['ends'] = {};
  let farSplice: Splice | undefined;
  const pair = await connectionPair(
    (stream) => {
      pair.server.respond(stream, OK, false);
      farSplice = splice(stream, new SocketLeg(far.near), (end) => {
        ends.far = end;
      });
    },
    { client: settings, server: settings },
  );
  const { stream, answer } = request(pair.client, CONNECT);
  await answer;
  const nearSplice = splice(new SocketLeg(near.far), stream, (end) => {
    ends.near = end;
  });
  sockets.push(near.near, near.far, far.near, far.far, pair.clientSocket, pair.serverSocket);
  for (const socket of [near.near, far.far]) socket.on('error', () => undefined);
  if (farSplice === undefined) throw new TypeError('the request has not arrived');
  return {
    client: near.near,
    server: far.far,
    ends,
    nearSplice,
    farSplice,
    tunnelSocket: pair.clientSocket,
    openStreams: () => pair.client.streamCount + pair.server.streamCount,
  };
}

/** How an application sees its connection end. */
async function ending(socket: Socket): Promise<string> {
  const seen: string[] = [];
  socket.once('end', () => seen.push('end'));
  socket.once('error', (error: NodeJS.ErrnoException) => seen.push(error.code ?? error.message));
  socket.resume();
  return await eventually('an ending', () => seen[0]);
}

test('each direction ends by itself: what is sent after the other has ended arrives whole', async () => {
  const tunnel = await openTunnel();
  const request = Buffer.alloc(3_000_000, 'request ');
  const response = Buffer.alloc(5_000_000, 'a response ');
  const atServer = reader(tunnel.server);
  const atClient = reader(tunnel.client);
  tunnel.client.end(request);
  expect(await atServer.hash).toBe(digest(request));
  expect(tunnel.ends).toEqual({});
  tunnel.server.end(response);
  expect(await atClient.hash).toBe(digest(response));
  await eventually('both ends', () => tunnel.ends.near && tunnel.ends.far);
  expect(tunnel.ends).toEqual({ near: { kind: 'complete' }, far: { kind: 'complete' } });
  expect(tunnel.openStreams()).toBe(0);
  expect(tunnel.nearSplice.bytes()).toEqual({ received: 3_000_000, sent: 5_000_000 });
  expect(tunnel.farSplice.bytes()).toEqual({ received: 3_000_000, sent: 5_000_000 });
});

test('an end without a byte passes, either way', async () => {
  const tunnel = await openTunnel();
  const atClient = reader(tunnel.client);
  const atServer = reader(tunnel.server);
  tunnel.server.end();
  await atClient.hash;
  tunnel.client.end('last');
  await atServer.hash;
  expect(atServer.size()).toBe(4);
  await eventually('both ends', () => tunnel.ends.near && tunnel.ends.far);
  expect(tunnel.ends.far).toEqual({ kind: 'complete' });
});

test.each([
  { who: 'the client', from: 'client', to: 'server', side: 'downstream' },
  { who: 'the server', from: 'server', to: 'client', side: 'upstream' },
] as const)(
  'a reset by $who is a reset at the other end, after bytes as well',
  async ({ from, to, side }) => {
    const tunnel = await openTunnel();
    tunnel[from].write('half an ans');
    await once(tunnel[to], 'data');
    const seen = ending(tunnel[to]);
    tunnel[from].resetAndDestroy();
    expect(await seen).toBe('ECONNRESET');
    await eventually('both ends', () => tunnel.ends.near && tunnel.ends.far);
    expect(tunnel.ends.near).toMatchObject({ kind: 'aborted', side });
    expect(tunnel.ends.far).toMatchObject({ kind: 'aborted', side });
    expect(tunnel.openStreams()).toBe(0);
  },
);

test('an end that comes before the other end is there passes', async () => {
  const near = await socketPair();
  const far = await socketPair();
  sockets.push(near.near, near.far, far.near, far.far);
  const downstream = new SocketLeg(near.far);
  near.near.end();
  await once(near.far, 'end');

  let end: SpliceEnd | undefined;
  splice(downstream, new SocketLeg(far.near), (how) => {
    end = how;
  });
  expect(await ending(far.far)).toBe('end');
  far.far.end('answer');
  expect(await once(near.near, 'data')).toEqual([Buffer.from('answer')]);
  expect(await eventually('the end of the splice', () => end)).toEqual({ kind: 'complete' });
});

test('a reset after the end of its own direction is a reset, too', async () => {
  const tunnel = await openTunnel();
  tunnel.client.end('request');
  await once(tunnel.server.resume(), 'end');
  tunnel.server.write('half an ans');
  await once(tunnel.client, 'data');
  const seen = ending(tunnel.client);
  tunnel.server.resetAndDestroy();
  expect(await seen).toBe('ECONNRESET');
});

test('a client that goes away while an answer is on its way stops it', async () => {
  const tunnel = await openTunnel();
  tunnel.client.end('request');
  await once(tunnel.server.resume(), 'end');
  const seen = ending(tunnel.server);
  tunnel.server.write(Buffer.alloc(50_000_000));
  await once(tunnel.client, 'data');
  tunnel.client.resetAndDestroy();
  expect(await seen).toMatch(/ECONNRESET|EPIPE/);
});

test('a lost session is a reset at both ends', async () => {
  const tunnel = await openTunnel();
  tunnel.client.write('x');
  await once(tunnel.server, 'data');
  const seen = Promise.all([ending(tunnel.client), ending(tunnel.server)]);
  tunnel.tunnelSocket.destroy();
  expect(await seen).toEqual(['ECONNRESET', 'ECONNRESET']);
});

test('a session that closes in good order is no end of the connections on it', async () => {
  const tunnel = await openTunnel();
  const seen = Promise.all([ending(tunnel.client), ending(tunnel.server)]);
  tunnel.tunnelSocket.end();
  expect(await seen).toEqual(['ECONNRESET', 'ECONNRESET']);
});

test('a cut is a reset at both ends, and says why', async () => {
  const tunnel = await openTunnel();
  const seen = Promise.all([ending(tunnel.client), ending(tunnel.server)]);
  tunnel.farSplice.cut('denied by policy');
  expect(await seen).toEqual(['ECONNRESET', 'ECONNRESET']);
  expect(tunnel.ends.far).toEqual({ kind: 'cut', reason: 'denied by policy' });
  expect(tunnel.ends.near).toMatchObject({
    kind: 'aborted',
    reason: 'stream reset by the peer: CONNECT_ERROR',
  });
});

test('a reader that stalls stops the writer, with bounded bytes in between, and gets all of them later', async () => {
  const tunnel = await openTunnel({ ...SETTINGS, streamWindowBytes: 262_144 });
  const total = 64_000_000;
  const piece = Buffer.alloc(1_000_000, 'abc');
  let sent = 0;
  const pump = (): void => {
    while (sent < total) {
      sent += piece.length;
      if (!tunnel.client.write(piece)) return;
    }
    tunnel.client.end();
  };
  tunnel.client.on('drain', pump);
  pump();
  let last = -1;
  await eventually('the writer stands still', async () => {
    const before = tunnel.nearSplice.bytes().received;
    const isStill = before === last && before > 0;
    last = before;
    return isStill;
  });
  // Two kernel buffers each side, our queues, and the window.
  expect(tunnel.nearSplice.bytes().received).toBeLessThan(24_000_000);
  const digest = reader(tunnel.server);
  await digest.hash;
  expect(digest.size()).toBe(total);
});

test('a stalled connection does not hold up another on the same session', async () => {
  const far = [await socketPair(), await socketPair()];
  const near = [await socketPair(), await socketPair()];
  let count = 0;
  const pair = await connectionPair((stream) => {
    const socket = far[count++]?.near;
    if (socket === undefined) return;
    pair.server.respond(stream, OK, false);
    splice(stream, new SocketLeg(socket), () => undefined);
  });
  for (const { far: socket } of near) {
    const { stream, answer } = request(pair.client);
    await answer;
    splice(new SocketLeg(socket), stream, () => undefined);
  }
  sockets.push(
    ...[...far, ...near].flatMap((each) => [each.near, each.far]),
    pair.clientSocket,
    pair.serverSocket,
  );
  const [stalled, free] = near;
  for (let index = 0; index < 60; index++) stalled?.near.write(Buffer.alloc(1_000_000));
  const total = 30_000_000;
  free?.near.end(Buffer.alloc(total));
  const other = far[1]?.far;
  if (other === undefined) throw new TypeError('no reader');
  const read = reader(other);
  await read.hash;
  expect(read.size()).toBe(total);
});
