import { describe, expect, test } from 'vitest';
import {
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  type EnvoyResource,
  LISTENER_TYPE,
  ROUTE_TYPE,
} from '#api/envoy/types.ts';
import { deriveText, objectsOf, objectYaml } from '#test/kit/objects.ts';
import { deriveSnapshot, type Snapshot } from '../snapshot.ts';
import { allocateVips, NO_VIPS } from '../vips.ts';
import { jsonAt, jsonList, ownMetadataOf, PAY, resourceJson, resourceNames, waypointOf } from './testing.ts';

const LEDGER = 'ledger.pay.svc.cluster.local';

test('a service behind a waypoint has a listener, routes, a cluster and endpoints', () => {
  const waypoint = waypointOf(deriveText(PAY));
  expect(waypoint.serves).toContain(`pay/${LEDGER}`);
  const name = `inbound-vip|80|http|${LEDGER}`;
  const listener = resourceJson(waypoint, 'listener', name);
  expect(listener).toMatchObject({ internalListener: {}, metadata: {} });
  expect(ownMetadataOf(listener)).toEqual({
    service: `pay/${LEDGER}`,
    addresses: ['10.97.2.1', LEDGER],
    port: 80,
  });
  expect(jsonAt(listener, 'filterChains', 0, 'filters', 0, 'typedConfig', 'rds', 'routeConfigName')).toBe(
    name,
  );
  const host = resourceJson(waypoint, 'routes', name, 'virtualHosts', 0);
  expect(jsonAt(host, 'domains')).toEqual(['*']);
  expect(jsonAt(host, 'routes')).toMatchObject([
    {
      name: 'default',
      match: { prefix: '/' },
      route: {
        cluster: `inbound-vip|80|${LEDGER}`,
        clusterNotFoundResponseCode: 'INTERNAL_SERVER_ERROR',
        timeout: '0s',
        retryPolicy: { retryOn: 'connect-failure,refused-stream', numRetries: 1 },
      },
    },
  ]);
  expect(resourceJson(waypoint, 'cluster', `inbound-vip|80|${LEDGER}`)).toMatchObject({
    type: 'EDS',
    lbPolicy: 'LEAST_REQUEST',
    metadata: { filterMetadata: { 'tulle.dev': { backend: 'pay/ledger:80', service: `pay/${LEDGER}` } } },
  });
});

test('endpoints are the pods at their target port, with how they are reached and who they are', () => {
  const waypoint = waypointOf(deriveText(PAY));
  const endpoints = resourceJson(waypoint, 'endpoints', `inbound-vip|80|${LEDGER}`, 'endpoints', 0);
  expect(jsonAt(endpoints, 'lbEndpoints')).toMatchObject([
    {
      endpoint: { address: { socketAddress: { address: '10.1.2.21', portValue: 8080 } } },
      healthStatus: 'HEALTHY',
      metadata: { filterMetadata: { 'tulle.dev': { tunnel: 'NONE', identity: '', name: 'ledger-1' } } },
    },
    {
      endpoint: { address: { socketAddress: { address: '10.1.2.22', portValue: 8080 } } },
      healthStatus: 'HEALTHY',
      metadata: {
        filterMetadata: {
          'tulle.dev': { tunnel: 'HBONE', identity: 'spiffe://cluster.local/ns/pay/sa/ledger', node: 'n1' },
        },
      },
    },
  ]);
});

test('the name of a listener and its chains follow the protocol that the port declares', () => {
  const ports =
    '[{name: tcp-a, port: 1}, {name: tls-a, port: 2}, {name: any, port: 3}, {name: grpc, port: 4}]';
  const service = objectYaml(
    'Service',
    'pay/many',
    `{clusterIP: 10.97.2.9, selector: {app: m}, ports: ${ports}}`,
  );
  const waypoint = waypointOf(deriveText(PAY + service));
  const host = 'many.pay.svc.cluster.local';
  const chains = (name: string): unknown[] =>
    jsonList(resourceJson(waypoint, 'listener', name, 'filterChains')).map((chain) =>
      String(jsonAt(chain, 'filters', 0, 'name'))
        .split('.')
        .at(-1),
    );
  expect(chains(`inbound-vip|1|tcp|${host}`)).toEqual(['tcp_proxy']);
  expect(chains(`inbound-vip|2|tls|${host}`)).toEqual(['tcp_proxy']);
  expect(chains(`inbound-vip|3|auto|${host}`)).toEqual([
    'http_connection_manager',
    'http_connection_manager',
    'tcp_proxy',
  ]);
  expect(chains(`inbound-vip|4|http|${host}`)).toEqual(['http_connection_manager']);
  expect(resourceNames(waypoint, 'routes').filter((name) => name.endsWith(host))).toEqual([
    `inbound-vip|3|auto|${host}`,
    `inbound-vip|4|http|${host}`,
  ]);
});

test('a service that is not bound is not there', () => {
  const service = objectYaml(
    'Service',
    'pay/direct',
    '{clusterIP: 10.97.2.8, ports: [{name: http, port: 80}]}',
    'labels: {istio.io/use-waypoint: none}',
  );
  const { serves } = waypointOf(deriveText(PAY + service));
  expect(serves).not.toContain('pay/direct.pay.svc.cluster.local');
});

describe('what has not changed is taken over from the snapshot before', () => {
  const route = (weight: number, more = ''): string =>
    objectYaml(
      'HTTPRoute',
      'pay/r',
      `{parentRefs: [{kind: Service, group: "", name: ledger}], rules: [{${more}backendRefs: [{name: ledger, port: 80, weight: ${weight}}, {name: none, port: 80, weight: 1}]}]}`,
    );
  const next = (text: string, previous?: Snapshot): Snapshot => {
    const objects = objectsOf(text);
    return deriveSnapshot({ objects, vips: allocateVips(objects, NO_VIPS), previous });
  };
  const flat = (snapshot: Snapshot): ReadonlyMap<string, EnvoyResource> =>
    new Map(
      [...waypointOf(snapshot).resources.values()].flatMap((named) =>
        [...named.values()].map((one): [string, EnvoyResource] => [`${one.type} ${one.name}`, one]),
      ),
    );
  const first = next(PAY + route(1));
  const policy = objectYaml(
    'AuthorizationPolicy',
    'pay/p',
    '{targetRefs: [{kind: Service, group: "", name: ledger}], rules: [{}]}',
  );

  test.each([
    ['an endpoint', PAY.replace('10.1.2.21', '10.1.2.99') + route(1), ENDPOINT_TYPE],
    ['a weight', PAY + route(2), ROUTE_TYPE],
    ['a filter', PAY + route(1, 'filters: [{type: CORS, cors: {allowOrigins: ["*"]}}], '), ROUTE_TYPE],
    ['a policy', PAY + route(1) + policy, LISTENER_TYPE],
    [
      'how to balance',
      PAY.replace('name: ledger, ', 'name: ledger, annotations: {tulle.dev/load-balancing: round-robin}, ') +
        route(1),
      CLUSTER_TYPE,
    ],
  ])('when %s is edited', (_, text, changed) => {
    const [before, after] = [flat(first), flat(next(text, first))];
    expect(after).toEqual(flat(next(text)));
    const anew = [...after.keys()].filter((key) => after.get(key) !== before.get(key));
    expect(anew.map((key) => key.split(' ')[0])).toEqual([changed]);
  });

  test('when nothing is, all of it', () => {
    const [before, after] = [flat(first), flat(next(PAY + route(1), first))];
    expect([...after].every(([key, one]) => before.get(key) === one)).toBe(true);
  });
});
