import { expect, test } from 'vitest';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource } from '#api/resource.ts';
import { policy, service, tablesOf, workload } from '#test/kit/resources.ts';
import { createTables } from './store.ts';
import type { MutableTables } from './tables.ts';

const ECHO = 'default/echo.default.svc.cluster.local';

function update(tables: MutableTables, ...updated: readonly Resource[]): void {
  tables.apply({ type: ADDRESS_TYPE, updated, removed: [] });
}

function remove(tables: MutableTables, ...removed: readonly string[]): void {
  tables.apply({ type: ADDRESS_TYPE, updated: [], removed });
}

test.each([
  {
    when: 'a pod and a workload entry share the address',
    contenders: [workload({ uid: 'c1/networking.istio.io/WorkloadEntry/a/b' }), workload({ name: 'pod' })],
    wins: 'Kubernetes//Pod/default/pod',
  },
  {
    when: 'a plain and a tunnelled workload share it',
    contenders: [workload({ uid: 'plain', tunnelProtocol: 'NONE' }), workload({ uid: 'tunnelled' })],
    wins: 'tunnelled',
  },
  {
    when: 'a plain pod and a tunnelled workload entry share it',
    contenders: [
      workload({ uid: 'c1/networking.istio.io/WorkloadEntry/a/b' }),
      workload({ name: 'pod', tunnelProtocol: 'NONE' }),
    ],
    wins: 'Kubernetes//Pod/default/pod',
  },
  {
    when: 'one is on the host network',
    contenders: [workload({ name: 'a', networkMode: 'HOST_NETWORK' }), workload({ uid: 'other' })],
    wins: 'other',
  },
  {
    when: 'all of them are alike: the first by uid',
    contenders: [workload({ uid: 'b' }), workload({ uid: 'a' })],
    wins: 'a',
  },
])('$wins is found by address, in whatever order they came, when $when', ({ contenders, wins }) => {
  for (const order of [contenders, contenders.toReversed()]) {
    expect(tablesOf(...order).workloadByIp('', '10.244.1.2')?.uid).toBe(wins);
  }
});

test('a workload is found by each of its addresses, in its own network only', () => {
  const tables = tablesOf(workload({ addresses: ['10.0.0.1', 'fd00::1'], network: 'east' }));
  expect(tables.workloadByIp('east', 'fd00::1')?.name).toBe('echo-1');
  expect(tables.workloadByIp('east', '10.0.0.1')?.name).toBe('echo-1');
  expect(tables.workloadByIp('', '10.0.0.1')).toBeUndefined();
});

test('a replaced workload is not found by what it had before', () => {
  const tables = tablesOf(
    workload({ addresses: ['10.0.0.1'], services: { [ECHO]: { 80: 8080 } } }),
    service({}),
  );
  update(tables, workload({ addresses: ['10.0.0.2'], serviceAccount: 'other' }));
  expect(tables.workloadByIp('', '10.0.0.1')).toBeUndefined();
  expect(tables.workloadByName('echo-1', 'default', 'default', '')).toBeUndefined();
  expect(tables.endpointsOf(service({}))).toEqual([]);
  expect(tables.workloadByIp('', '10.0.0.2')?.serviceAccount).toBe('other');
});

test('a pod is named by name, namespace, account and node', () => {
  const tables = tablesOf(
    workload({ uid: 'east//Pod/default/echo-1', node: 'n1' }),
    workload({ uid: 'west//Pod/default/echo-1', node: 'n2' }),
  );
  expect(tables.workloadByName('echo-1', 'default', 'default', 'n2')?.uid).toBe('west//Pod/default/echo-1');
  expect(tables.workloadByName('echo-1', 'default', 'default', '')?.uid).toBe('east//Pod/default/echo-1');
  expect(tables.workloadByName('echo-1', 'default', 'default', 'n3')).toBeUndefined();
  expect(tables.workloadByName('echo-1', 'default', 'other', 'n1')).toBeUndefined();
});

const vip = (ip: string, length?: number) => [
  { network: '', ip, ...(length === undefined ? {} : { length }) },
];

