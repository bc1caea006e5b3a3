import pino from 'pino';
import { expect, test } from 'vitest';
import { openTestServer, type TestServer, tokenOf, waypointInput } from '#control-plane/serve/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { policy, workload } from '#test/kit/resources.ts';
import type { SubscriptionState } from './delta-client.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE } from './envoy/types.ts';
import {
  type NamedResourceType,
  subscribeEnvoyApi,
  type WaypointResourceType,
  type WaypointUpdate,
} from './envoy-client.ts';
import { AUTHORIZATION_TYPE } from './resource.ts';

const WAYPOINT = { namespace: 'alpha', name: 'gate' };
const PAY = {
  [CLUSTER_TYPE]: { ledger: 1 },
  [ENDPOINT_TYPE]: { ledger: 1 },
  [LISTENER_TYPE]: { pay: 1 },
  [ROUTE_TYPE]: { pay: 1 },
};

test('a waypoint gets clusters and listeners, and by name what they mention', async () => {
  await using server = await openTestServer();
  server.publish(policy({}), policy({ name: 'other' }), workload({}));
  server.publishWaypoints(new Map([['alpha/gate', waypointInput(PAY, ['default/p'])]]));
  await using client = subscribe(server);
  client.want(AUTHORIZATION_TYPE, 'default/p');
  await eventually('everything is held', () => client.held().length === 5);
  expect(client.held()).toEqual([
    'Authorization default/p',
    'Cluster ledger',
    'ClusterLoadAssignment ledger',
    'Listener pay',
    'RouteConfiguration pay',
  ]);
  const status = await eventually('it is configured', () => {
    const [alpha] = server.discovery.waypoints();
    return alpha?.instances[0]?.configured && alpha;
  });
  expect(status).toMatchObject({
    ...WAYPOINT,
    instances: [{ id: 'waypoint~10.1.0.9~gate-0.alpha~alpha.svc.cluster.local' }],
  });
  expect(server.discovery.hasAcked({ kind: 'waypoint', ...WAYPOINT }, AUTHORIZATION_TYPE, 'default/p')).toBe(
    true,
  );
});

test('what another waypoint has is not there for it, by whatever name', async () => {
  await using server = await openTestServer();
  server.publish(policy({}));
  server.publishWaypoints(
    new Map([
      ['alpha/gate', waypointInput({})],
      ['beta/gate', waypointInput({ ...PAY, [SECRET_TYPE]: { key: 1 } }, ['default/p'])],
    ]),
  );
  await using client = subscribe(server);
  const asked = [ENDPOINT_TYPE, ROUTE_TYPE, SECRET_TYPE, AUTHORIZATION_TYPE] as const;
  for (const [type, name] of [
    [ENDPOINT_TYPE, 'ledger'],
    [ROUTE_TYPE, 'pay'],
    [SECRET_TYPE, 'key'],
    [AUTHORIZATION_TYPE, 'default/p'],
  ] as const)
    client.want(type, name);
  await eventually('all are answered', () => asked.every((type) => client.removed.has(type)));
  expect(client.held()).toEqual([]);
  expect(Object.fromEntries(client.removed)).toEqual({
    [ENDPOINT_TYPE]: ['ledger'],
    [ROUTE_TYPE]: ['pay'],
    [SECRET_TYPE]: ['key'],
    [AUTHORIZATION_TYPE]: ['default/p'],
  });
});

test('a route comes after the endpoints of the cluster that it leads to, and the old cluster goes last', async () => {
  await using server = await openTestServer();
  server.publishWaypoints(new Map([['alpha/gate', waypointInput(PAY)]]));
  await using client = subscribe(server);
  await eventually('everything is held', () => client.held().length === 4);
  client.updates.length = 0;
  const next = {
    [CLUSTER_TYPE]: { vault: 1 },
    [ENDPOINT_TYPE]: { vault: 1 },
    [LISTENER_TYPE]: { pay: 1 },
    [ROUTE_TYPE]: { pay: 2 },
  };
  server.publishWaypoints(new Map([['alpha/gate', waypointInput(next)]]));
  await eventually('the old cluster is gone', () => !client.held().includes('Cluster ledger'));
  expect(client.updates).toEqual([
    'Cluster +vault',
    'ClusterLoadAssignment +vault',
    'RouteConfiguration +pay',
    'ClusterLoadAssignment -ledger',
    'Cluster -ledger',
  ]);
});

test('what is refused is rejected by name, the rest is in force, and the server knows why', async () => {
  await using server = await openTestServer();
  const both = { ...PAY, [CLUSTER_TYPE]: { ledger: 1, odd: 1 } };
  server.publishWaypoints(new Map([['alpha/gate', waypointInput(both)]]));
  await using client = subscribe(server, { refuse: new Map([['odd', 'what is this']]) });
  const rejected = await eventually('the rejection is known', () => {
    const [alpha] = server.discovery.waypoints();
    const clusters = alpha?.xds.find(({ type }) => type === CLUSTER_TYPE);
    return clusters?.rejected.length === 1 && alpha?.instances[0]?.configured && clusters;
  });
  expect(rejected).toMatchObject({ sent: 2, acked: 1, rejected: [{ name: 'odd', message: 'what is this' }] });
  expect(client.held()).not.toContain('Cluster odd');
  expect(client.held()).toContain('Cluster ledger');
});

