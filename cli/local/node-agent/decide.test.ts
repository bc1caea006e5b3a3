import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  decide,
  type Facts,
  type Hold,
  holdOf,
  type InPlace,
  NOTHING_IN_PLACE,
  type Order,
  reportedState,
  type Step,
} from './decide.ts';

const IN: Order = { wanted: 'in', udp: 'allow', mode: 'permissive' };
const OUT: Order = { ...IN, wanted: 'out' };
const GONE: Order = { ...IN, wanted: 'gone' };
const inPlace = (some: Partial<InPlace> = {}): InPlace => ({ ...NOTHING_IN_PLACE, ...some });
const facts = (some: Partial<Facts> = {}): Facts => ({
  nowMs: 10_000,
  ztunnels: 1,
  hasStarted: true,
  told: undefined,
  movingMs: 0,
  plaintext: 'allow',
  ...some,
});
const OPEN: Hold = { udp: 'allow', mode: 'permissive', refusesPlaintext: false };
const served = { served: true } as const;
const outbound = { ...served, scope: 'outbound' } as const;
const announced = { ...outbound, announced: true, announcedAtMs: 9_900 } as const;
const enrolled = { ...announced, scope: 'both', hold: OPEN } as const;
const withdrawn = { ...outbound, announced: false, announcedAtMs: 9_900 } as const;
const released = { ...served, scope: 'nothing', announcedAtMs: 9_000 } as const;
const hbone = (sinceMs: number): Partial<Facts> => ({ told: { tunnel: 'HBONE', sinceMs } });
const plain = (sinceMs: number): Partial<Facts> => ({ told: { tunnel: 'NONE', sinceMs } });

test.each<{ when: string; place: Partial<InPlace>; also?: Partial<Facts>; step: Step }>([
  { when: 'no ztunnel is there', place: {}, also: { ztunnels: 0 }, step: { kind: 'rest' } },
  { when: 'one is', place: {}, step: { kind: 'serve' } },
  { when: 'it is served', place: served, step: { kind: 'capture', scope: 'outbound' } },
  {
    when: 'it is served and has not started',
    place: served,
    also: { hasStarted: false },
    step: { kind: 'capture', scope: 'both' },
  },
  { when: 'outbound is captured', place: outbound, step: { kind: 'announce' } },
  { when: 'peers have not been told', place: announced, also: plain(0), step: { kind: 'wait', ms: 600 } },
  { when: 'peers were told just now', place: announced, also: hbone(9_970), step: { kind: 'wait', ms: 120 } },
  { when: 'peers know', place: announced, also: hbone(9_850), step: { kind: 'capture', scope: 'both' } },
  {
    when: 'peers know and another is on its way',
    place: announced,
    also: { ...hbone(9_850), movingMs: 40 },
    step: { kind: 'wait', ms: 40 },
  },
  {
    when: 'peers are not told in time',
    place: announced,
    also: { nowMs: 10_600 },
    step: { kind: 'capture', scope: 'both' },
  },
  { when: 'all is done', place: enrolled, step: { kind: 'rest' } },
  {
    when: 'all is done and the ztunnel has left',
    place: enrolled,
    also: { ztunnels: 0 },
    step: { kind: 'rest' },
  },
  {
    when: 'UDP is to be something else',
    place: { ...enrolled, hold: { ...OPEN, udp: 'refuse' } },
    step: { kind: 'capture', scope: 'both' },
  },
  {
    when: 'all was done by another agent',
    place: { ...enrolled, hold: undefined },
    step: { kind: 'capture', scope: 'both' },
  },
  {
    when: 'all was done by another agent, and policies have not come',
    place: { ...enrolled, hold: undefined },
    also: { plaintext: undefined },
    step: { kind: 'rest' },
  },
  { when: 'it was on its way out', place: withdrawn, step: { kind: 'announce' } },
  { when: 'it was all but out', place: released, step: { kind: 'capture', scope: 'outbound' } },
])('on the way in, when $when: $step.kind', ({ place, also, step }) => {
  expect(decide(IN, inPlace(place), facts(also))).toEqual(step);
});

test('a pod that is to be strict is, also after another agent, and before policies have come', () => {
  const place = inPlace({ ...enrolled, hold: undefined });
  const step = decide({ ...IN, mode: 'strict' }, place, facts({ plaintext: undefined }));
  expect(step).toEqual({ kind: 'capture', scope: 'both' });
});

test.each<{ when: string; place: Partial<InPlace>; also?: Partial<Facts>; step: Step }>([
  { when: 'nothing is there', place: {}, step: { kind: 'rest' } },
  { when: 'it was only served', place: served, step: { kind: 'drop' } },
  { when: 'everything is captured', place: enrolled, step: { kind: 'capture', scope: 'outbound' } },
  { when: 'inbound is let go', place: announced, step: { kind: 'withdraw' } },
  { when: 'peers have not been told', place: withdrawn, also: hbone(0), step: { kind: 'wait', ms: 600 } },
  { when: 'peers know', place: withdrawn, also: plain(9_850), step: { kind: 'capture', scope: 'nothing' } },
  {
    when: 'peers know and another is on its way',
    place: withdrawn,
    also: { ...plain(9_850), movingMs: 40 },
    step: { kind: 'wait', ms: 40 },
  },
  {
    when: 'peers are not told in time',
    place: withdrawn,
    also: { nowMs: 10_600 },
    step: { kind: 'capture', scope: 'nothing' },
  },
  { when: 'nobody has looked', place: released, also: plain(0), step: { kind: 'count' } },
  {
    when: 'it was idle only now',
    place: { ...released, idleSinceMs: 9_500 },
    also: plain(0),
    step: { kind: 'count' },
  },
  {
    when: 'it is idle and some peer may still tunnel',
    place: { ...released, idleSinceMs: 8_000 },
    also: hbone(0),
    step: { kind: 'wait', ms: 1000 },
  },
  { when: 'it is idle', place: { ...released, idleSinceMs: 9_000 }, also: plain(0), step: { kind: 'drop' } },
  { when: 'it is dropped', place: { scope: 'nothing' }, step: { kind: 'remove' } },
])('on the way out, when $when: $step.kind', ({ place, also, step }) => {
  expect(decide(OUT, inPlace(place), facts(also))).toEqual(step);
});

