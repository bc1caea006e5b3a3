import { expect, test } from 'vitest';
import { parseIdentity } from '#certs/identity.ts';
import { gateway, policy, rule, service, tablesOf, workload } from '#test/kit/resources.ts';
import { decideCaller } from './caller.ts';
import { CALLER_HEADER } from './hbone/headers.ts';
import { authorize } from './policy/authorize.ts';

const WAYPOINT = parseIdentity('spiffe://cluster.local/ns/default/sa/waypoint');
const WEB = parseIdentity('spiffe://cluster.local/ns/default/sa/web');
const WAYPOINT_IP = '10.244.1.9';
const HOST = 'waypoint.default.svc.cluster.local';

const instance = workload({
  name: 'waypoint-0',
  addresses: [WAYPOINT_IP],
  serviceAccount: 'waypoint',
  tunnelProtocol: 'NONE',
  services: { [`default/${HOST}`]: { 15008: 15008 } },
});
const waypointService = service({
  name: 'waypoint',
  hostname: HOST,
  addresses: [{ network: '', ip: '10.96.1.9' }],
});
const behindService = workload({ services: { 'default/echo.default.svc.cluster.local': { 80: 8080 } } });
const bound = service({ waypoint: gateway(HOST) });

function decide(options: {
  readonly peer?: typeof WAYPOINT;
  readonly peerIp?: string;
  readonly claims?: readonly string[];
  readonly known?: ReturnType<typeof tablesOf>;
  readonly destination?: typeof behindService;
}): ReturnType<typeof decideCaller> {
  return decideCaller({
    tables: options.known ?? tablesOf(instance, waypointService, behindService, bound),
    workload: options.destination ?? behindService,
    peer: options.peer ?? WAYPOINT,
    peerIp: options.peerIp ?? WAYPOINT_IP,
    network: '',
    fields: (options.claims ?? ['spiffe://cluster.local/ns/default/sa/web']).map((claim) => [
      CALLER_HEADER,
      claim,
    ]),
  });
}

test('a waypoint of a service that the workload is behind speaks for its caller', () => {
  expect(decide({})).toEqual({ kind: 'via-waypoint', identity: WEB, waypoint: WAYPOINT });
});

test('a waypoint of the workload itself speaks for its caller', () => {
  const own = workload({ waypoint: gateway(HOST) });
  expect(decide({ known: tablesOf(instance, waypointService, own), destination: own }).kind).toBe(
    'via-waypoint',
  );
});

test('a waypoint that is not ready any more still speaks for the requests it has in flight', () => {
  const draining = { ...instance, status: 'UNHEALTHY' as const };
  expect(decide({ known: tablesOf(draining, waypointService, behindService, bound) }).kind).toBe(
    'via-waypoint',
  );
});

test('a canary waypoint speaks, too', () => {
  const weighted = service({ weightedWaypoints: [{ destination: gateway(HOST), weight: 1 }] });
  expect(decide({ known: tablesOf(instance, waypointService, behindService, weighted) }).kind).toBe(
    'via-waypoint',
  );
});

test.each([
  [
    'another workload, which forges the header',
    { peer: parseIdentity('spiffe://cluster.local/ns/default/sa/mallory'), peerIp: '10.244.1.66' },
  ],
  [
    'another workload at the address of the waypoint',
    { peer: parseIdentity('spiffe://cluster.local/ns/default/sa/mallory') },
  ],
  [
    'the waypoint of the same name in another namespace',
    { peer: parseIdentity('spiffe://cluster.local/ns/other/sa/waypoint') },
  ],
  [
    'a waypoint of the same name in another trust domain',
    { peer: parseIdentity('spiffe://evil.example/ns/default/sa/waypoint') },
  ],
  [
    'a waypoint that is bound to something else',
    { known: tablesOf(instance, waypointService, behindService, service({})) },
  ],
  [
    'the waypoint of a service of another namespace that lists the workload',
    {
      known: tablesOf(
        instance,
        waypointService,
        workload({ services: { 'evil/echo.evil.svc.cluster.local': { 80: 8080 } } }),
        service({ namespace: 'evil', hostname: 'echo.evil.svc.cluster.local', waypoint: gateway(HOST) }),
      ),
      destination: workload({ services: { 'evil/echo.evil.svc.cluster.local': { 80: 8080 } } }),
    },
  ],
])('the header counts for nothing from %s', (_who, options) => {
  const outcome = decide(options);
  expect(outcome).toEqual({ kind: 'peer', identity: 'peer' in options ? options.peer : WAYPOINT });
});

test.each([
  ['no SPIFFE ID', ['web']],
  ['an empty value', ['']],
  ['two of them', ['spiffe://cluster.local/ns/default/sa/web', 'spiffe://cluster.local/ns/default/sa/admin']],
  ['an identity of another trust domain', ['spiffe://evil.example/ns/default/sa/web']],
])('a waypoint that says %s is refused', (_what, claims) => {
  expect(decide({ claims }).kind).toBe('refused');
});

test('a waypoint that names nobody calls for itself', () => {
  expect(decide({ claims: [] })).toEqual({ kind: 'peer', identity: WAYPOINT });
});

test('policies match the caller, and those that require the waypoint match who connects', () => {
  const connection = {
    sourceIp: WAYPOINT_IP,
    destinationIp: '10.244.1.2',
    destinationPort: 8080,
  };
  const requires = policy({
    name: 'tulle_require_waypoint_default_waypoint',
    action: 'DENY',
    rules: [rule({ notPrincipals: [{ kind: 'exact', value: 'cluster.local/ns/default/sa/waypoint' }] })],
  });
  const allowsWeb = policy({
    name: 'web',
    rules: [rule({ principals: [{ kind: 'exact', value: 'cluster.local/ns/default/sa/web' }] })],
  });
  const known = tablesOf(behindService, requires, allowsWeb);
  const ask = (who: { sourceIdentity: typeof WEB; waypointIdentity?: typeof WEB }): string =>
    authorize({
      tables: known,
      workload: behindService,
      connection: { ...connection, ...who },
      missingPolicy: 'deny',
    }).kind;
  expect(ask({ sourceIdentity: WEB, waypointIdentity: WAYPOINT })).toBe('allow');
  expect(ask({ sourceIdentity: WEB })).toBe('deny');
  expect(ask({ sourceIdentity: WAYPOINT })).toBe('deny');
  expect(
    ask({
      sourceIdentity: parseIdentity('spiffe://cluster.local/ns/default/sa/other'),
      waypointIdentity: WAYPOINT,
    }),
  ).toBe('deny');
});
