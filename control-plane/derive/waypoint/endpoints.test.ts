import type { JsonValue } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { deriveText, objectYaml, podYaml } from '#test/kit/objects.ts';
import { jsonAt, jsonList, PAY, resourceJson, waypointOf } from './testing.ts';

const CLUSTER = 'inbound-vip|80|ledger.pay.svc.cluster.local';

const localitiesOf = (text: string, cluster = CLUSTER): readonly JsonValue[] =>
  jsonList(resourceJson(waypointOf(deriveText(text)), 'endpoints', cluster, 'endpoints'));
const endpointsOf = (text: string, cluster = CLUSTER): readonly JsonValue[] =>
  localitiesOf(text, cluster).flatMap((locality) => jsonList(jsonAt(locality, 'lbEndpoints')));
const health = (text: string): unknown =>
  Object.fromEntries(
    endpointsOf(text).map((endpoint) => [
      jsonAt(endpoint, 'endpoint', 'address', 'socketAddress', 'address'),
      jsonAt(endpoint, 'healthStatus'),
    ]),
  );

describe('an endpoint that is on its way out is draining', () => {
  test('as its Pod is being deleted', () => {
    const leaving = podYaml(
      'pay/ledger-3',
      '10.1.2.23',
      'labels: {app: ledger}, deletionTimestamp: "2026-06-01T00:00:00Z"',
    );
    expect(health(PAY + leaving)).toEqual({
      '10.1.2.21': 'HEALTHY',
      '10.1.2.22': 'HEALTHY',
      '10.1.2.23': 'DRAINING',
    });
  });

  test('as its EndpointSlice says', () => {
    const slice = `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, namespace: pay, labels: {kubernetes.io/service-name: ledger}}
addressType: IPv4
endpoints:
- {addresses: [10.9.9.9], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.9.9.8], conditions: {ready: false, serving: false, terminating: true}}
ports: [{name: http, port: 8080, protocol: TCP}]
---
`;
    expect(health(PAY + slice)).toMatchObject({ '10.9.9.9': 'DRAINING', '10.9.9.8': 'UNHEALTHY' });
  });
});

test('one that is not ready is named and unhealthy, unless the service wants it all the same', () => {
  const slow = podYaml('pay/ledger-3', '10.1.2.23', 'labels: {app: ledger}').replace(
    'type: Ready, status: "True"',
    'type: Ready, status: "False"',
  );
  expect(health(PAY + slow)).toMatchObject({ '10.1.2.23': 'UNHEALTHY' });
  const all = PAY.replace(
    'selector: {app: ledger}',
    'selector: {app: ledger}, publishNotReadyAddresses: true',
  );
  expect(health(all + slow)).toMatchObject({ '10.1.2.23': 'HEALTHY' });
});

test('endpoints stand by locality, with their weights', () => {
  const node = `apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}
---
`;
  const entry = objectYaml(
    'WorkloadEntry',
    'pay/vm',
    '{address: 192.0.2.5, weight: 3, locality: r/y, labels: {app: ledger}}',
  );
  expect(
    localitiesOf(PAY + node + entry).map((one) => [
      jsonAt(one, 'locality'),
      jsonAt(one, 'loadBalancingWeight'),
    ]),
  ).toEqual([
    [{ region: 'r', zone: 'z' }, 2],
    [{ region: 'r', zone: 'y' }, 3],
  ]);
});

test('a named port is that of each pod; one that has no such port is left out', () => {
  const service = objectYaml(
    'Service',
    'pay/named',
    '{clusterIP: 10.97.2.7, selector: {app: n}, ports: [{name: http, port: 80, targetPort: web}]}',
  );
  const pods =
    podYaml(
      'pay/n-1',
      '10.1.2.31',
      'labels: {app: n}',
      'containers: [{ports: [{name: web, containerPort: 9000}]}]',
    ) + podYaml('pay/n-2', '10.1.2.32', 'labels: {app: n}');
  expect(endpointsOf(PAY + service + pods, 'inbound-vip|80|named.pay.svc.cluster.local')).toMatchObject([
    { endpoint: { address: { socketAddress: { address: '10.1.2.31', portValue: 9000 } } } },
  ]);
});

