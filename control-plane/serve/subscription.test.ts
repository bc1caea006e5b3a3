import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ADDRESS_TYPE } from '#api/resource.ts';
import { workload } from '#test/kit/resources.ts';
import { EMPTY_VIEW, type NodeView, serveResources } from './served-snapshot.ts';
import type { Changes } from './served-view.ts';
import { Subscription, type SubscriptionRequest, TooManyNamesError } from './subscription.ts';

const [A, B, C] = ['a', 'b', 'c'].map((name) => `Kubernetes//Pod/default/${name}`) as [
  string,
  string,
  string,
];

test('a first request without names wants everything', () => {
  const subscription = subscribed({});
  expect(names(subscription.take(mesh({ a: 1, b: 1 })))).toEqual({ updated: [A, B], removed: [] });
  expect(names(subscription.take(mesh({ a: 1, c: 1 })))).toEqual({ updated: [A, C], removed: [B] });
});

test('the first request is answered, also with nothing; then there is an answer only when there is something to say', () => {
  const subscription = subscribed({});
  expect(names(subscription.take(EMPTY_VIEW))).toEqual({ updated: [], removed: [] });
  expect(subscription.take(EMPTY_VIEW)).toBeUndefined();
});

test('only what changed between two snapshots is sent', () => {
  const first = mesh({ a: 1, b: 1 });
  const subscription = subscribed({});
  subscription.take(first);
  expect(names(subscription.take(mesh({ a: 1, b: 2, c: 1 }, first)))).toEqual({
    updated: [B, C],
    removed: [],
  });
});

test('a client is sent what differs from what it says it holds, and told what is gone', () => {
  const snapshot = mesh({ a: 1, b: 1 });
  const versions = new Map([
    [A, snapshot[ADDRESS_TYPE].get(A)?.version ?? ''],
    [B, ''],
    ['gone', 'x'],
  ]);
  const subscription = subscribed({ initialVersions: versions });
  expect(names(subscription.take(snapshot))).toEqual({ updated: [B], removed: ['gone'] });
});

test('names are wanted by name, also such that do not exist yet', () => {
  const subscription = subscribed({ subscribe: [A, C] });
  expect(names(subscription.take(mesh({ a: 1, b: 1 })))).toEqual({ updated: [A], removed: [C] });
  expect(names(subscription.take(mesh({ a: 1, b: 2, c: 1 })))).toEqual({ updated: [A, C], removed: [] });
  expect(names(subscription.take(mesh({ b: 3 })))).toEqual({ updated: [], removed: [A, C] });
});

test('a wildcard that is subscribed and unsubscribed at once wants nothing, and is answered', () => {
  const subscription = subscribed({ subscribe: ['*'], unsubscribe: ['*'] });
  expect(names(subscription.take(mesh({ a: 1 })))).toEqual({ updated: [], removed: [] });
  subscription.request(request({ subscribe: [A] }));
  expect(names(subscription.take(mesh({ a: 1 })))).toEqual({ updated: [A], removed: [] });
});

test('a name beside the wildcard leaves the wildcard in force', () => {
  const subscription = subscribed({});
  const first = mesh({ a: 1, b: 1 });
  subscription.take(first);
  subscription.request(request({ subscribe: [A] }));
  expect(names(subscription.take(first))).toEqual({ updated: [A], removed: [] });
  subscription.request(request({ unsubscribe: ['*'] }));
  expect(names(subscription.take(mesh({ a: 2, b: 2 }, first)))).toEqual({ updated: [A], removed: [] });
  subscription.request(request({ unsubscribe: [A] }));
  expect(subscription.take(mesh({ a: 3, b: 3 }))).toBeUndefined();
});

test('a wildcard that comes later brings everything', () => {
  const subscription = subscribed({ subscribe: [A] });
  const snapshot = mesh({ a: 1, b: 1 });
  subscription.take(snapshot);
  subscription.request(request({ subscribe: ['*'] }));
  expect(names(subscription.take(snapshot))).toEqual({ updated: [A, B], removed: [] });
});

test('a name that is subscribed again is sent again', () => {
  const subscription = subscribed({ subscribe: [A] });
  const snapshot = mesh({ a: 1 });
  subscription.take(snapshot);
  subscription.request(request({ subscribe: [A] }));
  expect(names(subscription.take(snapshot))).toEqual({ updated: [A], removed: [] });
  expect(subscription.take(snapshot)).toBeUndefined();
});

