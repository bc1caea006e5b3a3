import { expect, test } from 'vitest';
import { ADDRESS_TYPE } from '#api/resource.ts';
import type { LoadBalancing, LoadBalancingScope, Service } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { gateway, port, service, tablesOf, workload } from '#test/kit/resources.ts';
import { type BalanceRequest, chooseAddress, chooseEndpoint, considerEndpoints } from './balance.ts';

const ECHO = 'default/echo.default.svc.cluster.local';
const SOURCE = workload({
  name: 'web',
  node: 'n1',
  locality: { region: 'r1', zone: 'z1', subzone: 's1' },
});

function endpoint(fields: Parameters<typeof workload>[0]): Workload {
  return workload({ services: { [ECHO]: {} }, ...fields });
}

function request(
  echo: Service,
  endpoints: readonly Workload[],
  fields?: Partial<BalanceRequest>,
): BalanceRequest {
  const tables = tablesOf(echo, ...endpoints);
  return { tables, service: echo, port: 80, source: SOURCE, purpose: 'application', ...fields };
}

function balancing(mode: LoadBalancing['mode'], ...routingPreference: LoadBalancingScope[]): Service {
  return service({ loadBalancing: { mode, routingPreference, healthPolicy: 'ONLY_HEALTHY' } });
}

/** Names of the endpoints that may be chosen. */
function eligible(given: BalanceRequest): readonly string[] {
  const candidates = considerEndpoints(given).filter(({ excluded }) => excluded === undefined);
  return candidates.map((candidate) => candidate.endpoint.workload.name);
}

const NEAR = endpoint({ name: 'node', node: 'n1', locality: { region: 'r1', zone: 'z1', subzone: 's1' } });
const ZONE = endpoint({ name: 'zone', node: 'n2', locality: { region: 'r1', zone: 'z1', subzone: 's2' } });
const REGION = endpoint({
  name: 'region',
  node: 'n3',
  locality: { region: 'r1', zone: 'z2', subzone: 's1' },
});
const FAR = endpoint({ name: 'far', node: 'n4', locality: { region: 'r2', zone: 'z1', subzone: 's1' } });
const EVERYWHERE = [NEAR, ZONE, REGION, FAR];

test.each([
  { when: 'nothing is preferred', echo: service({}), chosen: ['node', 'zone', 'region', 'far'] },
  {
    when: 'failing over region and zone',
    echo: balancing('FAILOVER', 'REGION', 'ZONE'),
    chosen: ['node', 'zone'],
  },
  {
    when: 'failing over network, region, zone, subzone and node',
    echo: balancing('FAILOVER', 'NETWORK', 'REGION', 'ZONE', 'SUBZONE', 'NODE'),
    chosen: ['node'],
  },
  { when: 'strictly on the node', echo: balancing('STRICT', 'NODE'), chosen: ['node'] },
  { when: 'strictly in the zone', echo: balancing('STRICT', 'REGION', 'ZONE'), chosen: ['node', 'zone'] },
  {
    when: 'in one cluster, where all are',
    echo: balancing('STRICT', 'CLUSTER', 'NETWORK'),
    chosen: ['node', 'zone', 'region', 'far'],
  },
  {
    when: 'preferences are written and the mode is not',
    echo: balancing('UNSPECIFIED', 'NODE'),
    chosen: ['node', 'zone', 'region', 'far'],
  },
])('endpoints $chosen share the connections when $when', ({ echo, chosen }) => {
  expect(eligible(request(echo, EVERYWHERE)).toSorted()).toEqual(chosen.toSorted());
});

test('a preference that is not met ends the count, whatever comes after it', () => {
  const far = considerEndpoints(request(balancing('FAILOVER', 'REGION', 'ZONE'), EVERYWHERE)).find(
    (candidate) => candidate.endpoint.workload.name === 'far',
  );
  expect(far).toMatchObject({ rank: 0, excluded: 'less-preferred' });
});

test('failover takes the next best when the best are gone', () => {
  const echo = balancing('FAILOVER', 'REGION', 'ZONE');
  expect(eligible(request(echo, [REGION, FAR]))).toEqual(['region']);
  expect(eligible(request(echo, [FAR]))).toEqual(['far']);
});

test('strict does not fall back', () => {
  const choice = chooseEndpoint(request(balancing('STRICT', 'NODE'), [FAR]), Math.random);
  expect(choice).toEqual({ kind: 'none', reason: 'no-healthy-endpoint' });
});

