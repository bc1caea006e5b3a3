import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { SocketLeg } from '#ztunnel/hbone/socket-leg.ts';
import { type SpliceEnd, splice } from '#ztunnel/hbone/splice.ts';
import { socketPair } from '#ztunnel/hbone/testing.ts';
import { DuplexLeg } from './duplex-leg.ts';

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

test('an end that comes before the other end is there passes', async () => {
  const near = await socketPair();
  const far = await socketPair();
  sockets.push(near.near, near.far, far.near, far.far);
  const leg = new DuplexLeg(near.far);
  near.near.end();
  await once(near.far, 'end');

  let end: SpliceEnd | undefined;
  const ended = once(far.far.resume(), 'end');
  splice(leg, new SocketLeg(far.near), (how) => {
    end = how;
  });
  await ended;
  far.far.end('answer');
  expect(await once(near.near, 'data')).toEqual([Buffer.from('answer')]);
  expect(await eventually('the end of the splice', () => end)).toEqual({ kind: 'complete' });
});
