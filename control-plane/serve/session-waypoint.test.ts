import { expect, test } from 'vitest';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE } from '#api/envoy/types.ts';
import { AUTHORIZATION_TYPE } from '#api/resource.ts';
import { policy } from '#test/kit/resources.ts';
import { type ServedSnapshot, serveSnapshot } from './served-snapshot.ts';
import type { ServedType, ServedView } from './served-view.ts';
import { type PlannedResponse, Session, WAYPOINT_ORDER } from './session.ts';
import type { SubscriptionRequest } from './subscription.ts';
import { type WaypointContents, waypointInput } from './testing.ts';

const GATE = 'alpha/gate';
const FIRST = serve({
  [CLUSTER_TYPE]: { v1: 1 },
  [ENDPOINT_TYPE]: { v1: 1 },
  [LISTENER_TYPE]: { l: 1 },
  [ROUTE_TYPE]: { l: 1 },
});
const V1 = FIRST.waypoints.get(GATE) ?? {};
/** The route leads to another cluster. */
const V2 = view({
  [CLUSTER_TYPE]: { v2: 1 },
  [ENDPOINT_TYPE]: { v2: 1 },
  [LISTENER_TYPE]: { l: 1 },
  [ROUTE_TYPE]: { l: 2 },
});
/** The cluster is another one, its endpoints are the same. */
const V1_CHANGED = view({
  [CLUSTER_TYPE]: { v1: 2 },
  [ENDPOINT_TYPE]: { v1: 1 },
  [LISTENER_TYPE]: { l: 1 },
  [ROUTE_TYPE]: { l: 2 },
});

test('what is named goes out before what names it, whatever is asked for first', () => {
  const session = new Session({ order: WAYPOINT_ORDER, maxNames: 10 });
  for (const type of WAYPOINT_ORDER.toReversed()) session.request(type, request({}));
  const one = { x: 1 };
  const all = view(
    {
      [CLUSTER_TYPE]: one,
      [ENDPOINT_TYPE]: one,
      [SECRET_TYPE]: one,
      [LISTENER_TYPE]: one,
      [ROUTE_TYPE]: one,
    },
    ['default/p'],
  );
  expect([planAndAnswer(session, all), planAndAnswer(session, all)].map(types)).toEqual([
    [CLUSTER_TYPE, ENDPOINT_TYPE, SECRET_TYPE, AUTHORIZATION_TYPE],
    [LISTENER_TYPE, ROUTE_TYPE],
  ]);
});

test('a route waits until the endpoints of its new cluster are there, and the old cluster goes last', () => {
  const session = settled();
  expect(planAndAnswer(session, V2).map(brief)).toEqual([[CLUSTER_TYPE, ['v2'], []]]);
  expect(session.holdback).toEqual({ waitsFor: 'clusters', longestMs: 500 });
  expect(session.plan(V2)).toEqual([]);

  session.request(ENDPOINT_TYPE, request({ subscribe: ['v2'] }));
  expect(planAndAnswer(session, V2).map(brief)).toEqual([[ENDPOINT_TYPE, ['v2'], []]]);
  expect(planAndAnswer(session, V2).map(brief)).toEqual([[ROUTE_TYPE, ['l'], []]]);
  expect(session.plan(V2).map(brief)).toEqual([
    [ENDPOINT_TYPE, [], ['v1']],
    [CLUSTER_TYPE, [], ['v1']],
  ]);
  expect(session.holdback).toBeUndefined();
});

test('a cluster stays while the client keeps a route that leads to it, as it rejects the next one', () => {
  const session = settled();
  planAndAnswer(session, V2);
  session.request(ENDPOINT_TYPE, request({ subscribe: ['v2'] }));
  planAndAnswer(session, V2);
  const [route] = session.plan(V2);
  session.request(ROUTE_TYPE, request({ nonce: route?.nonce ?? '', error: 'l: no' }));
  expect(session.plan(V2)).toEqual([]);

  const mended = view({
    [CLUSTER_TYPE]: { v2: 1 },
    [ENDPOINT_TYPE]: { v2: 1 },
    [LISTENER_TYPE]: { l: 1 },
    [ROUTE_TYPE]: { l: 3 },
  });
  const planned = [1, 2, 3].flatMap(() => planAndAnswer(session, mended));
  expect(planned.filter(({ type }) => type === ROUTE_TYPE).map(brief)).toEqual([[ROUTE_TYPE, ['l'], []]]);
  expect(planned.at(-1)?.removed).toContain('v1');
});

test('a name that is not there is answered at once, whatever waits', () => {
  const session = settled();
  planAndAnswer(session, V2);
  session.request(ENDPOINT_TYPE, request({ subscribe: ['nothing'] }));
  expect(session.plan(V2).map(brief)).toEqual([[ENDPOINT_TYPE, [], ['nothing']]]);
});