test('unsubscribing a name that the wildcard covers is answered with what there is', () => {
  const subscription = subscribed({});
  const snapshot = mesh({ a: 1 });
  subscription.take(snapshot);
  subscription.request(request({ unsubscribe: [A, 'unknown'] }));
  expect(names(subscription.take(snapshot))).toEqual({ updated: [A], removed: ['unknown'] });
});

test('unsubscribing a name that was not subscribed changes nothing', () => {
  const subscription = subscribed({ subscribe: [A] });
  subscription.take(mesh({ a: 1 }));
  subscription.request(request({ unsubscribe: [B] }));
  expect(subscription.take(mesh({ a: 1, b: 1 }))?.updated.map(({ name }) => name)).toEqual([A]);
});

test('a stale nonce acknowledges nothing, and its subscriptions count', () => {
  const subscription = subscribed({ subscribe: [A] });
  send(subscription, '1', mesh({ a: 1, b: 1 }));
  expect(subscription.request(request({ nonce: 'other', subscribe: [B] }))).toBe('stale');
  expect(subscription.status()).toMatchObject({ acked: 0 });
  expect(names(subscription.take(mesh({ a: 1, b: 1 })))?.updated).toContain(B);
});

test('the nonce of an earlier stream in a first request is not an answer', () => {
  const subscription = new Subscription(ADDRESS_TYPE, 10);
  expect(subscription.request(request({ nonce: '7', error: 'bad' }))).toBe('none');
});

test('an acknowledged response is counted, each resource once', () => {
  const subscription = subscribed({});
  const first = mesh({ a: 1, b: 1 });
  send(subscription, '1', first);
  expect(subscription.status()).toEqual({ type: ADDRESS_TYPE, sent: 2, acked: 0, rejected: [] });
  expect(subscription.request(request({ nonce: '1' }))).toBe('acked');
  expect(subscription.status()).toEqual({ type: ADDRESS_TYPE, sent: 2, acked: 2, rejected: [] });

  send(subscription, '2', mesh({ a: 1, b: 2 }, first));
  expect(subscription.status()).toMatchObject({ sent: 2, acked: 1 });
  expect(subscription.hasAcked(A)).toBe(true);
  expect(subscription.hasAcked(B)).toBe(false);
  subscription.request(request({ nonce: '2' }));
  expect(subscription.hasAcked(B)).toBe(true);
});

test('an answer speaks for the responses before it', () => {
  const subscription = subscribed({});
  const first = mesh({ a: 1 });
  send(subscription, '1', first);
  send(subscription, '2', mesh({ a: 1, b: 1 }, first));
  subscription.request(request({ nonce: '2' }));
  expect(subscription.status()).toMatchObject({ sent: 2, acked: 2 });
  expect(subscription.unanswered).toBe(0);
});

test('a rejection names resources, and holds until their next version is taken', () => {
  const subscription = subscribed({});
  const first = mesh({ a: 1, b: 1, c: 1 });
  send(subscription, '1', first);
  const error = `${A}: bad address; and worse; ${C}: unknown enum value 9`;
  expect(subscription.request(request({ nonce: '1', error }))).toBe('nacked');
  expect(subscription.status()).toEqual({
    type: ADDRESS_TYPE,
    sent: 3,
    acked: 1,
    rejected: [
      { name: A, message: 'bad address; and worse' },
      { name: C, message: 'unknown enum value 9' },
    ],
  });
  expect(subscription.hasAcked(A)).toBe(false);

  const second = mesh({ a: 2, b: 1, c: 1 }, first);
  send(subscription, '2', second);
  expect(names(subscription.take(second))).toBeUndefined();
  subscription.request(request({ nonce: '2' }));
  expect(subscription.status()).toMatchObject({ acked: 2, rejected: [{ name: C }] });

  send(subscription, '3', mesh({ a: 2, b: 1 }, second));
  expect(subscription.status()).toMatchObject({ sent: 2, acked: 2, rejected: [] });
});

test('a rejection that names no resource is of all that was sent', () => {
  const subscription = subscribed({});
  send(subscription, '1', mesh({ a: 1, b: 1 }));
  subscription.request(request({ nonce: '1', error: 'cannot read that: at all' }));
  expect(subscription.status().rejected).toEqual([
    { name: A, message: 'cannot read that: at all' },
    { name: B, message: 'cannot read that: at all' },
  ]);
});

test('what the client held from before is not counted as sent, until it is', () => {
  const first = mesh({ a: 1, b: 1 });
  const versions = new Map([...first[ADDRESS_TYPE]].map(([name, { version }]) => [name, version]));
  const subscription = subscribed({ initialVersions: versions });
  send(subscription, '1', first);
  subscription.request(request({ nonce: '1' }));
  expect(subscription.status()).toMatchObject({ sent: 0, acked: 0 });
  expect(subscription.hasAcked(A)).toBe(true);
  send(subscription, '2', mesh({ a: 1, b: 2 }, first));
  expect(subscription.status()).toMatchObject({ sent: 1, acked: 0 });
});

