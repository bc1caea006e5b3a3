import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { socketPair } from '#ztunnel/hbone/testing.ts';
import { socketTunnel } from './socket-tunnel.ts';

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

test('an end that comes before the tunnel starts is told, and the other direction goes on', async () => {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  let isComplete: boolean | undefined;
  const tunnel = socketTunnel(far, undefined, {
    onReceived: () => undefined,
    onSent: () => undefined,
    onClosed: (complete) => {
      isComplete = complete;
    },
  });
  near.end();
  await once(far, 'end');

  let hasEnded = false;
  tunnel.start({
    onData: () => undefined,
    onEnd: () => {
      hasEnded = true;
    },
    onAbort: (reason) => expect.unreachable(reason),
    onDrain: () => undefined,
  });
  await eventually('the end', () => hasEnded);
  tunnel.write(Buffer.from('answer'));
  tunnel.end();
  expect(await once(near, 'data')).toEqual([Buffer.from('answer')]);
  expect(await eventually('the close', () => isComplete)).toBe(true);
});
