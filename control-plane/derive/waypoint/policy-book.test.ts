import { describe, expect, test } from 'vitest';
import { deriveText, objectYaml, podOf, policyOf } from '#test/kit/objects.ts';
import { ownMetadataOf, PAY, resourceJson, waypointOf } from './testing.ts';

const LISTENER = 'inbound-vip|80|http|ledger.pay.svc.cluster.local';
const SERVICE = '{kind: Service, group: "", name: ledger}';
const GATEWAY = '{kind: Gateway, group: gateway.networking.k8s.io, name: wp}';
const CLASS = '{kind: GatewayClass, group: gateway.networking.k8s.io, name: tulle-waypoint}';
const policy = (target: string, fields = 'rules: [{}]', name = 'pay/p', more = ''): string =>
  objectYaml('AuthorizationPolicy', name, `{targetRefs: [${target}], ${fields}}`, more);

describe('a policy is enforced at the listeners of what it is aimed at', () => {
  test.each([
    ['a service', SERVICE, 'pay/p'],
    ['a waypoint', GATEWAY, 'pay/p'],
    ['a class of waypoints, in the root namespace', CLASS, 'istio-system/p'],
  ])('%s', (_, target, name) => {
    const snapshot = deriveText(PAY + policy(target, 'rules: [{}]', name));
    const waypoint = waypointOf(snapshot);
    expect(ownMetadataOf(resourceJson(waypoint, 'listener', LISTENER))).toMatchObject({
      authorizations: [name],
    });
    expect(waypoint.authorizations).toEqual([name]);
    const [status] = snapshot.policies.filter(({ object }) => object === `AuthorizationPolicy ${name}`);
    expect(status).toMatchObject({ resource: name, nodes: [], waypoints: ['pay/wp'], ineffective: [] });
  });

  test('and named by no workload', () => {
    const snapshot = deriveText(PAY + policy(SERVICE));
    expect(podOf(snapshot, 'pay/ledger-1').authorizationPolicies).not.toContain('pay/p');
    expect(policyOf(snapshot, 'pay/p')?.scope).toBe('WORKLOAD_SELECTOR');
  });

  test.each([
    ['a class, from another namespace', CLASS],
    ['a service that is not there', '{kind: Service, group: "", name: none}'],
  ])('and nowhere else, which is said: %s', (_, target) => {
    const snapshot = deriveText(PAY + policy(target));
    expect(waypointOf(snapshot).authorizations).toEqual([]);
    const [status] = snapshot.policies.filter(({ object }) => object === 'AuthorizationPolicy pay/p');
    expect(status).toMatchObject({
      waypoints: [],
      ineffective: [{ reason: 'no waypoint enforces it: nothing that it is aimed at has one' }],
    });
  });
});

describe('what waypoints do not look at yet', () => {
  test('an ALLOW with it allows nothing', () => {
    const snapshot = deriveText(PAY + policy(SERVICE, 'rules: [{to: [{operation: {methods: [GET]}}]}]'));
    expect(policyOf(snapshot, 'pay/p')).toMatchObject({ action: 'ALLOW', rules: [] });
    expect(snapshot.policies).toMatchObject([
      { ineffective: [{ rule: 0, reason: expect.stringContaining('waypoints do not look at methods yet') }] },
    ]);
  });

  test('a DENY with it denies without regard to it', () => {
    const fields = 'action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]';
    const snapshot = deriveText(PAY + policy(SERVICE, fields));
    expect(policyOf(snapshot, 'pay/p')?.rules).toHaveLength(1);
  });
});

describe('what cannot be enforced at a waypoint makes it refuse', () => {
  const metadata = (more: string): unknown =>
    ownMetadataOf(resourceJson(waypointOf(deriveText(PAY + more)), 'listener', LISTENER));

  test('a policy with the action CUSTOM', () => {
    const custom = policy(SERVICE, 'action: CUSTOM, provider: {name: x}, rules: [{}]');
    expect(metadata(custom)).toMatchObject({ refuse: expect.stringContaining('AuthorizationPolicy pay/p') });
  });

  test('a RequestAuthentication, which is reported as well', () => {
    const tokens = objectYaml(
      'RequestAuthentication',
      'pay/jwt',
      `{targetRefs: [${GATEWAY}], jwtRules: [{issuer: a}]}`,
    );
    expect(metadata(tokens)).toMatchObject({
      refuse: expect.stringContaining('RequestAuthentication pay/jwt'),
    });
    const snapshot = deriveText(PAY + tokens);
    expect(snapshot.problems.filter(({ severity }) => severity === 'error')).toMatchObject([
      { object: 'RequestAuthentication pay/jwt', effect: 'everything that it is aimed at is refused' },
    ]);
    expect(snapshot.policies).toMatchObject([
      { object: 'RequestAuthentication pay/jwt', waypoints: ['pay/wp'] },
    ]);
  });

  test('but not one that is only tried out, or marks', () => {
    expect(metadata(policy(SERVICE, 'action: AUDIT, rules: [{}]'))).not.toHaveProperty('refuse');
    const dry = policy(
      SERVICE,
      'action: DENY, rules: [{}]',
      'pay/p',
      'annotations: {istio.io/dry-run: "true"}',
    );
    expect(metadata(dry)).not.toHaveProperty('authorizations');
  });
});

test('workloads behind a waypoint have listeners of their own, with what is aimed at the waypoint', () => {
  const pods = objectYaml(
    'Gateway',
    'pay/pods',
    '{gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}',
    'labels: {istio.io/waypoint-for: workload}',
  );
  const bound = PAY.replaceAll('labels: {app: ledger}', 'labels: {app: ledger, istio.io/use-waypoint: pods}');
  const waypoint = waypointOf(
    deriveText(bound + pods + policy(GATEWAY.replace('name: wp', 'name: pods'))),
    'pay/pods',
  );
  expect(ownMetadataOf(resourceJson(waypoint, 'listener', 'inbound-pod||auto|10.1.2.21'))).toEqual({
    service: 'Kubernetes//Pod/pay/ledger-1',
    addresses: ['10.1.2.21'],
    port: 0,
    authorizations: ['pay/p'],
  });
  expect(resourceJson(waypoint, 'endpoints', 'inbound-pod||10.1.2.22')).toMatchObject({
    endpoints: [
      { lbEndpoints: [{ endpoint: { address: { socketAddress: { address: '10.1.2.22', portValue: 0 } } } }] },
    ],
  });
  expect(waypoint.serves).toEqual([]);
});
