import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { digest, reader } from '#test/kit/digest.ts';
import { eventually } from '#test/kit/eventually.ts';
import { duplicate } from '../hand-over/descriptors.ts';
import { attachSocket } from './attach-socket.ts';
import type { DetachableLeg, DetachedSocket } from './detached-socket.ts';
import { SocketLeg } from './socket-leg.ts';
import { type Splice, type SpliceEnd, splice } from './splice.ts';
import { socketPair } from './testing.ts';

const MIB = 1 << 20;

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** Two applications and what carries bytes between them, which can let go of both and take them up again. */
class Relay {
  readonly client: Socket;
  readonly server: Socket;
  end: SpliceEnd | undefined;
  #legs: readonly [DetachableLeg, DetachableLeg];
  #splice: Splice;

  static async open(): Promise<Relay> {
    const [near, far] = [await socketPair(), await socketPair()];
    sockets.push(near.near, near.far, far.near, far.far);
    for (const socket of [near.near, far.far]) socket.on('error', () => undefined);
    return new Relay(near.near, far.far, [new SocketLeg(near.far), new SocketLeg(far.near)]);
  }

  private constructor(client: Socket, server: Socket, legs: readonly [SocketLeg, SocketLeg]) {
    this.client = client;
    this.server = server;
    this.#legs = legs;
    this.#splice = splice(...legs, (end) => {
      this.end = end;
    });
  }

  detach(): readonly [DetachedSocket, DetachedSocket] {
    const [downstream, upstream] = this.#legs;
    this.#splice.release();
    for (const leg of [downstream, upstream]) leg.stop();
    return [detach(downstream), detach(upstream)];
  }

  attach([downstream, upstream]: readonly [DetachedSocket, DetachedSocket]): void {
    this.#legs = [attachSocket(downstream), attachSocket(upstream)];
    this.#splice = splice(...this.#legs, (end) => {
      this.end = end;
    });
  }

  handOver(): void {
    this.attach(this.detach());
  }
}

function detach(leg: DetachableLeg): DetachedSocket {
  const { descriptor } = leg;
  if (descriptor === undefined) throw new TypeError('it cannot be detached');
  return leg.detach(descriptor === 'closed' ? undefined : duplicate(descriptor));
}

test('bulk both ways arrives whole, however often both sockets are detached on the way', async () => {
  const relay = await Relay.open();
  const [up, down] = [randomBytes(64 * MIB), randomBytes(64 * MIB)];
  const [atServer, atClient] = [reader(relay.server), reader(relay.client)];
  relay.client.end(up);
  relay.server.end(down);
  for (const part of [1, 8, 16, 24, 32, 48]) {
    await eventually('more', () => atServer.size() >= part * MIB && atClient.size() >= part * MIB, 20_000);
    relay.handOver();
  }
  expect(await Promise.all([atServer.hash, atClient.hash])).toEqual([digest(up), digest(down)]);
  await eventually('the end', () => relay.end);
  expect(relay.end).toEqual({ kind: 'complete' });
});

test('messages of a few bytes go on, one by one, across detaching', async () => {
  const relay = await Relay.open();
  relay.server.on('data', (bytes) => relay.server.write(bytes));
  for (let round = 0; round < 50; round++) {
    relay.client.write(`${round};`);
    expect(`${(await once(relay.client, 'data'))[0]}`).toBe(`${round};`);
    relay.handOver();
  }
});

test.for(['client', 'server'] as const)(
  'with the %s having ended, the other direction goes on and ends by itself',
  async (first) => {
    const relay = await Relay.open();
    const second = first === 'client' ? 'server' : 'client';
    const there = reader(relay[second]);
    const back = reader(relay[first]);
    relay[first].end('that is all');
    expect(await there.hash).toBe(digest(Buffer.from('that is all')));
    const sockets = relay.detach();
    const flags = sockets.map(({ hasEnded, hasFinished }) => [hasEnded, hasFinished]);
    expect(flags).toEqual(
      first === 'client'
        ? [
            [true, false],
            [false, true],
          ]
        : [
            [false, true],
            [true, false],
          ],
    );
    relay.attach(sockets);
    const rest = randomBytes(8 * MIB);
    relay[second].write(rest.subarray(0, 4 * MIB));
    await eventually('half', () => back.size() === 4 * MIB);
    relay.handOver();
    relay[second].end(rest.subarray(4 * MIB));
    expect(await back.hash).toBe(digest(rest));
    await eventually('the end', () => relay.end);
    expect(relay.end).toEqual({ kind: 'complete' });
  },
);

test('what a reader that stands still has not taken is carried along, the end as well', async () => {
  const relay = await Relay.open();
  const up = randomBytes(32 * MIB);
  relay.client.end(up);
  relay.server.pause();
  const sockets = await eventually('the kernel takes no more', () => {
    const detached = relay.detach();
    if (detached[1].unsent.length > 0) return detached;
    relay.attach(detached);
    return undefined;
  });
  relay.attach(sockets);
  relay.handOver();
  const atServer = reader(relay.server);
  relay.server.end();
  relay.server.resume();
  expect(await atServer.hash).toBe(digest(up));
});

test('one whose both directions have ended is carried while the other end has bytes to take', async () => {
  const relay = await Relay.open();
  relay.server.pause();
  const up = randomBytes(6 * MIB);
  relay.server.end('over');
  const atClient = reader(relay.client);
  await atClient.hash;
  relay.client.end(up);
  await eventually('all is on its way', () => relay.client.writableFinished, 20_000);
  const sockets = await eventually('the client is done', () => {
    const detached = relay.detach();
    if (detached[0].fd === undefined) return detached;
    relay.attach(detached);
    return undefined;
  });
  relay.attach(sockets);
  const atServer = reader(relay.server);
  relay.server.resume();
  expect(await atServer.hash).toBe(digest(up));
  await eventually('the end', () => relay.end);
  expect(relay.end).toEqual({ kind: 'complete' });
});

test.for(['client', 'server'] as const)(
  'a reset by the %s while detached resets the other end when attached',
  async (who) => {
    const relay = await Relay.open();
    const other = relay[who === 'client' ? 'server' : 'client'];
    relay[who].write('half of ');
    await once(other, 'data');
    const sockets = relay.detach();
    relay[who].resetAndDestroy();
    const seen = once(other, 'error');
    relay.attach(sockets);
    expect((await seen)[0]).toMatchObject({ code: 'ECONNRESET' });
    expect(relay.end).toMatchObject({ kind: 'aborted', side: who === 'client' ? 'downstream' : 'upstream' });
  },
);

test('nothing reaches either end while nobody has the sockets', async () => {
  const relay = await Relay.open();
  relay.client.write('before');
  await once(relay.server, 'data');
  const seen: string[] = [];
  for (const socket of [relay.client, relay.server])
    for (const event of ['end', 'error', 'close']) socket.on(event, () => seen.push(event));
  const sockets = relay.detach();
  relay.client.write('during');
  await eventually('it is in the kernel', () => relay.client.writableLength === 0);
  expect(seen).toEqual([]);
  relay.attach(sockets);
  expect(`${(await once(relay.server, 'data'))[0]}`).toBe('during');
  expect(seen).toEqual([]);
});
