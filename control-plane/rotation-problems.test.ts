import { expect, test } from 'vitest';
import type { ReportedClient, ReportedRotation } from './authority-report.ts';
import { rotationProblems } from './rotation-problems.ts';

const NOON = Date.parse('2026-01-01T12:00:00.250Z');
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';

function client(name: string, changes: Partial<ReportedClient>): ReportedClient {
  return { name, done: false, state: 'asked', waitsFor: [], ...changes };
}

function said(
  clients: readonly ReportedClient[],
  afterMs = 10_000,
  phase: ReportedRotation['phase'] = 'distributing',
): readonly string[] {
  const rotation = { phase, started: new Date(NOON).toISOString(), until: null, clients };
  return rotationProblems(rotation, NOON + afterMs).map(({ message }) => message);
}

test('who has not answered for a new root is named after a while, and since when', () => {
  const clients = [client('node/n1', { done: true, state: 'acknowledged' }), client('node/n2', {})];
  expect(said(clients, 9_999)).toEqual([]);
  expect(said(clients)).toEqual([
    'its rotation waits for node/n2 since 2026-01-01T12:00:00Z: it was sent the new root, and has not answered: look at its log, tulle restart ztunnel/n2',
  ]);
  expect(said([client('waypoint/shop/waypoint', {})])[0]).toMatch(/tulle restart waypoint\/shop\/waypoint$/);
});

test('who gets the root with its certificates is said to have to get one', () => {
  const waitsFor = [WEB, `${WEB}2`, `${WEB}3`, `${WEB}4`];
  expect(said([client('node/c', { state: 'holds-older', waitsFor })])[0]).toMatch(
    /with the next certificate of .*web, .*web2, .*web3 and 1 more: wait, tulle restart ztunnel\/c, or, .* remove tokens\/c$/,
  );
});

test('what waits for the clock waits for nobody', () => {
  expect(said([], 1e9, 'retiring')).toEqual([]);
  expect(rotationProblems(null, NOON)).toEqual([]);
});
