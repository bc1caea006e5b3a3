import { describe, expect, test } from 'vitest';
import { type Resource, resourceName, resourceType } from '#api/resource.ts';
import { resourceToJson } from '#api/resource-json.ts';
import { serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { policy, rule, service, workload } from '#test/kit/resources.ts';
import { type Caller, explainConnection } from './explain.ts';
import type { Explanation } from './explanation.ts';
import { formatExplanation } from './explanation-text.ts';
import { type MeshFacts, NO_FACTS } from './mesh-facts.ts';

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

function served(resources: readonly Resource[]): ServedResources {
  return {
    resources: resources.map((resource) => ({
      type: resourceType(resource),
      name: resourceName(resource),
      resource: resourceToJson(resource),
      origin: { object: `${resource.kind} ${resource.name}`, position: `/mesh/${resource.name}.yaml:1:1` },
      ...(resource.kind === 'authorization' && { ruleOrigins: ['/mesh/policy.yaml:9:7'] }),
    })),
  };
}

function explain(from: string, host: string, port: number, resources: readonly Resource[]): Explanation {
  const [namespace = '', name = ''] = from.split('/');
  return explainConnection({ served: served(resources), from: { namespace, name }, to: { host, port } });
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

  test('from outside the mesh goes round the waypoint of the service, to who decides there', () => {
    const destination = { kind: 'hostname', namespace: 'shop', hostname: 'none.shop' } as const;
    const gateway = { destination, hboneMtlsPort: 15008 };
    const guarded = [{ ...CATALOG, waypoint: gateway }, OUTSIDER, CART, CATALOG_1, CATALOG_2, ONLY_CART];
    const { routes, outcome } = explain('outside/outsider', 'catalog.shop', 80, guarded);
    expect(routes.map(({ hop }) => hop.destination).sort()).toEqual(['shop/catalog-1', 'shop/catalog-2']);
    expect(routes[0]).toMatchObject({ hop: { reason: 'source-not-in-mesh' }, verdict: { kind: 'deny' } });
    expect(outcome).toBe('refused');
    const inside = explain('shop/cart', 'catalog.shop', 80, guarded);
    expect(inside.routes[0]?.hop).toMatchObject({ kind: 'refuse', reason: 'waypoint-not-found' });
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

describe('beside what is served', () => {
  const NOW = Date.parse('2026-01-01T12:00:00Z');
  const known = (serial: string, notAfter = '2026-01-02T00:00:00Z') => ({
    addresses: [],
    capture: 'ebpf',
    pending: null,
    pendingSince: null,
    certificate: { serial, notAfter },
    labels: {},
  });
  const FACTS: MeshFacts = {
    ...NO_FACTS,
    nowMs: NOW,
    workloads: new Map([
      ['shop/cart', known('a')],
      ['shop/catalog-1', known('b')],
    ]),
    ztunnels: new Map([
      ['n1', true],
      ['n2', true],
    ]),
  };
  const CART_ID = 'spiffe://cluster.local/ns/shop/sa/cart';
  const CATALOG_ID = 'spiffe://cluster.local/ns/shop/sa/catalog';
  const revoked = (identities: readonly string[], serials: readonly string[] = []) => ({
    revoked: { identities: new Set(identities), serials: new Set(serials) },
  });
  const withCart = (certificate: ReturnType<typeof known>['certificate'] | null) => ({
    workloads: new Map([...FACTS.workloads, ['shop/cart', { ...known('a'), certificate }]]),
  });

  function ask(from: Caller, facts: MeshFacts, port = 8080): Explanation {
    const resources = [CATALOG, WEB, CART, OUTSIDER, CATALOG_1, ONLY_CART];
    return explainConnection({
      served: served(resources),
      from,
      to: { host: '10.244.2.2', port },
      facts,
    });
  }

  test('each end has its certificate', () => {
    const { from, routes, outcome } = ask({ namespace: 'shop', name: 'cart' }, FACTS);
    expect(from).toMatchObject({ capture: 'ebpf', certificate: { serial: 'a' } });
    expect(routes[0]?.end).toMatchObject({ identity: CATALOG_ID, certificate: { serial: 'b' } });
    expect(outcome).toBe('allowed');
  });

  test('a workload of which nobody was told yet is said to wait, and for what', () => {
    const waiting = { ...known('c'), certificate: null, addresses: ['10.244.1.99'] };
    const pending = 'the control plane is stopped: tulle start control-plane';
    const facts = (changes: Partial<typeof waiting> | { readonly pending: string }): MeshFacts => ({
      ...FACTS,
      workloads: new Map([['shop/new', { ...waiting, ...changes }]]),
    });
    const since = { pending, pendingSince: '2026-01-01T12:00:00.123Z' };
    for (const from of [{ namespace: 'shop', name: 'new' }, { ip: '10.244.1.99' }])
      expect(() => ask(from, facts(since))).toThrow(
        `shop/new calls nobody yet: it waits since 2026-01-01T12:00:00Z to be in the mesh: ${pending}`,
      );
    expect(() => ask({ namespace: 'shop', name: 'new' }, facts({}))).toThrow(
      'it waits to be in the mesh: the control plane has not seen it yet',
    );
    expect(ask({ ip: '10.244.1.98' }, facts({})).from.workload).toBe('10.244.1.98');
  });

  test.each([
    ['the caller is revoked', revoked([CART_ID]), 'caller', 'revoked'],
    ["the caller's certificate is revoked", revoked([], ['a']), 'caller', 'revoked'],
    ['the destination is revoked', revoked([CATALOG_ID]), 'destination', 'revoked'],
    ['the caller has no certificate', withCart(null), 'caller', 'no-certificate'],
    [
      'its certificate has ended',
      withCart({ serial: 'a', notAfter: '2026-01-01T11:00:00Z' }),
      'caller',
      'certificate-expired',
    ],
    [
      "the caller's ztunnel is away",
      {
        ztunnels: new Map([['n1', false]]),
        workloads: new Map([['shop/cart', { ...known('a'), capture: 'nftables' }]]),
      },
      'caller',
      'ztunnel-away',
    ],
    [
      "the destination's ztunnel is away",
      { ztunnels: new Map([['n2', false]]) },
      'destination',
      'ztunnel-away',
    ],
  ] as const)('a connection cannot be made when %s', (_, changes, at, reason) => {
    const { routes, outcome } = ask({ namespace: 'shop', name: 'cart' }, { ...FACTS, ...changes });
    expect([routes[0]?.obstacle, outcome]).toEqual([expect.objectContaining({ at, reason }), 'refused']);
  });

  test('without its ztunnel a caller that eBPF captures and nothing closes goes direct', () => {
    const facts = { ...FACTS, ztunnels: new Map([['n1', false]]) };
    const explanation = ask({ namespace: 'shop', name: 'cart' }, facts);
    expect(explanation).toMatchObject({
      from: { enrolled: true, identity: null, pending: expect.stringContaining('go direct') },
      routes: [{ hop: { kind: 'passthrough' }, verdict: { kind: 'deny', reason: 'no-allow-matched' } }],
      outcome: 'refused',
    });
    expect(formatExplanation(explanation)).toMatch(/in the mesh, but its ztunnel is away/);
  });

  test('a port of the mesh is refused at the far end', () => {
    const { routes, outcome } = ask({ namespace: 'shop', name: 'cart' }, FACTS, 15006);
    expect([routes[0]?.obstacle?.reason, outcome]).toEqual(['port-of-the-mesh', 'refused']);
  });

  test('a caller may be given by address; one that nobody of the mesh has is outside it', () => {
    expect(ask({ ip: '10.244.1.3' }, FACTS).from.workload).toBe('shop/cart');
    expect(ask({ ip: '192.0.2.7' }, FACTS)).toMatchObject({
      from: { workload: '192.0.2.7', enrolled: false, identity: null },
      routes: [{ hop: { kind: 'passthrough', reason: 'source-not-in-mesh' }, verdict: { kind: 'deny' } }],
      outcome: 'refused',
    });
  });

  test('a policy that the destination names and that has not come is said', () => {
    const { routes } = ask({ namespace: 'shop', name: 'cart' }, FACTS);
    expect(routes[0]?.ignored).toEqual([]);
    const waiting = { ...CATALOG_1, authorizationPolicies: ['shop/late'] };
    const explanation = explainConnection({
      served: served([CART, waiting]),
      from: { namespace: 'shop', name: 'cart' },
      to: { host: '10.244.2.2', port: 8080 },
      facts: FACTS,
    });
    expect(explanation).toMatchObject({
      outcome: 'refused',
      routes: [{ verdict: { reason: 'missing-policy' }, ignored: [{ policy: 'shop/late', rule: null }] }],
    });
  });

  test('what nobody enforces is said where it is meant for the destination', () => {
    const policy = (name: string, app: string, enforcedBy: readonly string[]) => ({
      object: `AuthorizationPolicy shop/${name}`,
      position: `/mesh/${name}.yaml:1:1`,
      enforcedBy,
      ineffective: [{ rule: 0, reason: 'ztunnels do not see methods' }],
      selector: { app },
    });
    const workloads = new Map([['shop/catalog-1', { ...known('b'), labels: { app: 'catalog' } }]]);
    const policies = [policy('a', 'catalog', []), policy('b', 'other', []), policy('c', 'catalog', ['x'])];
    const { routes } = ask({ namespace: 'shop', name: 'web' }, { ...FACTS, workloads, policies });
    expect(routes[0]?.ignored.map(({ policy: object }) => object)).toEqual(['AuthorizationPolicy shop/a']);
  });

  test('for people, each of that is a line', () => {
    const text = formatExplanation(
      ask({ namespace: 'shop', name: 'cart' }, { ...FACTS, ...revoked([CART_ID]) }),
    );
    expect(text).toMatch(/in the mesh as \S+, captured by ebpf, certificate until 2026-01-02T00:00:00Z$/m);
    expect(text).toMatch(/^ {6}shop\/catalog-1 \(node n2\) is in the mesh, captured by ebpf, is spiffe:/m);
    expect(text).toMatch(/^ {6}cannot be made: spiffe:\S+ is revoked \(revoked, caller\)$/m);
  });
});

test('a name of the cluster that nobody has does not exist', () => {
  expect(explain('shop/web', 'nobody.shop.svc.cluster.local', 80, ALL)).toMatchObject({
    to: { exists: false },
    outcome: 'no such name',
  });
});