test('what a lost server sent stays, and is not sent again by the next one', async () => {
  const first = await openTestServer();
  first.publishWaypoints(new Map([['alpha/gate', waypointInput(PAY)]]));
  await using client = subscribe(first);
  await eventually('everything is held', () => client.held().length === 4);
  await first[Symbol.asyncDispose]();
  await eventually('the loss is noticed', () => client.states.at(-1)?.kind === 'disconnected');
  expect(client.held().length).toBe(4);
  client.updates.length = 0;

  await using second = await openTestServer({ port: Number(new URL(first.address).port) });
  client.rootsPem = second.rootsPem;
  second.publishWaypoints(new Map([['alpha/gate', waypointInput({ ...PAY, [ROUTE_TYPE]: { pay: 2 } })]]));
  await eventually('the change is held', () => client.updates.includes('RouteConfiguration +pay'));
  await eventually('it is configured', () => second.discovery.waypoints()[0]?.instances[0]?.configured);
  expect(client.updates.filter((update) => !update.endsWith(' '))).toEqual(['RouteConfiguration +pay']);
});

test('a name that is mentioned no more is unsubscribed, and what was held of it is given up', async () => {
  await using server = await openTestServer();
  server.publishWaypoints(new Map([['alpha/gate', waypointInput({ ...PAY, [SECRET_TYPE]: { key: 1 } })]]));
  await using client = subscribe(server);
  client.want(SECRET_TYPE, 'key');
  await eventually('the secret is held', () => client.held().includes('Secret key'));
  client.wanted.clear();
  server.publishWaypoints(
    new Map([
      ['alpha/gate', waypointInput({ ...PAY, [LISTENER_TYPE]: { pay: 2 }, [SECRET_TYPE]: { key: 1 } })],
    ]),
  );
  await eventually('the secret is given up', () => !client.held().includes('Secret key'));
  server.publishWaypoints(new Map([['alpha/gate', waypointInput({ ...PAY, [SECRET_TYPE]: { key: 2 } })]]));
  await eventually('the next change is held', () => client.updates.at(-1) === 'Listener +pay');
  expect(client.held()).not.toContain('Secret key');
});

test('a waypoint whose Gateway is gone is left with nothing', async () => {
  await using server = await openTestServer();
  server.publishWaypoints(new Map([['alpha/gate', waypointInput(PAY)]]));
  await using client = subscribe(server);
  await eventually('everything is held', () => client.held().length === 4);
  server.publishWaypoints(new Map());
  await eventually('nothing is held', () => client.held().length === 0);
});

interface TestClient extends AsyncDisposable {
  /** `Cluster ledger`, sorted. */
  readonly held: () => readonly string[];
  /** `Cluster +ledger -vault`, in the order in which they came. */
  readonly updates: string[];
  readonly removed: ReadonlyMap<WaypointResourceType, readonly string[]>;
  readonly states: readonly SubscriptionState[];
  /** Names beside those that clusters and listeners have, which are those of their endpoints and routes. */
  readonly wanted: Map<NamedResourceType, Set<string>>;
  readonly want: (type: NamedResourceType, name: string) => void;
  rootsPem: string;
}

function subscribe(
  server: TestServer,
  { refuse = new Map<string, string>() }: { readonly refuse?: ReadonlyMap<string, string> } = {},
): TestClient {
  const held = new Map<WaypointResourceType, Set<string>>();
  const removed = new Map<WaypointResourceType, readonly string[]>();
  const wanted = new Map<NamedResourceType, Set<string>>();
  const states: SubscriptionState[] = [];
  const abort = new AbortController();
  const of = (type: WaypointResourceType): Set<string> => {
    const names = held.get(type) ?? new Set();
    held.set(type, names);
    return names;
  };
  const client: TestClient = {
    held: () =>
      [...held].flatMap(([type, names]) => [...names].map((name) => `${shortName(type)} ${name}`)).sort(),
    updates: [],
    removed,
    states,
    wanted,
    want: (type, name) => wanted.set(type, (wanted.get(type) ?? new Set()).add(name)),
    rootsPem: server.rootsPem,
    [Symbol.asyncDispose]: async () => {
      abort.abort();
      await running;
    },
  };
  const running = subscribeEnvoyApi({
    address: server.address,
    rootsPem: () => client.rootsPem,
    headers: () => ({ authorization: `Bearer ${tokenOf('alpha/gate')}` }),
    node: { type: 'waypoint', ip: '10.1.0.9', podName: 'gate-0', podNamespace: 'alpha', nodeName: 'n1' },
    interest: () =>
      new Map<NamedResourceType, ReadonlySet<string>>([
        ...wanted,
        [ENDPOINT_TYPE, new Set([...of(CLUSTER_TYPE), ...(wanted.get(ENDPOINT_TYPE) ?? [])])],
        [ROUTE_TYPE, new Set([...of(LISTENER_TYPE), ...(wanted.get(ROUTE_TYPE) ?? [])])],
      ]),
    onUpdate: (update) => {
      const rejected = update.updated.flatMap(({ name }) => {
        const reason = refuse.get(name);
        return reason === undefined ? [] : [{ name, reason }];
      });
      for (const { name } of update.updated) if (!refuse.has(name)) of(update.type).add(name);
      for (const name of update.removed) of(update.type).delete(name);
      if (update.removed.length > 0) removed.set(update.type, update.removed);
      client.updates.push(brief(update));
      return rejected;
    },
    onState: (state) => states.push(state),
    logger: pino({ level: 'silent' }),
    signal: abort.signal,
  });
  return client;
}

function brief({ type, updated, removed }: WaypointUpdate): string {
  const names = [...updated.map(({ name }) => `+${name}`), ...removed.map((name) => `-${name}`)];
  return `${shortName(type)} ${names.join(' ')}`;
}

function shortName(type: string): string {
  return type.slice(type.lastIndexOf('.') + 1);
}
