import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type ClientProgress,
  clientProgress,
  decideStep,
  isDone,
  type RootsClient,
  type Rotation,
  SETTLE_MS,
} from './rotation.ts';

const NOW = 1_000_000;
const FILES = { rootPem: 'r', rootKeyPem: 'k', issuingPem: 'i', issuingKeyPem: 'k' };
const DISTRIBUTING: Rotation = { kind: 'distributing', startedMs: NOW - 60_000, next: FILES };
const RETIRING: Rotation = {
  kind: 'retiring',
  startedMs: NOW - 60_000,
  switchedMs: NOW - 50_000,
  untilMs: NOW + 10_000,
  signing: FILES,
  previous: { rootPem: 'old', issuingPem: 'old' },
};
const leaf = (identity: string, issuedMs: number, notAfterMs: number): RootsClient['leaves'][number] => ({
  identity,
  issuedMs,
  notAfterMs,
});
const clientArbitrary: fc.Arbitrary<RootsClient> = fc.record({
  name: fc.constantFrom('node/n1', 'node/n2', 'waypoint/a/b'),
  subscription: fc.constantFrom('acknowledged', 'pending', 'none'),
  leaves: fc.array(
    fc.record({
      identity: fc.constantFrom('a', 'b'),
      issuedMs: fc.integer({ min: NOW - 100_000, max: NOW }),
      notAfterMs: fc.integer({ min: NOW - 50_000, max: NOW + 50_000 }),
    }),
  ),
});

test.each<{ when: string; client: Omit<RootsClient, 'name'>; kind: ClientProgress['kind'] }>([
  {
    when: 'it has acknowledged',
    client: { subscription: 'acknowledged', leaves: [leaf('a', 0, NOW + 1)] },
    kind: 'acknowledged',
  },
  {
    when: 'it was sent them and holds new certificates',
    client: { subscription: 'pending', leaves: [leaf('a', NOW - 1, NOW + 1)] },
    kind: 'asked',
  },
  { when: 'it holds nothing', client: { subscription: 'none', leaves: [] }, kind: 'holds-nothing' },
  {
    when: 'all that it held has ended',
    client: { subscription: 'none', leaves: [leaf('a', 0, NOW)] },
    kind: 'holds-nothing',
  },
  {
    when: 'everything was issued since',
    client: { subscription: 'none', leaves: [leaf('a', NOW - 5, NOW + 1), leaf('b', NOW - 1, NOW + 1)] },
    kind: 'reissued',
  },
  {
    when: 'one certificate is from before',
    client: { subscription: 'none', leaves: [leaf('a', NOW - 10, NOW + 1), leaf('b', NOW - 1, NOW + 1)] },
    kind: 'holds-older',
  },
])('a client is "$kind" when $when', ({ client, kind }) => {
  expect(clientProgress({ name: 'node/n1', ...client }, NOW - 10, NOW)).toMatchObject({ kind });
});

test('at rest nothing is done, whoever holds what', () => {
  const facts = { clients: [], allDoneSinceMs: 0, nowMs: NOW };
  expect(decideStep({ kind: 'none' }, facts)).toEqual({ kind: 'rest' });
});

test('the new authority never signs while a client may verify without its root', () => {
  fc.assert(
    fc.property(fc.array(clientArbitrary), fc.integer({ min: 0, max: 5000 }), (clients, settledMs) => {
      const progress = clients.map((client) => clientProgress(client, DISTRIBUTING.startedMs, NOW));
      const isAllDone = progress.every(isDone);
      const allDoneSinceMs = isAllDone ? NOW - settledMs : undefined;
      const step = decideStep(DISTRIBUTING, { clients: progress, allDoneSinceMs, nowMs: NOW });
      const mayStillLack = clients.some(
        ({ subscription, leaves }) =>
          subscription === 'pending' ||
          (subscription === 'none' &&
            leaves.some((held) => held.notAfterMs > NOW && held.issuedMs <= DISTRIBUTING.startedMs)),
      );
      expect(step.kind === 'sign-with-next').toBe(!mayStillLack && settledMs >= SETTLE_MS);
    }),
  );
});

test('who is waited for is named', () => {
  const clients = [
    { name: 'node/n1', kind: 'acknowledged' },
    { name: 'node/n2', kind: 'asked' },
  ] as const;
  expect(decideStep(DISTRIBUTING, { clients, allDoneSinceMs: undefined, nowMs: NOW })).toEqual({
    kind: 'wait',
    waitsFor: ['node/n2'],
  });
});

test.each([
  { nowMs: RETIRING.untilMs - 1, kind: 'wait' },
  { nowMs: RETIRING.untilMs, kind: 'retire' },
])('at $nowMs the old root: $kind', ({ nowMs, kind }) => {
  expect(decideStep(RETIRING, { clients: [], allDoneSinceMs: undefined, nowMs }).kind).toBe(kind);
});
