import { Socket } from 'node:net';
import { expect, test } from 'vitest';
import type { DataPath, ServedPod } from './data-path.ts';
import { FailedArrivals } from './failed-arrivals.ts';
import { podLimits } from './limits.ts';
import { PodSessions } from './pod-sessions.ts';

/** A socket of which only its ends and its close matter. */
function connected(remoteAddress: string | undefined): Socket {
  return Object.defineProperties(new Socket(), {
    remoteAddress: { value: remoteAddress },
    remotePort: { value: remoteAddress && 4000 },
    localAddress: { value: '192.0.2.2' },
    localPort: { value: 15008 },
  });
}

/** Sessions of a pod whose workload is not known, and what was refused. */
function unknownPod(handshakesOfPeer: number): {
  readonly sessions: PodSessions;
  readonly shed: readonly string[];
} {
  const shed: string[] = [];
  const path = {
    config: { node: 'n1' },
    limits: { ...podLimits(1_000, 1), handshakesOfPeer },
    shedding: { note: (shortage: string) => shed.push(shortage) },
    connections: { notify: () => undefined },
    waits: { until: () => new Promise(() => undefined) },
  } as unknown as DataPath;
  const pod = { info: { uid: 'u', namespace: 'shop', name: 'cart' } } as unknown as ServedPod;
  return { sessions: new PodSessions(path, pod, new FailedArrivals(() => undefined)), shed };
}

test('who comes back from a port before its former socket has closed gives both places back', () => {
  const { sessions, shed } = unknownPod(2);
  for (let turn = 0; turn < 10; turn += 1) {
    const [before, after] = [connected('192.0.2.1'), connected('192.0.2.1')];
    void sessions.accept(before);
    void sessions.accept(after);
    before.emit('close');
    expect(sessions.isIdle).toBe(false);
    after.emit('close');
    expect(sessions.isIdle).toBe(true);
  }
  expect(shed).toEqual([]);
});

test('a connection that was reset before it was accepted is closed', async () => {
  const socket = connected(undefined);
  await unknownPod(1).sessions.accept(socket);
  expect(socket.destroyed).toBe(true);
});
