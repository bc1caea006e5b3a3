import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { HostPort } from '#api/address.ts';
import type { Resource } from '#api/resource.ts';
import { parseIdentity } from '#certs/identity.ts';
import { gateway, port, service, tablesOf, workload } from '#test/kit/resources.ts';
import { completeNextHop, decideNextHop, type NextHop, type ResolveHop } from './next-hop.ts';

const WEB = workload({ name: 'web', namespace: 'default', serviceAccount: 'web', addresses: ['10.244.1.9'] });
const ECHO = 'default/echo.default.svc.cluster.local';
const WAYPOINT = 'default/wp.default.svc.cluster.local';
const VIP: HostPort = { ip: '10.96.1.1', port: 80 };
const POD: HostPort = { ip: '10.244.2.2', port: 8080 };

const echoPod = (fields: Parameters<typeof workload>[0] = {}) =>
  workload({ addresses: ['10.244.2.2'], serviceAccount: 'echo', services: { [ECHO]: {} }, ...fields });
const waypointService = service({
  name: 'wp',
  addresses: [{ network: '', ip: '10.96.2.2' }],
  ports: [port(15008, 15008)],
});
const waypointPod = workload({
  name: 'wp-1',
  addresses: ['10.244.2.7'],
  serviceAccount: 'wp',
  tunnelProtocol: 'NONE',
  services: { [WAYPOINT]: {} },
});
const BOUND = { waypoint: gateway('wp.default.svc.cluster.local') };

function decide(destination: HostPort, ...resources: readonly Resource[]): NextHop {
  return decideFrom({ source: WEB, sourceIp: '10.244.1.9' }, destination, ...resources);
}

function decideFrom(
  from: { source: typeof WEB; sourceIp: string },
  destination: HostPort,
  ...resources: readonly Resource[]
): NextHop {
  const tables = tablesOf(WEB, ...resources);
  return decideNextHop({ tables, ...from, destination, network: '', random: () => 0.5 });
}

test('a service goes through a tunnel to an endpoint’s own port', () => {
  const pod = echoPod();
  const echo = service({});
  expect(decide(VIP, echo, pod)).toEqual({
    kind: 'tunnel',
    reason: 'direct',
    hop: { ip: '10.244.2.2', port: 15008 },
    authority: '10.244.2.2:8080',
    expected: [parseIdentity('spiffe://cluster.local/ns/default/sa/echo')],
    destinationWorkload: pod,
    service: echo,
  });
});

test('a workload that is addressed itself is reached at the port that was dialled, and no service is named', () => {
  const hop = decide({ ip: '10.244.2.2', port: 5201 }, service({}), echoPod());
  expect(hop).toMatchObject({ kind: 'tunnel', authority: '10.244.2.2:5201' });
  expect(hop.kind === 'tunnel' && hop.service).toBe(undefined);
});

test('an IPv6 authority has brackets', () => {
  const hop = decide({ ip: 'fd00::2', port: 8080 }, echoPod({ addresses: ['fd00::2'] }));
  expect(hop).toMatchObject({ authority: '[fd00::2]:8080', hop: { ip: 'fd00::2', port: 15008 } });
});

test('the service’s subject names are accepted beside the workload’s own, what does not parse is left out', () => {
  const other = 'spiffe://cluster.local/ns/other/sa/other';
  const hop = decide(VIP, service({ subjectAltNames: [other, 'other.example.com'] }), echoPod());
  expect(hop.kind === 'tunnel' && hop.expected.map(({ serviceAccount }) => serviceAccount)).toEqual([
    'other',
    'echo',
  ]);
});

test.each([
  {
    when: 'nothing is known of the address',
    destination: { ip: '192.0.2.1', port: 443 },
    resources: [],
    to: { ip: '192.0.2.1', port: 443 },
    reason: 'unknown-destination',
  },
  {
    when: 'the service passes everything through',
    destination: VIP,
    resources: [
      service({ loadBalancing: { mode: 'PASSTHROUGH', routingPreference: [], healthPolicy: 'ALLOW_ALL' } }),
    ],
    to: VIP,
    reason: 'passthrough-service',
  },
  {
    when: 'the endpoint is not in the mesh',
    destination: VIP,
    resources: [service({}), echoPod({ tunnelProtocol: 'NONE' })],
    to: POD,
    reason: 'destination-not-in-mesh',
  },
  {
    when: 'the workload is not in the mesh',
    destination: { ip: '10.244.2.2', port: 22 },
    resources: [echoPod({ tunnelProtocol: 'NONE' })],
    to: { ip: '10.244.2.2', port: 22 },
    reason: 'destination-not-in-mesh',
  },
])('a connection is passed through when $when', ({ destination, resources, to, reason }) => {
  expect(decide(destination, ...resources)).toMatchObject({ kind: 'passthrough', reason, to });
});