test.each([
  {
    when: 'one is of the client’s namespace',
    services: [
      service({ name: 'a', namespace: 'a' }),
      service({ name: 'b', namespace: 'shop', canonical: false }),
    ],
    wins: 'b',
  },
  {
    when: 'one is canonical',
    services: [
      service({ name: 'a', namespace: 'a', canonical: false }),
      service({ name: 'b', namespace: 'b' }),
    ],
    wins: 'b',
  },
  {
    when: 'the canonical one hides in its namespace',
    services: [
      service({ name: 'a', namespace: 'a', visibility: 'NAMESPACE' }),
      service({ name: 'b', namespace: 'b', canonical: false }),
    ],
    wins: 'b',
  },
  {
    when: 'an exact VIP and a range contain it',
    services: [
      service({ name: 'a', namespace: 'shop', addresses: vip('10.96.1.0', 24) }),
      service({ name: 'b', namespace: 'b', canonical: false }),
    ],
    wins: 'b',
  },
  {
    when: 'two ranges contain it: the longer',
    services: [
      service({ name: 'a', addresses: vip('10.96.0.0', 16) }),
      service({ name: 'b', addresses: vip('10.96.1.0', 24), canonical: false }),
    ],
    wins: 'b',
  },
  {
    when: 'a range of the client’s namespace is shorter',
    services: [
      service({ name: 'a', namespace: 'shop', addresses: vip('10.0.0.0', 8), canonical: false }),
      service({ name: 'b', addresses: vip('10.96.1.0', 24) }),
    ],
    wins: 'a',
  },
  {
    when: 'two ranges are equal and one is canonical',
    services: [
      service({ name: 'a', namespace: 'a', addresses: vip('10.96.1.0', 24), canonical: false }),
      service({ name: 'b', namespace: 'b', addresses: vip('10.96.1.7', 24) }),
    ],
    wins: 'b',
  },
  {
    when: 'the exact one cannot be seen, but a range can',
    services: [
      service({ name: 'a', namespace: 'a', visibility: 'NAMESPACE' }),
      service({ name: 'b', addresses: vip('0.0.0.0', 0) }),
    ],
    wins: 'b',
  },
  {
    when: 'a full-length range is a host',
    services: [
      service({ name: 'a', namespace: 'shop', addresses: vip('10.96.1.0', 24) }),
      service({ name: 'b', addresses: vip('10.96.1.1', 32) }),
    ],
    wins: 'b',
  },
])(
  'service $wins of a shared VIP is meant, in whatever order they came, when $when',
  ({ services, wins }) => {
    for (const order of [services, services.toReversed()]) {
      expect(tablesOf(...order).serviceByVip('', '10.96.1.1', 'shop')?.name).toBe(wins);
    }
  },
);

test('a range of IPv6 VIPs ends where its prefix ends, and with its service', () => {
  const tables = tablesOf(service({ addresses: vip('2001:db8::', 33) }));
  expect(tables.serviceByVip('', '2001:db8:7fff::1', 'shop')?.name).toBe('echo');
  expect(tables.serviceByVip('', '2001:db8:8000::1', 'shop')).toBeUndefined();
  expect(tables.serviceByVip('east', '2001:db8::1', 'shop')).toBeUndefined();
  remove(tables, ECHO);
  expect(tables.serviceByVip('', '2001:db8:7fff::1', 'shop')).toBeUndefined();
});

test('a hostname is found in lower case and prefers the client’s namespace', () => {
  const tables = tablesOf(
    service({ namespace: 'a', hostname: 'API.example.com' }),
    service({ namespace: 'b', hostname: 'api.example.com', canonical: false }),
  );
  expect(tables.serviceByHostname('api.example.com', 'b')?.namespace).toBe('b');
  expect(tables.serviceByHostname('api.example.com', 'c')?.namespace).toBe('a');
  expect(tables.servicesByHostname('api.example.com').map(({ namespace }) => namespace)).toEqual(['a', 'b']);
});

test('endpoints that came before their service are there when it comes', () => {
  const tables = tablesOf(workload({ services: { [ECHO]: { 80: 9090 } } }));
  const echo = service({});
  update(tables, echo);
  expect(tables.endpointsOf(echo).map(({ workload: { name }, ports }) => [name, ports])).toEqual([
    ['echo-1', new Map([[80, 9090]])],
  ]);
});

