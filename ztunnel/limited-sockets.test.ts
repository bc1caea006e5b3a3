import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { LoopbackPods } from '#test/kit/loopback-pods.ts';
import { FairShare } from './hbone/fair-share.ts';
import { socketPair } from './hbone/testing.ts';
import { limitSockets } from './limited-sockets.ts';
import { Shedding, type ShedReport } from './shedding.ts';

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

async function accepted(): Promise<Socket> {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  near.on('error', () => undefined);
  return far;
}

test("sockets that wait elsewhere for the other end of their tunnel are the pod's as well", async () => {
  const told: ShedReport[] = [];
  let parked = 2;
  const limited = limitSockets(new LoopbackPods().socketsOf('127.0.0.1'), {
    ...{ pod: 'default/web', most: 3, share: new FairShare(), parked: () => parked },
    shedding: new Shedding((reports) => told.push(...reports)),
  });
  expect(limited.admit(await accepted())).toBe(true);
  expect(limited.admit(await accepted())).toBe(false);
  expect(() => limited.dialOutside({ ip: '127.0.0.1' as never, port: 1 })).toThrow('as many as one may have');
  parked = 1;
  expect(limited.admit(await accepted())).toBe(true);
  await expect.poll(() => told).toMatchObject([{ shortage: 'pod-sockets', pod: 'default/web', count: 2 }]);
});
