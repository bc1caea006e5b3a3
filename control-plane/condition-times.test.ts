import { expect, test } from 'vitest';
import { noteConditions, timeConditions } from './condition-times.ts';
import type { RouteStatus } from './derive/routes/attached.ts';

const START = Date.parse('2026-01-31T12:00:00.700Z');
const PARENT = { group: '', kind: 'Service', name: 'cart' };

function saying(status: 'True' | 'False', message = ''): RouteStatus {
  const condition = { type: 'Accepted' as const, status, reason: 'Accepted', message, observedGeneration: 1 };
  return {
    object: 'HTTPRoute shop/r',
    parents: [{ parentRef: PARENT, controllerName: 'tulle.dev/waypoint', conditions: [condition] }],
  };
}

function shown(status: RouteStatus, times: ReturnType<typeof noteConditions>): readonly string[] {
  return status.parents.flatMap((parent) =>
    timeConditions(times, status.object, parent).map(({ lastTransitionTime }) => lastTransitionTime),
  );
}

test('a condition keeps its time while its status stays, whatever else it says, and has a new one when it flips', () => {
  const first = noteConditions([saying('True')], new Map(), START);
  expect(shown(saying('True'), first)).toEqual(['2026-01-31T12:00:00Z']);
  const second = noteConditions([saying('True', 'in other words')], first, START + 60_000);
  expect(shown(saying('True'), second)).toEqual(['2026-01-31T12:00:00Z']);
  const third = noteConditions([saying('False')], second, START + 120_000);
  expect(shown(saying('False'), third)).toEqual(['2026-01-31T12:02:00Z']);
});

test('what is gone is forgotten', () => {
  const first = noteConditions([saying('True')], new Map(), START);
  expect(noteConditions([], first, START).size).toBe(0);
});