test('a client that never asks for the endpoints gets its routes when it was waited for long enough', () => {
  const session = settled();
  planAndAnswer(session, V2);
  expect(session.plan(V2)).toEqual([]);
  session.release();
  expect(types(planAndAnswer(session, V2))).toEqual([ROUTE_TYPE]);
  expect(types(session.plan(V2))).toEqual([ENDPOINT_TYPE, CLUSTER_TYPE]);
});

test('a cluster that the client rejects is not waited for', () => {
  const session = settled();
  const [planned] = session.plan(V2);
  session.request(CLUSTER_TYPE, request({ nonce: planned?.nonce ?? '', error: 'v2: no' }));
  expect(types(session.plan(V2))).toContain(ROUTE_TYPE);
});

test('a cluster that comes back before it was taken away stays', () => {
  const session = settled();
  planAndAnswer(session, V2);
  expect(planAndAnswer(session, V1).map(brief)).toEqual([
    [CLUSTER_TYPE, ['v1'], []],
    [ENDPOINT_TYPE, ['v1'], []],
    [CLUSTER_TYPE, [], ['v2']],
  ]);
});

test('a cluster that the client has in another version is not waited for, and its endpoints follow it', () => {
  const session = settled();
  expect(session.plan(V1_CHANGED).map(brief)).toEqual([
    [CLUSTER_TYPE, ['v1'], []],
    [ENDPOINT_TYPE, ['v1'], []],
    [ROUTE_TYPE, ['l'], []],
  ]);
});

test('endpoints follow a changed cluster on a new stream as well, though the client holds them', () => {
  const held = (type: ServedType): Pick<SubscriptionRequest, 'initialVersions'> => ({
    initialVersions: new Map([...(V1[type] ?? [])].map(([name, { version }]) => [name, version])),
  });
  const session = new Session({ order: WAYPOINT_ORDER, maxNames: 10 });
  session.request(CLUSTER_TYPE, request(held(CLUSTER_TYPE)));
  expect(planAndAnswer(session, V1_CHANGED).map(brief)).toEqual([[CLUSTER_TYPE, ['v1'], []]]);
  session.request(ENDPOINT_TYPE, request({ ...held(ENDPOINT_TYPE), subscribe: ['v1'] }));
  expect(planAndAnswer(session, V1_CHANGED).map(brief)).toEqual([[ENDPOINT_TYPE, ['v1'], []]]);
  expect(session.plan(V1_CHANGED)).toEqual([]);
});

test('a client is configured when it has answered for everything, be it with a rejection', () => {
  const session = new Session({ order: WAYPOINT_ORDER, maxNames: 10 });
  expect(session.hasAnsweredAll({})).toBe(false);
  session.request(CLUSTER_TYPE, request({}));
  session.request(LISTENER_TYPE, request({}));
  expect(session.hasAnsweredAll({})).toBe(false);
  planAndAnswer(session, {});
  expect(session.hasAnsweredAll({})).toBe(true);

  planAndAnswer(session, V1);
  session.request(ENDPOINT_TYPE, request({ subscribe: ['v1'] }));
  planAndAnswer(session, V1);
  planAndAnswer(session, V1);
  expect(session.hasAnsweredAll(V1)).toBe(false);
  session.request(ROUTE_TYPE, request({ subscribe: ['l'] }));
  const [routes] = session.plan(V1);
  expect(session.hasAnsweredAll(V1)).toBe(false);
  session.request(ROUTE_TYPE, request({ nonce: routes?.nonce ?? '', error: 'l: no' }));
  expect(session.hasAnsweredAll(V1)).toBe(true);
  expect(session.hasAnsweredAll(V2)).toBe(false);
});

/** A session whose client has all of V1. */
function settled(): Session {
  const session = new Session({ order: WAYPOINT_ORDER, maxNames: 10 });
  session.request(CLUSTER_TYPE, request({}));
  session.request(LISTENER_TYPE, request({}));
  session.request(ENDPOINT_TYPE, request({ subscribe: ['v1'] }));
  session.request(ROUTE_TYPE, request({ subscribe: ['l'] }));
  planAndAnswer(session, V1);
  planAndAnswer(session, V1);
  return session;
}

function planAndAnswer(session: Session, next: ServedView): readonly PlannedResponse[] {
  const planned = session.plan(next);
  for (const { type, nonce } of planned) session.request(type, request({ nonce }));
  return planned;
}

/** What follows V1: of the same content, the same resources. */
function view(contents: WaypointContents, authorizations: readonly string[] = []): ServedView {
  return serve(contents, authorizations, FIRST).waypoints.get(GATE) ?? {};
}

function serve(
  contents: WaypointContents,
  authorizations: readonly string[] = [],
  previous?: ServedSnapshot,
): ServedSnapshot {
  const waypoints = new Map([[GATE, waypointInput(contents, authorizations)]]);
  return serveSnapshot({ resources: [policy({})], waypoints }, previous).snapshot;
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

function types(planned: readonly PlannedResponse[]): readonly string[] {
  return planned.map(({ type }) => type);
}

function brief({ type, updated, removed }: PlannedResponse): [string, string[], readonly string[]] {
  return [type, updated.map(({ name }) => name), removed];
}