test.each([
  {
    when: 'it calls the ztunnel on loopback',
    destination: { ip: '127.0.0.1', port: 15001 },
    resources: [],
    reason: 'self-call',
  },
  {
    when: 'it calls the ztunnel by its own address',
    destination: { ip: '10.244.1.9', port: 15008 },
    resources: [],
    reason: 'self-call',
  },
  {
    when: 'the service has no endpoint',
    destination: VIP,
    resources: [service({})],
    reason: 'no-healthy-endpoint',
  },
  {
    when: 'no endpoint is healthy',
    destination: VIP,
    resources: [service({}), echoPod({ status: 'UNHEALTHY' })],
    reason: 'no-healthy-endpoint',
  },
  {
    when: 'the service lacks the port',
    destination: { ...VIP, port: 81 },
    resources: [service({}), echoPod()],
    reason: 'service-port-unknown',
  },
  {
    when: 'all endpoints are on another network with a gateway',
    destination: VIP,
    resources: [service({}), echoPod({ network: 'west', networkGateway: gateway('gw') })],
    reason: 'other-network',
  },
  {
    when: 'all endpoints are on another network without one',
    destination: VIP,
    resources: [service({}), echoPod({ network: 'west' })],
    reason: 'other-network-without-gateway',
  },
  {
    when: 'the service’s waypoint does not exist',
    destination: VIP,
    resources: [service(BOUND), echoPod()],
    reason: 'waypoint-not-found',
  },
  {
    when: 'the service’s waypoint has no healthy endpoint',
    destination: VIP,
    resources: [service(BOUND), echoPod(), waypointService, { ...waypointPod, status: 'UNHEALTHY' as const }],
    reason: 'waypoint-not-ready',
  },
  {
    when: 'the service’s waypoint lacks the HBONE port',
    destination: VIP,
    resources: [service(BOUND), echoPod(), { ...waypointService, ports: [] }, waypointPod],
    reason: 'waypoint-not-ready',
  },
  {
    when: 'the workload’s waypoint does not exist',
    destination: POD,
    resources: [echoPod(BOUND)],
    reason: 'waypoint-not-found',
  },
  {
    when: 'the waypoint is on another network',
    destination: VIP,
    resources: [service(BOUND), echoPod(), waypointService, { ...waypointPod, network: 'west' }],
    reason: 'other-network',
  },
])('a connection is refused as $reason when $when', ({ destination, resources, reason }) => {
  expect(decide(destination, ...resources)).toMatchObject({ kind: 'refuse', reason });
});

test('a refusal names the service and what is missing, as the field words it', () => {
  const hop = decide({ ...VIP, port: 81 }, service({}), echoPod());
  expect(hop.kind === 'refuse' && hop.message).toBe(
    `no healthy upstream: 10.96.1.1:81 (${ECHO}: the service has no such port)`,
  );
});

test('a service’s waypoint gets the address that was dialled, untranslated', () => {
  const echo = service(BOUND);
  expect(decide(VIP, echo, echoPod(), waypointService, waypointPod)).toEqual({
    kind: 'tunnel',
    reason: 'service-waypoint',
    hop: { ip: '10.244.2.7', port: 15008 },
    authority: '10.96.1.1:80',
    expected: [parseIdentity('spiffe://cluster.local/ns/default/sa/wp')],
    destinationWorkload: waypointPod,
    viaWaypoint: BOUND.waypoint,
    service: echo,
  });
});

test('a waypoint stands before a service that has no endpoint', () => {
  expect(decide(VIP, service(BOUND), waypointService, waypointPod)).toMatchObject({ kind: 'tunnel' });
});

test('the waypoint of a workload gets the pod’s address', () => {
  const hop = decide(POD, echoPod(BOUND), waypointService, waypointPod);
  expect(hop).toMatchObject({ kind: 'tunnel', reason: 'workload-waypoint', authority: '10.244.2.2:8080' });
});

