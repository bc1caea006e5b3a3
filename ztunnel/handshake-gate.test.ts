import { expect, test } from 'vitest';
import { HandshakeGate } from './handshake-gate.ts';

const LIMITS = { handshakes: 10, handshakesOfPeer: 6 };

/** Has a client begin so many; what was dropped meanwhile. */
function enter(gate: HandshakeGate, peer: string, count: number, dropped: string[] = []): readonly string[] {
  return Array.from({ length: count }, (_, index) => {
    const entry = gate.enter(peer, () => dropped.push(`${peer} ${index}`));
    return entry.kind === 'entered' ? 'entered' : entry.limit;
  });
}

test('a client may be in so many handshakes', () => {
  const gate = new HandshakeGate(LIMITS);
  expect(enter(gate, 'a', 7).slice(-2)).toEqual(['entered', 'peer-handshakes']);
  expect(gate.size).toBe(6);
});

test('one that is over, by whatever name and how often it is said, makes room once', () => {
  const gate = new HandshakeGate(LIMITS);
  enter(gate, 'a', 5);
  const entry = gate.enter('a', () => undefined);
  if (entry.kind !== 'entered') throw new Error(entry.limit);
  entry.handshake.leave();
  entry.handshake.leave();
  expect(gate.size).toBe(5);
  expect(enter(gate, 'a', 1)).toEqual(['entered']);
});

test('when all places are taken, a newcomer takes the oldest of who has most', () => {
  const gate = new HandshakeGate(LIMITS);
  const dropped: string[] = [];
  enter(gate, 'a', 6, dropped);
  enter(gate, 'b', 4, dropped);
  expect(enter(gate, 'c', 2, dropped)).toEqual(['entered', 'entered']);
  expect(dropped).toEqual(['a 0', 'a 1']);
  expect(gate.size).toBe(10);
});

test('when all have as many, nobody takes anybody’s place', () => {
  const gate = new HandshakeGate({ handshakes: 4, handshakesOfPeer: 4 });
  const dropped: string[] = [];
  for (const peer of ['a', 'b', 'c', 'd']) enter(gate, peer, 1, dropped);
  expect(enter(gate, 'e', 1, dropped)).toEqual(['pod-handshakes']);
  expect(dropped).toEqual([]);
});