describe('annotations say how requests are spread', () => {
  const annotated = (annotations: string): string =>
    PAY +
    objectYaml(
      'Service',
      'pay/spread',
      '{clusterIP: 10.97.2.7, selector: {app: ledger}, ports: [{name: http, port: 80}]}',
      `annotations: {${annotations}}`,
    );
  const host = 'spread.pay.svc.cluster.local';
  const partsOf = (annotations: string): readonly unknown[] => {
    const waypoint = waypointOf(deriveText(annotated(annotations)));
    const route = resourceJson(
      waypoint,
      'routes',
      `inbound-vip|80|http|${host}`,
      'virtualHosts',
      0,
      'routes',
      0,
    );
    return [
      resourceJson(waypoint, 'cluster', `inbound-vip|80|${host}`, 'lbPolicy'),
      jsonAt(route, 'route', 'hashPolicy'),
    ];
  };

  test.each([
    ['', 'LEAST_REQUEST', undefined],
    ['tulle.dev/load-balancing: round-robin', undefined, undefined], // The first of its enum.
    ['tulle.dev/load-balancing: ring-hash', 'RING_HASH', [{ connectionProperties: { sourceIp: true } }]],
    [
      'tulle.dev/load-balancing: ring-hash, tulle.dev/hash-on: "header:X-User"',
      'RING_HASH',
      [{ header: { headerName: 'x-user' } }],
    ],
    [
      'tulle.dev/load-balancing: ring-hash, tulle.dev/hash-on: "cookie:sid"',
      'RING_HASH',
      [{ cookie: { name: 'sid' } }],
    ],
    [
      'tulle.dev/load-balancing: ring-hash, tulle.dev/hash-on: "query:user"',
      'RING_HASH',
      [{ queryParameter: { name: 'user' } }],
    ],
  ])('%s', (annotations, policy, hash) => {
    expect(partsOf(annotations)).toEqual([policy, hash]);
  });

  test.each([
    ['tulle.dev/load-balancing: random', 'tulle.dev/load-balancing', 'least-request is used'],
    [
      'tulle.dev/load-balancing: ring-hash, tulle.dev/hash-on: "header:"',
      'tulle.dev/hash-on',
      'the caller is hashed on',
    ],
    [
      'tulle.dev/load-balancing: ring-hash, tulle.dev/hash-on: "header:Host"',
      'tulle.dev/hash-on',
      'the caller is hashed on',
    ],
    ['tulle.dev/hash-on: source', 'tulle.dev/hash-on', 'it is ignored'],
  ])('wrong ones are reported: %s', (annotations, name, effect) => {
    const { problems } = deriveText(annotated(annotations));
    expect(problems.filter(({ severity }) => severity === 'error')).toMatchObject([
      { object: 'Service pay/spread', path: `metadata.annotations["${name}"]`, effect },
    ]);
  });
});

test.each([
  ['[10.97.2.1, "fd00:97::1"]', '10.1.2.23'],
  ['["fd00:97::1", 10.97.2.1]', 'fd00:1::23'],
])('one with two families has an address of the first of the service: %s', (clusterIps, expected) => {
  const both = podYaml('pay/ledger-3', 'fd00:1::23', 'labels: {app: ledger}').replace(
    'podIP: fd00:1::23',
    'podIPs: [{ip: "fd00:1::23"}, {ip: 10.1.2.23}]',
  );
  const text = PAY.replace('clusterIP: 10.97.2.1', `clusterIPs: ${clusterIps}`) + both;
  expect(Object.keys(health(text) as object)).toContain(expected);
  expect(endpointsOf(text)).toHaveLength(3);
});