test('a call to a service never uses the waypoint of a workload behind it', () => {
  const hop = decide(VIP, service({}), echoPod(BOUND), waypointService, waypointPod);
  expect(hop).toMatchObject({ kind: 'tunnel', reason: 'direct' });
});

test('the waypoint itself reaches its workload directly, by identity and address both', () => {
  const resources = [echoPod(BOUND), waypointService, waypointPod];
  const itself = decideFrom({ source: waypointPod, sourceIp: '10.244.2.7' }, POD, ...resources);
  expect(itself).toMatchObject({ kind: 'tunnel', reason: 'direct' });
  const forged = decideFrom({ source: WEB, sourceIp: '10.244.2.7' }, POD, ...resources);
  expect(forged).toMatchObject({ kind: 'tunnel', reason: 'workload-waypoint' });
});

test.each([
  { when: 'by the address of its workload', ip: '10.244.2.7', resources: [waypointPod] },
  { when: 'by its VIP', ip: '10.96.2.2', resources: [waypointService, waypointPod] },
])('a waypoint is found $when', ({ ip, resources }) => {
  const waypoint = { destination: { kind: 'address', network: '', ip }, hboneMtlsPort: 15008 } as const;
  const hop = decide(VIP, service({ waypoint }), echoPod(), ...resources);
  expect(hop).toMatchObject({ kind: 'tunnel', hop: { ip: '10.244.2.7', port: 15008 } });
});

test('weighted waypoints share the connections, and the plain one takes all when none has weight', () => {
  const canary = workload({ ...waypointPod, uid: 'canary', addresses: ['10.244.2.8'], services: {} });
  const toCanary = {
    destination: { kind: 'address', network: '', ip: '10.244.2.8' },
    hboneMtlsPort: 15008,
  } as const;
  const hopWith = (mainWeight: number, canaryWeight: number) => {
    const weightedWaypoints = [
      { destination: BOUND.waypoint, weight: mainWeight },
      { destination: toCanary, weight: canaryWeight },
    ];
    return decide(VIP, service({ ...BOUND, weightedWaypoints }), waypointService, waypointPod, canary);
  };
  expect(hopWith(60, 40)).toMatchObject({ hop: { ip: '10.244.2.7' } });
  expect(hopWith(40, 60)).toMatchObject({ hop: { ip: '10.244.2.8' } });
  expect(hopWith(0, 0)).toMatchObject({ hop: { ip: '10.244.2.7' } });
});

test('an instance that was tried in vain gives way to one that is less preferred', () => {
  const near = { ...waypointPod, node: 'n1' };
  const far = workload({
    ...waypointPod,
    name: 'wp-2',
    uid: 'far',
    node: 'n2',
    addresses: ['10.244.3.7'],
    services: { [WAYPOINT]: {} },
  });
  const preferring = service({
    ...waypointService,
    loadBalancing: { mode: 'FAILOVER', routingPreference: ['NODE'], healthPolicy: 'ONLY_HEALTHY' },
  });
  const tables = tablesOf(WEB, service(BOUND), preferring, near, far);
  const from = {
    tables,
    source: WEB,
    sourceIp: '10.244.1.9',
    destination: VIP,
    network: '',
    random: () => 0.5,
  };
  expect(decideNextHop(from)).toMatchObject({ hop: { ip: '10.244.2.7' } });
  expect(decideNextHop({ ...from, exclude: new Set([near.uid]) })).toMatchObject({
    hop: { ip: '10.244.3.7' },
  });
  expect(decideNextHop({ ...from, exclude: new Set([near.uid, 'far']) })).toMatchObject({
    reason: 'waypoint-not-ready',
  });
});

test('a workload wins over a service of the same address, whose waypoint is then not used', () => {
  const at = { network: '', ip: '10.244.2.2' };
  const pod = echoPod({ services: {} });
  expect(decide(POD, service({ ...BOUND, addresses: [at] }), pod)).toMatchObject({
    kind: 'tunnel',
    reason: 'direct',
    authority: '10.244.2.2:8080',
  });
});

test('a service of another namespace that hides is not found', () => {
  const hop = decide(VIP, service({ namespace: 'other', visibility: 'NAMESPACE' }));
  expect(hop).toMatchObject({ kind: 'passthrough', reason: 'unknown-destination' });
});

