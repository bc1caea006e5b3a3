import type { JsonValue } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { deriveText, objectYaml } from '#test/kit/objects.ts';
import { jsonAt, jsonList, ownMetadataOf, PAY, resourceJson, resourceNames, waypointOf } from './testing.ts';

const HOST = 'db.pay.svc.cluster.local';
const DB = ['db', 'db-v2']
  .map((name, index) =>
    objectYaml(
      'Service',
      `pay/${name}`,
      `{clusterIP: 10.97.5.${index + 1}, selector: {app: ${name}}, ports: [{name: tcp, port: 5432}, {name: tls, port: 443}]}`,
    ),
  )
  .join('');

/** A route of `pay/db` at a port, and the chains of the listener that it makes. */
function chainsOf(kind: 'TCPRoute' | 'TLSRoute', port: number, spec: string): readonly JsonValue[] {
  const parent = `parentRefs: [{kind: Service, group: "", name: db, port: ${port}}]`;
  const waypoint = waypointOf(deriveText(PAY + DB + objectYaml(kind, 'pay/r', `{${parent}, ${spec}}`)));
  const listener = kind === 'TCPRoute' ? 'tcp' : 'tls';
  return jsonList(
    resourceJson(waypoint, 'listener', `inbound-vip|${port}|${listener}|${HOST}`, 'filterChains'),
  );
}

const proxyOf = (chain: JsonValue | undefined): JsonValue | undefined =>
  jsonAt(chain, 'filters', 0, 'typedConfig');

test('a TCPRoute divides connections by weight, without those that get none', () => {
  const backends =
    '{name: db, port: 5432, weight: 9}, {name: db-v2, port: 5432, weight: 1}, {name: none, port: 1, weight: 0}';
  const [chain, ...others] = chainsOf('TCPRoute', 5432, `rules: [{name: main, backendRefs: [${backends}]}]`);
  expect(others).toEqual([]);
  expect(jsonAt(proxyOf(chain), 'weightedClusters', 'clusters')).toEqual([
    { name: `inbound-vip|5432|${HOST}`, weight: 9 },
    { name: 'inbound-vip|5432|db-v2.pay.svc.cluster.local', weight: 1 },
  ]);
  expect(ownMetadataOf(chain)).toEqual({ object: 'TCPRoute pay/r', rule: 0, rule_name: 'main' });
});

test('connections to what is invalid lead to a cluster that is not there', () => {
  const [chain] = chainsOf('TCPRoute', 5432, 'rules: [{backendRefs: [{name: none, port: 1}]}]');
  expect(jsonAt(proxyOf(chain), 'cluster')).toBe('invalid|TCPRoute pay/r|0|0');
});

test('a TLSRoute goes by the name in the ClientHello, one chain for each', () => {
  const chains = chainsOf(
    'TLSRoute',
    443,
    'hostnames: ["*.b.example", a.example], rules: [{backendRefs: [{name: db-v2, port: 443}]}]',
  );
  expect(chains.map((chain) => jsonAt(chain, 'filterChainMatch', 'serverNames'))).toEqual([
    ['a.example'],
    ['*.b.example'],
  ]);
  expect(new Set(chains.map((chain) => jsonAt(proxyOf(chain), 'cluster')))).toEqual(
    new Set(['inbound-vip|443|db-v2.pay.svc.cluster.local']),
  );
});

test('the clusters of all backends are there', () => {
  const route = objectYaml(
    'TCPRoute',
    'pay/r',
    '{parentRefs: [{kind: Service, group: "", name: db, port: 5432}], rules: [{backendRefs: [{name: db-v2, port: 5432}]}]}',
  );
  const names = resourceNames(waypointOf(deriveText(PAY + DB + route)), 'cluster');
  expect(names).toContain('inbound-vip|5432|db-v2.pay.svc.cluster.local');
  expect(names).not.toContain(`inbound-vip|5432|${HOST}`);
});