test.each<{ place: Partial<InPlace>; step: Step }>([
  { place: enrolled, step: { kind: 'withdraw' } },
  { place: { ...enrolled, announced: false }, step: { kind: 'drop' } },
  { place: { scope: 'both' }, step: { kind: 'remove' } },
  { place: {}, step: { kind: 'forget' } },
])('a pod that is gone is forgotten without waiting: $step.kind', ({ place, step }) => {
  expect(decide(GONE, inPlace(place), facts({ ztunnels: 0 }))).toEqual(step);
});

test.each<{ when: string; plaintext: Facts['plaintext']; hold: Partial<Hold> }>([
  { when: 'whoever comes is let in', plaintext: 'allow', hold: {} },
  { when: 'some are denied', plaintext: 'depends', hold: { mode: 'strict' } },
  { when: 'all are denied', plaintext: 'deny', hold: { mode: 'strict', refusesPlaintext: true } },
  { when: 'policies have not come', plaintext: undefined, hold: { mode: 'strict' } },
])('a pod is open without a ztunnel only if nobody is ever denied: $when', ({ plaintext, hold }) => {
  expect(holdOf(IN, { plaintext })).toEqual({ ...OPEN, ...hold });
  expect(holdOf({ ...IN, mode: 'strict' }, { plaintext })).toEqual({ ...OPEN, ...hold, mode: 'strict' });
});

test('what policies say now is in force at once, also if it is less', () => {
  const recapture: Step = { kind: 'capture', scope: 'both' };
  const refusing = { ...enrolled, hold: { ...OPEN, mode: 'strict', refusesPlaintext: true } } as const;
  expect(decide(IN, inPlace(enrolled), facts({ plaintext: 'deny' }))).toEqual(recapture);
  expect(decide(IN, inPlace(refusing), facts({ plaintext: 'deny' }))).toEqual({ kind: 'rest' });
  expect(decide(IN, inPlace(refusing), facts({ plaintext: 'allow' }))).toEqual(recapture);
});

test('while nobody has said anything, everything stays as it is', () => {
  for (const place of [{}, served, announced, enrolled, released]) {
    expect(decide({ ...IN, wanted: 'unknown' }, inPlace(place), facts())).toEqual({ kind: 'rest' });
  }
});

test.each([
  { order: IN, place: {}, state: 'pending' },
  { order: IN, place: announced, state: 'pending' },
  { order: IN, place: enrolled, state: 'enrolled' },
  { order: OUT, place: {}, state: 'out' },
  { order: OUT, place: withdrawn, state: 'releasing' },
  { order: OUT, place: released, state: 'releasing' },
] as const)('$state is what is reported', ({ order, place, state }) => {
  expect(reportedState(order, inPlace(place))).toBe(state);
});

test('whatever order comes when, the pod gets where it should, and never takes plain connections only by a ztunnel before peers were told', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ wanted: fc.constantFrom('in', 'out'), steps: fc.nat(12) }), { maxLength: 8 }),
      fc.constantFrom('in', 'out', 'gone'),
      (changes, last) => {
        const simulation = simulate();
        for (const { wanted, steps } of changes) simulation.run(wanted, steps);
        const end = simulation.run(last, 100);
        if (last === 'in') expect(reportedState(IN, end.place)).toBe('enrolled');
        else expect(end.place).toMatchObject({ served: false, scope: undefined, announced: false });
      },
    ),
  );
});

/** Does steps as the agent would; peers are told 150 ms after each announcement. */
function simulate(): { run: (wanted: Order['wanted'], steps: number) => { place: InPlace } } {
  let place = NOTHING_IN_PLACE;
  let nowMs = 0;
  const told = (): Facts['told'] => {
    const known = nowMs >= place.announcedAtMs + 150;
    return { tunnel: place.announced === known ? 'HBONE' : 'NONE', sinceMs: place.announcedAtMs + 150 };
  };
  const take = (step: Step): void => {
    nowMs += 20;
    switch (step.kind) {
      case 'wait':
        nowMs += step.ms;
        break;
      case 'serve':
        place = { ...place, served: true };
        break;
      case 'capture':
        if (step.scope === 'both') expect(told()?.tunnel).toBe('HBONE');
        expect(place.served).toBe(true);
        place = { ...place, scope: step.scope, hold: OPEN, idleSinceMs: undefined };
        break;
      case 'announce':
      case 'withdraw':
        place = { ...place, announced: step.kind === 'announce', announcedAtMs: nowMs };
        break;
      case 'count':
        nowMs += 200;
        place = { ...place, idleSinceMs: place.idleSinceMs ?? nowMs };
        break;
      case 'drop':
        place = { ...place, served: false };
        break;
      case 'remove':
        place = { ...place, scope: undefined };
        break;
      case 'rest':
      case 'forget':
    }
  };
  return {
    run: (wanted, steps) => {
      for (let step = 0; step < steps; step++) {
        take(
          decide({ ...IN, wanted }, place, {
            nowMs,
            ztunnels: 1,
            hasStarted: true,
            told: told(),
            movingMs: 0,
            plaintext: 'allow',
          }),
        );
      }
      return { place };
    },
  };
}