test('an endpoint on another network is left out while there is one here', () => {
  const remote = echoPod({ name: 'remote', network: 'west', capacity: 1000, networkGateway: gateway('gw') });
  expect(decide(VIP, service({}), echoPod(), remote)).toMatchObject({ hop: { ip: '10.244.2.2' } });
});

const DATABASE = echoPod({ name: 'db', addresses: [], hostname: 'db.example.com', tunnelProtocol: 'NONE' });

function resolveHop(): ResolveHop {
  const hop = decide(VIP, service({}), DATABASE);
  if (hop.kind !== 'resolve') throw new TypeError(`not to be resolved: ${hop.kind}`);
  return hop;
}

test('a workload that has only a hostname is to be looked up', () => {
  expect(resolveHop()).toMatchObject({ hostname: 'db.example.com', targetPort: 8080, preferredFamily: 4 });
});

test.each([
  { addresses: ['2001:db8::1', '192.0.2.1'], roll: 0.9, ip: '192.0.2.1' },
  { addresses: ['192.0.2.1', '192.0.2.2'], roll: 0.9, ip: '192.0.2.2' },
  { addresses: ['2001:db8::1'], roll: 0, ip: '2001:db8::1' },
])('of looked-up addresses $addresses $ip is dialled', ({ addresses, roll, ip }) => {
  const hop = completeNextHop(resolveHop(), addresses, () => roll);
  expect(hop).toMatchObject({ kind: 'passthrough', to: { ip, port: 8080 } });
});

test('a hostname without addresses is refused', () => {
  const hop = completeNextHop(resolveHop(), [], Math.random);
  expect(hop).toMatchObject({ kind: 'refuse', reason: 'hostname-not-resolved' });
});

/** As {@link decide}, on the node of the caller, whose ztunnel serves everybody there. */
function decideNear(destination: HostPort, ...resources: readonly Resource[]): NextHop {
  return decideNearFrom({ source: WEB, sourceIp: '10.244.1.9' }, destination, ...resources);
}

function decideNearFrom(
  from: { source: typeof WEB; sourceIp: string },
  destination: HostPort,
  ...resources: readonly Resource[]
): NextHop {
  const tables = tablesOf(from.source, ...resources);
  const servesPod = ({ node }: typeof WEB): boolean => node === 'n1';
  return decideNextHop({ tables, ...from, destination, network: '', random: () => 0.5, servesPod });
}

test('a pod that the same ztunnel serves is handed the connection itself', () => {
  const pod = echoPod();
  const echo = service({ subjectAltNames: ['spiffe://cluster.local/ns/other/sa/other'] });
  expect(decideNear(VIP, echo, pod)).toEqual({
    kind: 'same-node',
    reason: 'both-on-this-node',
    to: POD,
    sourceIp: '10.244.1.9',
    expected: [
      parseIdentity('spiffe://cluster.local/ns/other/sa/other'),
      parseIdentity('spiffe://cluster.local/ns/default/sa/echo'),
    ],
    destinationWorkload: pod,
    service: echo,
  });
  expect(decideNear(POD, pod)).toMatchObject({ kind: 'same-node', to: POD });
});

test.each([
  ['the caller says so', { ...WEB, sameNode: 'tunnel' as const }, echoPod(), 'source-says-tunnel'],
  ['the destination says so', WEB, echoPod({ sameNode: 'tunnel' }), 'destination-says-tunnel'],
  [
    'the caller comes from an address that is not its own',
    { ...WEB, addresses: ['10.244.1.10'] },
    echoPod(),
    'source-address-not-its-own',
  ],
])('a tunnel it is when %s', (_, source, pod, notSameNode) => {
  const hop = decideNearFrom({ source, sourceIp: '10.244.1.9' }, POD, pod);
  expect(hop).toMatchObject({ kind: 'tunnel', reason: 'direct', notSameNode });
});