test('a replaced service keeps its endpoints, and one that comes back finds them', () => {
  const tables = tablesOf(service({}), workload({ services: { [ECHO]: {} } }));
  const replaced = service({ canonical: false });
  update(tables, replaced);
  expect(tables.endpointsOf(replaced)).toHaveLength(1);
  remove(tables, ECHO);
  expect(tables.serviceByKey(ECHO)).toBeUndefined();
  update(tables, replaced);
  expect(tables.endpointsOf(replaced)).toHaveLength(1);
});

test('an unhealthy endpoint may be chosen only where the service allows all', () => {
  const lenient = { routingPreference: [], mode: 'UNSPECIFIED', healthPolicy: 'ALLOW_ALL' } as const;
  const tables = tablesOf(service({}), workload({ status: 'UNHEALTHY', services: { [ECHO]: {} } }));
  expect(tables.endpointsOf(service({}))).toEqual([]);
  const early = service({ loadBalancing: lenient });
  update(tables, early);
  expect(tables.endpointsOf(early)).toHaveLength(1);
});

test('an endpoint that turns healthy or goes is seen at once', () => {
  const echo = service({});
  const tables = tablesOf(echo, workload({ status: 'UNHEALTHY', services: { [ECHO]: {} } }));
  expect(tables.endpointsOf(echo)).toHaveLength(0);
  update(tables, workload({ services: { [ECHO]: {} } }));
  expect(tables.endpointsOf(echo)).toHaveLength(1);
  expect(tables.endpointsOf(echo)).toBe(tables.endpointsOf(echo));
  remove(tables, 'Kubernetes//Pod/default/echo-1');
  expect(tables.endpointsOf(echo)).toHaveLength(0);
});

test('a removed name is a uid first, then a service, and otherwise nothing', () => {
  const tables = tablesOf(workload({ uid: ECHO }), service({}), service({ name: 'other', hostname: 'x/y' }));
  remove(tables, ECHO, 'default/x/y', 'nobody');
  expect(tables.workloadByUid(ECHO)).toBeUndefined();
  expect(tables.serviceByKey(ECHO)).toBeDefined();
  expect(tables.serviceByKey('default/x/y')).toBeDefined();
  remove(tables, ECHO);
  expect(tables.serviceByKey(ECHO)).toBeUndefined();
});

test('an object that is updated and removed in one response is gone', () => {
  const tables = createTables();
  tables.apply({ type: ADDRESS_TYPE, updated: [workload({})], removed: ['Kubernetes//Pod/default/echo-1'] });
  expect([...tables.workloads()]).toEqual([]);
});

test('policies of a namespace are its own and the mesh-wide ones, not those of selectors', () => {
  const tables = tablesOf(
    policy({ name: 'own' }),
    policy({ name: 'other', namespace: 'other' }),
    policy({ name: 'mesh', namespace: 'istio-system', scope: 'GLOBAL' }),
    policy({ name: 'some', scope: 'WORKLOAD_SELECTOR' }),
  );
  const names = () => tables.policiesOfNamespace('default').map(({ name }) => name);
  expect(names()).toEqual(['own', 'mesh']);
  tables.apply({
    type: AUTHORIZATION_TYPE,
    updated: [policy({ name: 'own', scope: 'WORKLOAD_SELECTOR' })],
    removed: ['istio-system/mesh'],
  });
  expect(names()).toEqual([]);
  expect(tables.policyByKey('default/own')?.scope).toBe('WORKLOAD_SELECTOR');
});

test('tables are in sync, type by type, once an answer came, also an empty one', () => {
  const tables = createTables();
  tables.apply({ type: ADDRESS_TYPE, updated: [], removed: [] });
  expect([tables.synced('addresses'), tables.synced('authorizations')]).toEqual([true, false]);
  expect(tables.version()).toBe(1);
});

test('a hundred thousand workloads are applied, and ten thousand replaced one by one', () => {
  const tables = createTables();
  const many = Array.from({ length: 100_000 }, (_, index) =>
    workload({
      name: `w-${index}`,
      addresses: [`10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`],
      services: { [`default/s-${index % 1000}.default.svc.cluster.local`]: { 80: 8080 } },
    }),
  );
  update(tables, ...many);
  for (const each of many.slice(0, 10_000)) update(tables, { ...each, status: 'UNHEALTHY' });
  expect(tables.workloadByIp('', '10.1.134.159')?.name).toBe('w-99999');
});
