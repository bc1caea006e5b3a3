import { expect, test } from 'vitest';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import { policy, workload } from '#test/kit/resources.ts';
import { EMPTY_VIEW, type NodeView, serveResources } from './served-snapshot.ts';
import { type PlannedResponse, Session } from './session.ts';
import type { SubscriptionRequest } from './subscription.ts';

const POD = 'Kubernetes//Pod/default/echo-1';

test('policies go out before the workloads that name them, and are taken back after', () => {
  const plain = serveResources([workload({})]).view;
  const named = serveResources([workload({ authorizationPolicies: ['default/p'] }), policy({})], plain).view;
  const session = opened();
  session.plan(plain);

  expect(session.plan(named).map(brief)).toEqual([
    [AUTHORIZATION_TYPE, ['default/p'], []],
    [ADDRESS_TYPE, [POD], []],
  ]);
  expect(session.plan(plain).map(brief)).toEqual([
    [ADDRESS_TYPE, [POD], []],
    [AUTHORIZATION_TYPE, [], ['default/p']],
  ]);
});

test('where one policy takes the place of another, no workload names one that is missing', () => {
  const before = serveResources([workload({ authorizationPolicies: ['default/p'] }), policy({})]).view;
  const after = serveResources(
    [workload({ authorizationPolicies: ['default/q'] }), policy({ name: 'q' })],
    before,
  ).view;
  const session = opened();
  session.plan(before);
  expect(session.plan(after).map(brief)).toEqual([
    [AUTHORIZATION_TYPE, ['default/q'], []],
    [ADDRESS_TYPE, [POD], []],
    [AUTHORIZATION_TYPE, [], ['default/p']],
  ]);
});

test('both types are answered, policies first, whatever is asked for first', () => {
  const session = new Session({ maxNames: 10 });
  session.request(ADDRESS_TYPE, request());
  expect(session.holdback?.waitsFor).toBe('policy-request');
  session.request(AUTHORIZATION_TYPE, request());
  expect(session.holdback).toBeUndefined();
  expect(session.plan(EMPTY_VIEW).map(brief)).toEqual([
    [AUTHORIZATION_TYPE, [], []],
    [ADDRESS_TYPE, [], []],
  ]);
  expect(session.plan(EMPTY_VIEW)).toEqual([]);
});

test('a client that asks for workloads alone gets them, once it was waited for', () => {
  const session = new Session({ maxNames: 10 });
  session.request(ADDRESS_TYPE, request());
  const { view } = serveResources([workload({}), policy({})]);
  expect(session.plan(view)).toEqual([]);
  session.release();
  expect(session.plan(view).map(brief)).toEqual([[ADDRESS_TYPE, [POD], []]]);
  expect(session.holdback).toBeUndefined();
});

test('every response has a nonce of its own', () => {
  const session = opened();
  const nonces = [1, 2, 3].flatMap((revision) => session.plan(revised(revision)).map(({ nonce }) => nonce));
  expect(new Set(nonces).size).toBe(nonces.length);
});

test('to a client that does not answer, changes are merged until it does', () => {
  const session = opened();
  const planned = Array.from({ length: 40 }, (_, revision) => session.plan(revised(revision))).filter(
    (responses) => responses.length > 0,
  );
  expect(planned.length).toBe(16);
  const nonce = planned.at(-1)?.at(-1)?.nonce ?? '';
  session.request(ADDRESS_TYPE, request({ nonce }));
  expect(session.plan(revised(40)).map(brief)).toEqual([[ADDRESS_TYPE, [POD], []]]);
});

test('what is too long for one response is split, and removals come with the last part', () => {
  const before = serveResources([workload({ name: 'gone' })]).view;
  const session = opened({ maxResponseBytes: 500 });
  session.plan(before);
  const many = serveResources(
    ['a', 'b', 'c', 'd', 'e'].map((name) => workload({ name })),
    before,
  ).view;
  const parts = session.plan(many);
  expect(parts.length).toBeGreaterThan(1);
  expect(parts.flatMap(({ updated }) => updated.map(({ name }) => name))).toEqual([
    ...many[ADDRESS_TYPE].keys(),
  ]);
  expect(parts.map(({ removed }) => removed.length)).toEqual([...parts.slice(1).map(() => 0), 1]);
});

function revised(revision: number): NodeView {
  return serveResources([workload({ canonicalRevision: `r${revision}` })]).view;
}

function opened(limits: { readonly maxResponseBytes?: number } = {}): Session {
  const session = new Session({ maxNames: 10, ...limits });
  session.request(ADDRESS_TYPE, request());
  session.request(AUTHORIZATION_TYPE, request());
  return session;
}

function request(fields: Partial<SubscriptionRequest> = {}): SubscriptionRequest {
  return {
    subscribe: [],
    unsubscribe: [],
    initialVersions: new Map(),
    nonce: '',
    error: undefined,
    ...fields,
  };
}

function brief({ type, updated, removed }: PlannedResponse): [string, string[], readonly string[]] {
  return [type, updated.map(({ name }) => name), removed];
}
