import { describe, expect, test } from 'vitest';
import { type Resource, resourceName, resourceType } from '#api/resource.ts';
import { resourceToJson } from '#api/resource-json.ts';
import { serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { policy, rule, service, workload } from '#test/kit/resources.ts';
import { explainConnection } from './explain.ts';
import type { Explanation } from './explanation.ts';
import { formatExplanation } from './explanation-text.ts';

const CATALOG = service({
  name: 'catalog',
  namespace: 'shop',
  addresses: [{ network: '', ip: '10.96.1.0' }],
});
const WEB = pod('shop', 'web', '10.244.1.2');
const CART = pod('shop', 'cart', '10.244.1.3');
const OUTSIDER: Workload = { ...pod('outside', 'outsider', '10.244.1.9'), tunnelProtocol: 'NONE' };
const CATALOG_1 = replica('catalog-1', '10.244.2.2', ['shop/catalog']);
const CATALOG_2 = replica('catalog-2', '10.244.2.3', ['shop/catalog']);
const ONLY_CART = policy({
  name: 'catalog',
  namespace: 'shop',
  scope: 'WORKLOAD_SELECTOR',
  rules: [rule({ principals: [{ kind: 'exact', value: 'cluster.local/ns/shop/sa/cart' }] })],
});

function pod(namespace: string, name: string, ip: string): Workload {
  return workload({ namespace, name, serviceAccount: name, addresses: [ip] });
}

function replica(name: string, ip: string, authorizationPolicies: readonly string[], node = 'n2'): Workload {
  const services = { [serviceKey(CATALOG)]: { 80: 8080 } };
  return workload({
    namespace: 'shop',
    name,
    serviceAccount: 'catalog',
    node,
    addresses: [ip],
    authorizationPolicies,
    services,
  });
}

function explain(from: string, host: string, port: number, resources: readonly Resource[]): Explanation {
  const served: ServedResources = {
    resources: resources.map((resource) => ({
      type: resourceType(resource),
      name: resourceName(resource),
      resource: resourceToJson(resource),
      origin: { object: `${resource.kind} ${resource.name}`, position: `/mesh/${resource.name}.yaml:1:1` },
      ...(resource.kind === 'authorization' && { ruleOrigins: ['/mesh/policy.yaml:9:7'] }),
    })),
  };
  const [namespace = '', name = ''] = from.split('/');
  return explainConnection({ served, from: { namespace, name }, to: { host, port } });
}

const ALL = [CATALOG, WEB, CART, OUTSIDER, CATALOG_1, CATALOG_2, ONLY_CART];

describe('a call to a service', () => {
  test('is explained for every endpoint that may be chosen', () => {
    const { to, routes, outcome } = explain('shop/cart', 'catalog.shop', 80, ALL);
    expect(to).toMatchObject({
      resolved: { ip: '10.96.1.0', port: 80 },
      service: 'catalog.shop.svc.cluster.local',
      position: '/mesh/catalog.yaml:1:1',
    });
    expect(routes.map(({ hop }) => hop.destination).sort()).toEqual(['shop/catalog-1', 'shop/catalog-2']);
    expect(routes[0]).toMatchObject({
      hop: {
        kind: 'tunnel',
        dials: expect.stringMatching(/:15008$/),
        authority: expect.stringMatching(/:8080$/),
        expects: ['spiffe://cluster.local/ns/shop/sa/catalog'],
      },
      verdict: { kind: 'allow', reason: 'allowed-by-policy', position: '/mesh/policy.yaml:9:7' },
    });
    expect(outcome).toBe('allowed');
  });

  test('that no policy allows names the policy that would have to', () => {
    const { routes, outcome } = explain('shop/web', 'catalog.shop', 80, ALL);
    expect(outcome).toBe('refused');
    expect(routes[0]?.verdict).toMatchObject({
      kind: 'deny',
      reason: 'no-allow-matched',
      policy: 'authorization catalog',
      position: '/mesh/catalog.yaml:1:1',
    });
  });

  test('may depend on the endpoint', () => {
    const open = replica('catalog-2', '10.244.2.3', []);
    expect(explain('shop/web', 'catalog.shop', 80, [CATALOG, WEB, CATALOG_1, open, ONLY_CART]).outcome).toBe(
      'depends on the endpoint',
    );
  });

  test('from outside the mesh goes by plain TCP, without an identity', () => {
    const { from, routes, outcome } = explain('outside/outsider', 'catalog.shop', 80, ALL);
    expect(from).toMatchObject({ enrolled: false, identity: null });
    expect(routes[0]).toMatchObject({
      hop: { kind: 'passthrough', reason: 'source-not-in-mesh', expects: [] },
      verdict: { kind: 'deny' },
    });
    expect(outcome).toBe('refused');
  });
});

describe('a call on one node', () => {
  const near = replica('catalog-1', '10.244.2.2', ['shop/catalog'], 'n1');
  const hopOf = (source: Workload, destination: Workload) => {
    const explanation = explain(`shop/${source.name}`, '10.244.2.2', 8080, [source, destination, ONLY_CART]);
    return { ...explanation, hop: explanation.routes[0]?.hop, text: formatExplanation(explanation) };
  };

  test('is handed over inside the ztunnel, and policy is asked all the same', () => {
    const allowed = hopOf(CART, near);
    expect(allowed.hop).toEqual({
      kind: 'same-node',
      reason: 'both-on-this-node',
      message: null,
      dials: '10.244.2.2:8080',
      authority: null,
      expects: ['spiffe://cluster.local/ns/shop/sa/catalog'],
      destination: 'shop/catalog-1',
      notSameNode: null,
    });
    expect(allowed.text).toMatch(/^hop {3}on the node to shop\/catalog-1: dials 10\.244\.2\.2:8080 inside/m);
    expect([allowed.outcome, hopOf(WEB, near).outcome]).toEqual(['allowed', 'refused']);
  });

  test.each([
    ['the caller', { ...CART, sameNode: 'tunnel' as const }, near, 'source-says-tunnel'],
    ['the destination', CART, { ...near, sameNode: 'tunnel' as const }, 'destination-says-tunnel'],
  ])('takes a tunnel when %s says so', (_, source, destination, notSameNode) => {
    const { hop, text } = hopOf(source, destination);
    expect(hop).toMatchObject({ kind: 'tunnel', dials: '10.244.2.2:15008', notSameNode });
    expect(text).toContain('says tulle.dev/same-node: tunnel');
  });
});

test("a name that is not the mesh's is left to the network outside", () => {
  expect(explain('shop/web', 'example.com', 443, ALL)).toMatchObject({
    to: { resolved: null },
    routes: [],
    outcome: 'left to the network outside the mesh',
  });
});

test('a workload that is not there is an error', () => {
  expect(() => explain('shop/nobody', 'catalog.shop', 80, ALL)).toThrow('there is no workload shop/nobody');
});

test('for people, each decision is a line', () => {
  const text = formatExplanation(explain('shop/web', 'catalog.shop', 80, ALL));
  expect(text).toMatch(
    /^from {2}shop\/web \(10\.244\.1\.2, node n1\), in the mesh as spiffe:\/\/cluster\.local\/ns\/shop\/sa\/web$/m,
  );
  expect(text).toMatch(
    /^ {6}denied: no-allow-matched, authorization catalog \(\/mesh\/catalog\.yaml:1:1\)$/m,
  );
  expect(text).toMatch(/^so {4}refused$/m);
});