test('a tunnel it is when the pod is not served here, and none but the tunnel is spoken of from node to node', () => {
  const tables = tablesOf(WEB, echoPod());
  const asked = { tables, source: WEB, sourceIp: '10.244.1.9', destination: POD, network: '' };
  const near = decideNextHop({ ...asked, random: () => 0.5, servesPod: () => false });
  expect(near).toMatchObject({ kind: 'tunnel', notSameNode: 'destination-not-served-here' });
  expect(decideNear(POD, echoPod({ node: 'n2' }))).not.toHaveProperty('notSameNode');
  expect(decideNear(POD, echoPod({ nativeTunnel: true }))).toMatchObject({ kind: 'tunnel' });
});

test('nothing goes round a waypoint, or into a pod that is not in the mesh', () => {
  const resources = [echoPod(), waypointService, waypointPod];
  expect(decideNear(VIP, service(BOUND), ...resources)).toMatchObject({ reason: 'service-waypoint' });
  expect(decideNear(POD, echoPod(BOUND), waypointService, waypointPod)).toMatchObject({
    reason: 'workload-waypoint',
  });
  expect(decideNear(POD, echoPod({ tunnelProtocol: 'NONE' }))).toMatchObject({ kind: 'passthrough' });
});

test('the other family is called from the address that the caller has in it', () => {
  const dual = { ...WEB, addresses: ['10.244.1.9', 'fd00::9'] };
  const to = { ip: 'fd00::2', port: 8080 };
  const pod = echoPod({ addresses: ['fd00::2'] });
  expect(decideNearFrom({ source: dual, sourceIp: '10.244.1.9' }, to, pod)).toMatchObject({
    kind: 'same-node',
    sourceIp: 'fd00::9',
  });
  expect(decideNear(to, pod)).toMatchObject({ kind: 'tunnel', notSameNode: 'source-address-not-its-own' });
});

/** Any caller and destination, and what there may be between them. */
const situation = fc.record({
  source: fc.record({
    sameNode: fc.option(fc.constant('tunnel' as const), { nil: undefined }),
    isSpoofed: fc.boolean(),
  }),
  pod: fc.record({
    node: fc.constantFrom('n1', 'n2'),
    tunnelProtocol: fc.constantFrom('HBONE' as const, 'NONE' as const),
    nativeTunnel: fc.boolean(),
    sameNode: fc.option(fc.constant('tunnel' as const), { nil: undefined }),
    hasWaypoint: fc.boolean(),
    isHealthy: fc.boolean(),
  }),
  serviceHasWaypoint: fc.boolean(),
  isServed: fc.boolean(),
  to: fc.constantFrom(VIP, POD, { ip: '10.244.2.2', port: 15008 }),
});

test('a hop on the node is the tunnel that it stands for, and only where nobody is against it', () => {
  fc.assert(
    fc.property(situation, ({ source, pod: fields, serviceHasWaypoint, isServed, to }) => {
      const { hasWaypoint, isHealthy, sameNode, ...others } = fields;
      const pod = echoPod({
        ...others,
        ...(sameNode && { sameNode }),
        ...(hasWaypoint && BOUND),
        status: isHealthy ? 'HEALTHY' : 'UNHEALTHY',
      });
      const caller = source.sameNode === undefined ? WEB : { ...WEB, sameNode: source.sameNode };
      const sourceIp = source.isSpoofed ? '192.0.2.7' : '10.244.1.9';
      const tables = tablesOf(
        caller,
        pod,
        service(serviceHasWaypoint ? BOUND : {}),
        waypointService,
        waypointPod,
      );
      const asked = { tables, source: caller, sourceIp, destination: to, network: '', random: () => 0.5 };
      const far = decideNextHop(asked);
      const near = decideNextHop({ ...asked, servesPod: () => isServed });
      if (near.kind !== 'same-node') {
        const { notSameNode: _why, ...rest } = { notSameNode: undefined, ...near };
        expect(rest).toEqual(far);
        return;
      }
      expect(far).toMatchObject({
        kind: 'tunnel',
        reason: 'direct',
        authority: `${near.to.ip}:${near.to.port}`,
        expected: near.expected,
        destinationWorkload: near.destinationWorkload,
      });
      expect(far.kind === 'tunnel' && far.service).toBe(near.service);
      expect({ isServed, sameNode, own: source.sameNode, isSpoofed: source.isSpoofed }).toEqual({
        isServed: true,
        sameNode: undefined,
        own: undefined,
        isSpoofed: false,
      });
      expect(pod).toMatchObject({ node: 'n1', tunnelProtocol: 'HBONE', nativeTunnel: false });
    }),
  );
});
