import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { type Authorization, EMPTY_MATCH } from '#api/policy.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource, type ResourceType } from '#api/resource.ts';
import { type RecordedResources, recordedAddresses, recordedAuthorizations } from '#test/kit/recording.ts';
import { parseFiles } from '../source/parse-files.ts';
import { deriveSnapshot, type Snapshot } from './snapshot.ts';
import { allocateVips, NO_VIPS } from './vips.ts';

const FIXTURES = join(import.meta.dirname, '../../test/fixtures/istiod');

let snapshot: Snapshot;
let recorded: RecordedResources;

beforeAll(async () => {
  const objects = await parseFiles([join(FIXTURES, 'objects.yaml')]);
  snapshot = deriveSnapshot({ objects, vips: allocateVips(objects, NO_VIPS) });
  recorded = JSON.parse(await readFile(join(FIXTURES, 'workload-api.json'), 'utf8'));
});

test('workloads and services are those of a stock istiod, but for what is different on purpose', () => {
  const expected = new Map([...recordedAddresses(recorded)].filter(([, one]) => !isOfTheCluster(one)));
  for (const [name, resource] of expected)
    if (name.includes('/ServiceEntry/') && resource.kind === 'workload')
      // No labels, no selection: only what holds for the namespace or the mesh.
      expected.set(name, {
        ...resource,
        authorizationPolicies: ['istio-system/istio_converted_static_strict'],
      });
    else if (resource.kind === 'workload' && resource.namespace === 'pay' && resource.name === 'ledger-1')
      // Policies are aimed at its service's waypoint, which nothing may go round then.
      expected.set(name, {
        ...resource,
        authorizationPolicies: [...resource.authorizationPolicies, `pay/${THROUGH_WAYPOINT.name}`],
      });
  expect(resourcesOf(ADDRESS_TYPE)).toEqual(expected);
});

test('policies are those of a stock istiod, the one that it names and never sends, and those about a waypoint', () => {
  const expected = recordedAuthorizations(recorded);
  for (const name of FOR_WAYPOINTS) {
    const aimed = resourcesOf(AUTHORIZATION_TYPE).get(name);
    // A ztunnel is told of it and has no workload that names it.
    expect(aimed).toMatchObject({ scope: 'WORKLOAD_SELECTOR' });
    if (aimed?.kind === 'authorization') expected.set(name, aimed);
  }
  expected.set(`pay/${THROUGH_WAYPOINT.name}`, THROUGH_WAYPOINT);
  expected.set('shop/converted_peer_authentication_cart', STRICT_PORT);
  expect(resourcesOf(AUTHORIZATION_TYPE)).toEqual(expected);
});

test('every policy that a workload names is sent', () => {
  const sent = resourcesOf(AUTHORIZATION_TYPE);
  const named = [...resourcesOf(ADDRESS_TYPE).values()].flatMap((resource) =>
    resource.kind === 'workload' ? resource.authorizationPolicies : [],
  );
  expect(named.filter((name) => !sent.has(name))).toEqual([]);
});

test('what can not be enforced of the recorded policies is reported, rule by rule', () => {
  const ineffective = snapshot.policies
    .filter((policy) => policy.ineffective.length > 0)
    .map((policy) => [policy.object, policy.ineffective.map(({ rule }) => rule)]);
  expect(ineffective).toEqual([
    ['AuthorizationPolicy pay/p17-target-gateway', [0]],
    ['AuthorizationPolicy shop/p06-when-all', [0]],
    ['AuthorizationPolicy shop/p07-l7-allow', [0]],
    ['AuthorizationPolicy shop/p08-l7-deny', [0]],
    ['AuthorizationPolicy shop/p09-l7-only-deny', [0]],
    ['AuthorizationPolicy shop/p10-request-principals', [0]],
    ['AuthorizationPolicy shop/p11-audit', [0]],
    ['AuthorizationPolicy shop/p12-custom', [0]],
    ['AuthorizationPolicy shop/p13-dry-run', [0]],
    ['AuthorizationPolicy shop/p18-empty-source', [0, 1]],
    ['AuthorizationPolicy shop/p19-remote-ip', [0]],
    ['AuthorizationPolicy shop/p20-sni', [0]],
  ]);
});

test('a rule remembers its line', async () => {
  const derived = snapshot.resources.get(AUTHORIZATION_TYPE)?.get('shop/p07-l7-allow');
  expect(derived?.origin.object).toBe('AuthorizationPolicy shop/p07-l7-allow');
  const lines = (await readFile(join(FIXTURES, 'objects.yaml'), 'utf8')).split('\n');
  const line = lines.findIndex((text) => text.includes('name: p07-l7-allow')) + 2;
  // The first rule is left out, so that the one that is sent is the second as written.
  const column = (lines[line - 1]?.indexOf('{from:') ?? 0) + 1;
  expect(derived?.ruleOrigins).toMatchObject([{ line, column }]);
});

const FOR_WAYPOINTS = ['pay/p16-target-service', 'pay/p17-target-gateway'];

const STRICT_PORT: Authorization = {
  kind: 'authorization',
  name: 'converted_peer_authentication_cart',
  namespace: 'shop',
  scope: 'WORKLOAD_SELECTOR',
  action: 'DENY',
  rules: [
    {
      clauses: [
        { matches: [{ ...EMPTY_MATCH, notPrincipals: [{ kind: 'presence' }], destinationPorts: [8080] }] },
      ],
    },
  ],
  dryRun: false,
};

const THROUGH_WAYPOINT: Authorization = {
  kind: 'authorization',
  name: 'tulle_require_waypoint_pay_wp_8080',
  namespace: 'pay',
  scope: 'WORKLOAD_SELECTOR',
  action: 'DENY',
  rules: [
    {
      clauses: [
        {
          matches: [
            {
              ...EMPTY_MATCH,
              notPrincipals: [{ kind: 'exact', value: 'cluster.local/ns/pay/sa/wp' }],
            },
          ],
        },
        { matches: [{ ...EMPTY_MATCH, destinationPorts: [8080] }] },
      ],
    },
  ],
  dryRun: false,
};

function resourcesOf(type: ResourceType): ReadonlyMap<string, Resource> {
  const derived = [...(snapshot.resources.get(type) ?? [])];
  return new Map(derived.map(([name, { resource }]) => [name, resource]));
}

/** The API server's own Service is made by the cluster and stands in no file. */
function isOfTheCluster(resource: { readonly namespace: string; readonly name: string }): boolean {
  return resource.namespace === 'default' && resource.name === 'kubernetes';
}
