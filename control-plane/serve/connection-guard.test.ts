import { Socket } from 'node:net';
import { expect, test, vi } from 'vitest';
import { createConnectionGuard } from './connection-guard.ts';

/** A socket from one port of which only its close matters. */
function connected(remotePort = 4000): Socket {
  return Object.defineProperties(new Socket(), {
    remoteAddress: { value: '192.0.2.1' },
    remotePort: { value: remotePort },
  });
}

test('a connection from the port of one that has not closed yet is counted as itself', () => {
  const guard = createConnectionGuard({ maxOfCaller: 2, longestUnknownMs: 60_000 });
  for (let turn = 0; turn < 10; turn += 1) {
    const [before, after] = [connected(), connected()];
    guard.opened(before);
    expect(guard.accepted('192.0.2.1:4000', 'node/n1')).toBeUndefined();
    guard.opened(after);
    expect(guard.accepted('192.0.2.1:4000', 'node/n1')).toBeUndefined();
    before.emit('close');
    after.emit('close');
  }
});

test('one that has shown its token stays when its predecessor at that port closes', () => {
  vi.useFakeTimers();
  try {
    const guard = createConnectionGuard({ longestUnknownMs: 1000 });
    const [before, after] = [connected(), connected()];
    guard.opened(before);
    guard.opened(after);
    before.emit('close');
    expect(guard.accepted('192.0.2.1:4000', 'node/n1')).toBeUndefined();
    vi.advanceTimersByTime(5000);
    expect(after.destroyed).toBe(false);
  } finally {
    vi.useRealTimers();
  }
});

test('of those that come at once the oldest go, each for another', () => {
  const guard = createConnectionGuard({ maxUnknownOfAddress: 8, longestUnknownMs: 60_000 });
  const sockets = Array.from({ length: 20 }, (_, index) => connected(5000 + index));
  for (const socket of sockets) guard.opened(socket);
  expect(sockets.map(({ destroyed }) => destroyed)).toEqual(sockets.map((_, index) => index < 12));
  for (const socket of sockets) socket.destroy();
});