test.each([
  { when: 'it has no address', with: endpoint({ addresses: [] }), excluded: 'no-address' },
  {
    when: 'it is on another network behind a gateway',
    with: endpoint({ network: 'west', networkGateway: gateway('gw') }),
    excluded: 'other-network',
  },
  {
    when: 'it is on another network without a gateway',
    with: endpoint({ network: 'west' }),
    excluded: 'other-network-without-gateway',
  },
  { when: 'it has no capacity', with: endpoint({ capacity: 0 }), excluded: 'no-capacity' },
  {
    when: 'it has only a hostname',
    with: endpoint({ addresses: [], hostname: 'db.example' }),
    excluded: undefined,
  },
])('an endpoint is excluded as $excluded when $when', ({ with: given, excluded }) => {
  expect(considerEndpoints(request(service({}), [given]))[0]?.excluded).toBe(excluded);
});

test('an endpoint without an address of the service’s families is excluded', () => {
  const echo = service({ ipFamilies: 'IPV6_ONLY' });
  expect(considerEndpoints(request(echo, [endpoint({})]))[0]?.excluded).toBe('no-address');
});

test.each([
  { when: 'the endpoint maps the port', ports: { 80: 9090 }, service: port(80, 8080), target: 9090 },
  { when: 'only the service maps it', ports: {}, service: port(80, 8080), target: 8080 },
  { when: 'the service leaves it to the endpoint', ports: { 80: 9090 }, service: port(80, 0), target: 9090 },
  { when: 'neither maps it', ports: {}, service: port(80, 0), target: undefined },
])('the target port is $target when $when', ({ ports, service: servicePort, target }) => {
  const echo = service({ ports: [servicePort] });
  const choice = chooseEndpoint(request(echo, [endpoint({ services: { [ECHO]: ports } })]), Math.random);
  expect(choice.kind === 'chosen' ? choice.targetPort : undefined).toBe(target);
});

test('a port that the service does not have is said so', () => {
  const choice = chooseEndpoint(request(service({}), [endpoint({})], { port: 81 }), Math.random);
  expect(choice).toEqual({ kind: 'none', reason: 'service-port-unknown' });
});

test.each([
  { tunnel: { protocol: 'PROXY', port: 15088 } as const, target: 15008 },
  { tunnel: undefined, target: undefined },
])(
  'a waypoint whose service lacks the port is reached at $target with tunnel $tunnel',
  ({ tunnel, target }) => {
    const waypoint = endpoint(tunnel === undefined ? {} : { applicationTunnel: tunnel });
    const choice = chooseEndpoint(
      request(service({ ports: [] }), [waypoint], { port: 15008, purpose: 'waypoint' }),
      Math.random,
    );
    expect(choice.kind === 'chosen' ? choice.targetPort : undefined).toBe(target);
  },
);

test('connections are shared by weight', () => {
  const given = request(service({}), [endpoint({ name: 'a', capacity: 3 }), endpoint({ name: 'b' })]);
  const chosen = [0, 0.25, 0.74, 0.76, 0.99].map((roll) => {
    const choice = chooseEndpoint(given, () => roll);
    return choice.kind === 'chosen' ? choice.workload.name : choice.reason;
  });
  expect(chosen).toEqual(['a', 'a', 'a', 'b', 'b']);
});

test('a change of the endpoints is seen by the next choice', () => {
  const tables = tablesOf(service({}), endpoint({}));
  const given = request(service({}), [], { tables });
  expect(chooseEndpoint(given, Math.random).kind).toBe('chosen');
  tables.apply({ type: ADDRESS_TYPE, updated: [endpoint({ status: 'UNHEALTHY' })], removed: [] });
  expect(chooseEndpoint(given, Math.random).kind).toBe('none');
});

test('sources in different places are not given each other’s choice', () => {
  const given = request(balancing('STRICT', 'NODE'), EVERYWHERE);
  expect(chooseEndpoint(given, Math.random)).toMatchObject({ workload: { name: 'node' } });
  const elsewhere = { ...given, source: workload({ node: 'n4' }) };
  expect(chooseEndpoint(elsewhere, Math.random)).toMatchObject({ workload: { name: 'far' } });
});

const BOTH = endpoint({ addresses: ['10.0.0.1', 'fd00::1', 'fd00::2'] });

test.each([
  { when: 'it was asked for', families: 'AUTOMATIC', asked: 'fd00::2', ip: 'fd00::2' },
  { when: 'it is of the family asked for', families: 'AUTOMATIC', asked: 'fd00:10:96::1', ip: 'fd00::1' },
  {
    when: 'the service is of the other family',
    families: 'IPV4_ONLY',
    asked: 'fd00:10:96::1',
    ip: '10.0.0.1',
  },
  { when: 'the service is IPv6 only', families: 'IPV6_ONLY', asked: '10.96.0.1', ip: 'fd00::1' },
] as const)('address $ip is dialled when $when', ({ families, asked, ip }) => {
  expect(chooseAddress(BOTH, service({ ipFamilies: families }), asked)).toBe(ip);
});
