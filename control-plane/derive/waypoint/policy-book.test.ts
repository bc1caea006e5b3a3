import { describe, expect, test } from 'vitest';
import { deriveText, objectYaml, podOf, policyOf } from '#test/kit/objects.ts';
import type { Problem } from '../../source/objects.ts';
import type { Snapshot } from '../snapshot.ts';
import { ownMetadataOf, PAY, resourceJson, waypointOf } from './testing.ts';

const LISTENER = 'inbound-vip|80|http|ledger.pay.svc.cluster.local';
const SERVICE = '{kind: Service, group: "", name: ledger}';
const GATEWAY = '{kind: Gateway, group: gateway.networking.k8s.io, name: wp}';
const CLASS = '{kind: GatewayClass, group: gateway.networking.k8s.io, name: tulle-waypoint}';
const policy = (target: string, fields = 'rules: [{}]', name = 'pay/p', more = ''): string =>
  objectYaml('AuthorizationPolicy', name, `{targetRefs: [${target}], ${fields}}`, more);

const errorsOf = ({ problems }: Snapshot): readonly Problem[] =>
  problems.filter(({ severity }) => severity === 'error');

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
    ['istio-waypoint', 'tulle-waypoint'],
    ['tulle-waypoint', 'istio-waypoint'],
  ])('a class of waypoints by the other of its names: a policy for %s, a Gateway of %s', (name, gateway) => {
    const target = CLASS.replace('tulle-waypoint', name);
    const text = PAY.replace('gatewayClassName: tulle-waypoint', `gatewayClassName: ${gateway}`);
    const snapshot = deriveText(text + policy(target, 'rules: [{}]', 'istio-system/p'));
    expect(waypointOf(snapshot).authorizations).toEqual(['istio-system/p']);
    expect(podOf(snapshot, 'pay/ledger-2').authorizationPolicies).toContain(
      'pay/tulle_require_waypoint_pay_wp_8080',
    );
  });
});

describe('what no waypoint enforces is said aloud', () => {
  const bare = PAY.replace(', labels: {istio.io/use-waypoint: wp}', '');
  const away = PAY.replace('use-waypoint: wp', 'use-waypoint: gone');
  const remedy = 'label it, or its namespace, with istio.io/use-waypoint';
  const open = { severity: 'error', effect: 'it is not enforced there' };
  const harmless = { severity: 'warning', effect: 'there is nothing to enforce it at' };
  test.each([
    ['a service without a waypoint', bare, SERVICE, `Service pay/ledger has no waypoint; ${remedy}`, open],
    [
      'a service that is not there',
      PAY,
      '{kind: Service, group: "", name: none}',
      'there is no Service pay/none with endpoints of its own',
      open,
    ],
    [
      'a Gateway that is not there',
      PAY,
      GATEWAY.replace('name: wp', 'name: x'),
      'there is no Gateway pay/x',
      open,
    ],
    [
      'a class, from another namespace',
      PAY,
      CLASS,
      'a policy for a GatewayClass has to be in the namespace istio-system',
      open,
    ],
    ['a waypoint of nothing', bare, GATEWAY, 'nothing is bound to Gateway pay/wp', harmless],
    [
      'a service whose waypoint is not there',
      away,
      SERVICE,
      'there is no waypoint pay/gone, to which Service pay/ledger is bound',
      harmless,
    ],
  ])('%s', (_, objects, target, message, expected) => {
    const snapshot = deriveText(objects + policy(target));
    const [status] = snapshot.policies.filter(({ object }) => object === 'AuthorizationPolicy pay/p');
    expect(status).toMatchObject({ waypoints: [], ineffective: [{ reason: message }] });
    expect(snapshot.problems.filter(({ object }) => object === 'AuthorizationPolicy pay/p')).toMatchObject([
      { path: 'spec.targetRefs[0]', message, ...expected, position: { file: 'mesh.yaml' } },
    ]);
  });

  test('also of a policy that another of its targets makes effective', () => {
    const snapshot = deriveText(PAY + policy(`${SERVICE}, {kind: Service, group: "", name: none}`));
    expect(snapshot.policies).toMatchObject([
      { waypoints: ['pay/wp'], ineffective: [{ reason: expect.stringContaining('Service pay/none') }] },
    ]);
    expect(errorsOf(snapshot)).toMatchObject([{ path: 'spec.targetRefs[1]' }]);
  });

  test('also of a RequestAuthentication', () => {
    const tokens = objectYaml('RequestAuthentication', 'pay/jwt', `{targetRefs: [${SERVICE}]}`);
    expect(deriveText(bare + tokens).problems).toContainEqual(
      expect.objectContaining({ object: 'RequestAuthentication pay/jwt', path: 'spec.targetRefs[0]' }),
    );
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
    expect(errorsOf(snapshot)).toMatchObject([
      { object: 'RequestAuthentication pay/jwt', effect: 'everything that it is aimed at is refused' },
    ]);
    expect(snapshot.policies).toMatchObject([
      { object: 'RequestAuthentication pay/jwt', waypoints: ['pay/wp'] },
    ]);
  });

  test('a RequestAuthentication that cannot be read, where it is seen to be aimed at', () => {
    const foreign = '{kind: Service, group: "", name: a, namespace: shop}';
    const tokens = objectYaml(
      'RequestAuthentication',
      'pay/jwt',
      `{targetRefs: [${foreign}, ${SERVICE}], jwtRules: 1}`,
    );
    const snapshot = deriveText(PAY + tokens);
    expect(metadata(tokens)).toMatchObject({ authorizations: ['pay/jwt'] });
    expect(policyOf(snapshot, 'pay/jwt')).toMatchObject({ action: 'DENY', rules: [{ clauses: [] }] });
    expect(podOf(snapshot, 'pay/ledger-2').authorizationPolicies).toEqual([
      'pay/tulle_require_waypoint_pay_wp_8080',
    ]);
    expect(snapshot.problems).toContainEqual(
      expect.objectContaining({ path: 'spec.jwtRules', effect: 'denies what it selects' }),
    );
  });

  test('but none that is aimed at nothing, as those are for nobody', () => {
    const tokens = objectYaml('RequestAuthentication', 'pay/jwt', '{jwtRules: 1}');
    expect(metadata(tokens)).not.toHaveProperty('authorizations');
    expect(errorsOf(deriveText(PAY + tokens))).toMatchObject([{ effect: 'ignored' }]);
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
