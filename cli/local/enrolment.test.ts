import { expect, test } from 'vitest';
import { enrolmentState, type NodeEnrolment } from './enrolment.ts';

const order = (enrol: boolean): NodeEnrolment['wanted'] => ({ pods: [{ uid: 'u', enrol }] });
const report = (
  state: 'enrolled' | 'pending' | 'releasing' | 'out',
  rest: { connected?: number; error?: string } = {},
): NodeEnrolment['done'] => ({
  pods: [
    { uid: 'u', state, capture: 'nftables', ...(rest.error === undefined ? {} : { error: rest.error }) },
  ],
  ztunnel: { connected: rest.connected ?? 1 },
});

test.each([
  { when: 'nobody has said anything', wanted: undefined, done: undefined, kind: 'unknown' },
  { when: 'only others are known', wanted: { pods: [] }, done: undefined, kind: 'unknown' },
  { when: 'it is to stay outside', wanted: order(false), done: undefined, kind: 'outside' },
  { when: 'it is being released', wanted: order(false), done: report('releasing'), kind: 'outside' },
  { when: 'the agent has not come to it', wanted: order(true), done: undefined, kind: 'pending' },
  { when: 'it is enrolled', wanted: order(true), done: report('enrolled'), kind: 'enrolled' },
])('the state is $kind when $when', ({ wanted, done, kind }) => {
  expect(enrolmentState('u', { wanted, done }).kind).toBe(kind);
});

test.each([
  { done: report('pending', { error: 'nft: no such table' }), reason: 'nft: no such table' },
  { done: report('pending', { connected: 0 }), reason: 'no ztunnel runs on its node' },
])('what it waits for is said: $reason', ({ done, reason }) => {
  expect(enrolmentState('u', { wanted: order(true), done })).toEqual({ kind: 'pending', reason });
});