test('too many names are refused', () => {
  const many = Array.from({ length: 11 }, (_, i) => `n${i}`);
  const subscription = new Subscription(ADDRESS_TYPE, 20);
  expect(() => subscription.request(request({ subscribe: many }))).toThrow(TooManyNamesError);
  const again = subscribed({ subscribe: ['*'], unsubscribe: ['*'] });
  again.take(EMPTY_VIEW);
  expect(() => again.request(request({ unsubscribe: many }))).not.toThrow();
  const held = new Map(Array.from({ length: 21 }, (_, i) => [`n${i}`, 'v']));
  expect(() => subscribed({ initialVersions: held })).toThrow(TooManyNamesError);
});

test('whatever a client subscribes to, in whatever order, it ends up with what it wants', () => {
  const name = fc.constantFrom(A, B, C, '*', 'nothing');
  const list = fc.array(name, { maxLength: 3 });
  const event = fc.oneof(
    fc.record({ kind: fc.constant('request' as const), subscribe: list, unsubscribe: list }),
    fc.record({
      kind: fc.constant('mesh' as const),
      pods: fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.integer({ min: 1, max: 3 })),
    }),
  );
  fc.assert(
    fc.property(list, list, fc.array(event, { maxLength: 12 }), (subscribe, unsubscribe, events) => {
      const subscription = new Subscription(ADDRESS_TYPE, 100);
      const client = new Set<string>();
      const wanted = { all: subscribe.length === 0, names: new Set<string>() };
      let snapshot = mesh({ a: 1 });
      const step = (): void => {
        const changes = subscription.take(snapshot);
        for (const resource of changes?.updated ?? []) client.add(`${resource.name} ${resource.version}`);
        for (const gone of changes?.removed ?? []) drop(client, gone);
        for (const { name, version } of changes?.updated ?? [])
          for (const old of [...client])
            if (old.startsWith(`${name} `) && old !== `${name} ${version}`) client.delete(old);
      };
      const ask = (more: readonly string[], less: readonly string[]): void => {
        subscription.request(request({ subscribe: more, unsubscribe: less }));
        for (const one of more)
          if (one === '*') wanted.all = true;
          else wanted.names.add(one);
        for (const one of less) {
          if (one === '*') wanted.all = false;
          else wanted.names.delete(one);
        }
        if (!wanted.all)
          for (const held of [...client])
            if (!wanted.names.has(held.split(' ')[0] ?? '')) client.delete(held);
      };
      ask(subscribe, unsubscribe);
      step();
      for (const one of events) {
        if (one.kind === 'mesh') snapshot = mesh(one.pods, snapshot);
        else ask(one.subscribe, one.unsubscribe);
        step();
      }
      const expected = [...snapshot[ADDRESS_TYPE].values()].filter(
        (resource) => wanted.all || wanted.names.has(resource.name),
      );
      expect([...client].sort()).toEqual(
        expected.map((resource) => `${resource.name} ${resource.version}`).sort(),
      );
    }),
    { numRuns: 500 },
  );
});

function drop(client: Set<string>, name: string): void {
  for (const held of [...client]) if (held.startsWith(`${name} `)) client.delete(held);
}

/** Pods by name; the number is their revision. */
function mesh(pods: Readonly<Record<string, number>>, previous?: NodeView): NodeView {
  const workloads = Object.entries(pods).map(([name, revision]) =>
    workload({ name, canonicalRevision: `r${revision}` }),
  );
  return serveResources(workloads, previous).view;
}

function subscribed(first: Partial<SubscriptionRequest>): Subscription {
  const subscription = new Subscription(ADDRESS_TYPE, 20);
  subscription.request(request(first));
  return subscription;
}

function request(fields: Partial<SubscriptionRequest>): SubscriptionRequest {
  return {
    subscribe: [],
    unsubscribe: [],
    initialVersions: new Map(),
    nonce: '',
    error: undefined,
    ...fields,
  };
}

function send(subscription: Subscription, nonce: string, snapshot: NodeView): void {
  subscription.sent(nonce, subscription.take(snapshot)?.updated ?? []);
}

function names(
  changes: Changes | undefined,
): { readonly updated: readonly string[]; readonly removed: readonly string[] } | undefined {
  return (
    changes && {
      updated: changes.updated.map(({ name }) => name).sort(),
      removed: [...changes.removed].sort(),
    }
  );
}
