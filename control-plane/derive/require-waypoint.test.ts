import { describe, expect, test } from 'vitest';
import type { Authorization } from '#api/policy.ts';
import { AUTHORIZATION_TYPE } from '#api/resource.ts';
import { deriveText, objectYaml, podOf, podYaml } from '#test/kit/objects.ts';
import type { Snapshot } from './snapshot.ts';

const gateway = (name = 'shop/wp', className = 'tulle-waypoint'): string =>
  objectYaml(
    'Gateway',
    name,
    `{gatewayClassName: ${className}, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}`,
  );
const namespace = (labels = ''): string =>
  objectYaml('Namespace', 'shop', '', `labels: {istio.io/use-waypoint: wp${labels}}`);
const cart = (fields = '', name = 'shop/cart', port = 8080): string =>
  objectYaml(
    'Service',
    name,
    `{selector: {app: cart}, ports: [{name: http, port: 80, targetPort: ${port}}]}`,
    fields,
  );
const pod = podYaml('shop/cart-1', '10.1.0.1', 'labels: {app: cart}');
const REQUIRE = 'tulle.dev/require-waypoint';
const aimedAt = (target: string, more = '', where = 'shop/p'): string =>
  objectYaml(
    'AuthorizationPolicy',
    where,
    `{targetRefs: [${target}], rules: [{to: [{operation: {methods: [GET]}}]}]}`,
    more,
  );
const AT_CART = '{group: "", kind: Service, name: cart}';

const WP = 'cluster.local/ns/shop/sa/wp';

function required(snapshot: Snapshot): readonly Authorization[] {
  return [...(snapshot.resources.get(AUTHORIZATION_TYPE)?.values() ?? [])].flatMap(({ resource }) =>
    resource.kind === 'authorization' && resource.name.startsWith('tulle_require_waypoint_')
      ? [resource]
      : [],
  );
}

/** Who may connect to which ports: one entry a rule. */
function openTo(snapshot: Snapshot): unknown {
  return required(snapshot).flatMap(({ rules }) =>
    rules.map(({ clauses }) => {
      const [who, where] = clauses.map(({ matches }) => matches[0]);
      return [
        who?.notPrincipals.map((match) => ('value' in match ? match.value : '*')),
        where?.destinationPorts,
      ];
    }),
  );
}

const base = namespace() + gateway() + pod;

describe('a waypoint is required', () => {
  test.each([
    ['by a label of the service', cart(`labels: {${REQUIRE}: "true"}`)],
    ['by an annotation of the service', cart(`annotations: {${REQUIRE}: "true"}`)],
    ['by a policy that is aimed at the service', cart() + aimedAt(AT_CART)],
    [
      'by a policy that is aimed at its waypoint',
      cart() + aimedAt('{group: gateway.networking.k8s.io, kind: Gateway, name: wp}'),
    ],
    [
      "by a policy of the root namespace that is aimed at the waypoint's class",
      cart() +
        aimedAt(
          '{group: gateway.networking.k8s.io, kind: GatewayClass, name: tulle-waypoint}',
          '',
          'istio-system/p',
        ),
    ],
    [
      'by a RequestAuthentication',
      cart() +
        objectYaml('RequestAuthentication', 'shop/j', `{targetRefs: [${AT_CART}], jwtRules: [{issuer: a}]}`),
    ],
    ['by what is no truth value', cart(`labels: {${REQUIRE}: "yes"}`)],
  ])('%s', (_how, text) => {
    const snapshot = deriveText(base + text);
    expect(openTo(snapshot)).toEqual([[[WP], [8080]]]);
    expect(required(snapshot)).toMatchObject([
      {
        namespace: 'shop',
        name: 'tulle_require_waypoint_shop_wp_8080',
        scope: 'WORKLOAD_SELECTOR',
        action: 'DENY',
      },
    ]);
    expect(podOf(snapshot, 'shop/cart-1').authorizationPolicies).toContain(
      'shop/tulle_require_waypoint_shop_wp_8080',
    );
  });

  test('by the namespace, for all of its services', () => {
    const text = namespace(`, ${REQUIRE}: "true"`) + gateway() + pod + cart() + cart('', 'shop/other', 9090);
    expect(openTo(deriveText(text))).toEqual([[[WP], [8080, 9090]]]);
  });

  test('before the waypoint is there', () => {
    const text = namespace() + pod + cart(`labels: {${REQUIRE}: "true"}`);
    expect(openTo(deriveText(text))).toEqual([[[WP], [8080]]]);
  });

  test('whatever identity its instances run under', () => {
    const instance = podYaml(
      'shop/wp-0',
      '10.1.0.9',
      'labels: {gateway.networking.k8s.io/gateway-name: wp}',
    ).replace('serviceAccountName: default', 'serviceAccountName: proxy');
    const own = objectYaml(
      'Service',
      'shop/wp',
      '{selector: {gateway.networking.k8s.io/gateway-name: wp}, ports: [{name: mesh, port: 15008}]}',
      'labels: {gateway.istio.io/managed: istio.io-mesh-controller}',
    );
    const [[principals]] = openTo(
      deriveText(base + instance + own + cart(`labels: {${REQUIRE}: "true"}`)),
    ) as [[string[]]];
    expect(principals).toContain(WP);
    expect(principals).toHaveLength(2);
  });

  test('on all ports where one is known by its name only', () => {
    const named = cart(`labels: {${REQUIRE}: "true"}`).replace('targetPort: 8080', 'targetPort: web');
    expect(openTo(deriveText(base + named))).toEqual([[[WP], undefined]]);
  });

  test('with either of two waypoints where two services share a port', () => {
    const second = objectYaml(
      'Service',
      'shop/second',
      '{selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}, {name: b, port: 81, targetPort: 8081}]}',
      `labels: {istio.io/use-waypoint: other, ${REQUIRE}: "true"}`,
    );
    const text = base + gateway('shop/other') + cart(`labels: {${REQUIRE}: "true"}`) + second;
    expect(openTo(deriveText(text))).toEqual([
      [['cluster.local/ns/shop/sa/other', WP], [8080]],
      [['cluster.local/ns/shop/sa/other'], [8081]],
    ]);
  });
});

describe('the name of a guard says what it means, whatever else there is', () => {
  const service = (name: string, ports: readonly number[], app: string): string =>
    objectYaml(
      'Service',
      `shop/${name}`,
      `{selector: {app: ${app}}, ports: [${ports.map((port) => `{name: p${port}, port: ${port}}`).join(', ')}]}`,
      `labels: {${REQUIRE}: "true"}`,
    );
  const workload = (app: string, ip: string): string => podYaml(`shop/${app}-1`, ip, `labels: {app: ${app}}`);
  const guardOf = (snapshot: Snapshot, name: string): string | undefined =>
    podOf(snapshot, `shop/${name}-1`).authorizationPolicies[0];

  test('with the ports', () => {
    const a = service('a', [8080], 'a') + workload('a', '10.1.0.5');
    const b = service('b', [9090, 8080], 'b') + workload('b', '10.1.0.2');
    const alone = deriveText(base + a);
    const both = deriveText(base + b + a);
    expect([alone, both].map((one) => guardOf(one, 'a'))).toEqual(
      Array(2).fill('shop/tulle_require_waypoint_shop_wp_8080'),
    );
    expect(guardOf(both, 'b')).toBe('shop/tulle_require_waypoint_shop_wp_8080_9090');
  });

  test('without ports where all are guarded', () => {
    const named = service('a', [80], 'a').replace('port: 80', 'port: 80, targetPort: web');
    const snapshot = deriveText(base + named + workload('a', '10.1.0.5'));
    expect(guardOf(snapshot, 'a')).toBe('shop/tulle_require_waypoint_shop_wp');
  });

  test('shortened where it would be long', () => {
    const ports = Array.from({ length: 30 }, (_, index) => 10_000 + index);
    const text = base + service('a', ports, 'a') + workload('a', '10.1.0.5');
    const [first, again] = [guardOf(deriveText(text), 'a'), guardOf(deriveText(text + cart()), 'a')];
    expect(first).toMatch(/^shop\/tulle_require_waypoint_[0-9a-f]{16}$/);
    expect(again).toBe(first);
  });
});

describe('a workload with a waypoint of its own', () => {
  const forAll = gateway().replace('name: wp,', 'name: wp, labels: {istio.io/waypoint-for: all},');
  const atGateway = aimedAt('{group: gateway.networking.k8s.io, kind: Gateway, name: wp}');
  const anywhere = [[[WP], undefined]];

  test.each([
    ['by a policy that is aimed at its waypoint', namespace() + forAll + pod + atGateway],
    ['by its namespace', namespace(`, ${REQUIRE}: "true"`) + forAll + pod],
    ['by itself', namespace() + forAll + pod.replace('app: cart', `app: cart, ${REQUIRE}: "true"`)],
    [
      'before the waypoint is there',
      namespace() + atGateway + pod.replace('app: cart', 'istio.io/use-waypoint: wp'),
    ],
  ])('is guarded at all ports %s', (_how, text) => {
    expect(openTo(deriveText(text))).toEqual(anywhere);
  });

  test('is open to the waypoints of its services as well', () => {
    const other = gateway('shop/other') + cart('labels: {istio.io/use-waypoint: other}');
    expect(openTo(deriveText(namespace() + forAll + pod + atGateway + other))).toEqual([
      [['cluster.local/ns/shop/sa/other', WP], undefined],
    ]);
  });

  test.each([
    ['nothing is said', namespace() + forAll + pod],
    ['it says so itself', namespace() + forAll + atGateway + pod.replace('app: cart', `${REQUIRE}: "false"`)],
    ['the waypoint is for services', base + atGateway],
  ])('is not guarded when %s', (_when, text) => {
    expect(required(deriveText(text))).toEqual([]);
  });
});

test('a Service of another namespace that lists a pod does not cut it off', () => {
  const foreign =
    gateway('evil/wp') +
    objectYaml(
      'Service',
      'evil/trap',
      '{clusterIP: 10.96.0.7, ports: [{name: http, port: 80, targetPort: 8080}]}',
      `labels: {istio.io/use-waypoint: wp, ${REQUIRE}: "true"}`,
    ) +
    `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: trap, namespace: evil, labels: {kubernetes.io/service-name: trap}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: cart-1, namespace: shop}}]
`;
  const snapshot = deriveText(base + cart() + foreign);
  expect([...podOf(snapshot, 'shop/cart-1').services.keys()]).toContain('evil/trap.evil.svc.cluster.local');
  expect(required(snapshot)).toEqual([]);
});

test('a Service that is called like a gateway of another kind is guarded', () => {
  const ingress = objectYaml(
    'Gateway',
    'shop/cart',
    '{gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}',
    '',
    '{addresses: [{type: IPAddress, value: 10.9.9.9}]}',
  );
  expect(openTo(deriveText(base + ingress + cart() + aimedAt(AT_CART)))).toEqual([[[WP], [8080]]]);
});

test('of a headless Service it is said that nobody reaches it any more', () => {
  const headless = cart().replace('{selector', '{clusterIP: None, selector');
  const { problems } = deriveText(base + headless + aimedAt(AT_CART));
  expect(problems.map(({ object, effect }) => `${object}: ${effect}`)).toContain(
    'Service shop/cart: connections to it are refused',
  );
});

describe('a waypoint that is known by its address', () => {
  const at = (ip: string): string =>
    namespace() +
    pod +
    cart(`labels: {${REQUIRE}: "true"}`) +
    gateway('shop/wp', 'other')
      .trimEnd()
      .replace(/\n---$/, `\nstatus: {addresses: [{type: IPAddress, value: ${ip}}]}\n---\n`) +
    podYaml('shop/proxy', '10.1.0.9', 'labels: {app: proxy}', 'serviceAccountName: proxy') +
    objectYaml(
      'Service',
      'shop/proxy',
      '{clusterIP: 10.96.0.9, selector: {app: proxy}, ports: [{port: 15008}]}',
    );
  const PROXY = 'cluster.local/ns/shop/sa/proxy';

  test.each([
    ['that of a Service', '10.96.0.9', PROXY],
    ['that of a pod', '10.1.0.9', PROXY],
    ['that of nobody', '10.1.0.77', 'nobody'],
  ])('comes under the identity behind it: %s', (_whose, ip, principal) => {
    expect(openTo(deriveText(at(ip)))).toEqual([[[principal], [8080]]]);
  });
});

describe('a waypoint is not required', () => {
  test.each([
    ['of a service that nothing is said about', cart()],
    [
      'when the service says so, whatever is aimed at it',
      cart(`labels: {${REQUIRE}: "false"}`) + aimedAt(AT_CART),
    ],
    ['by a policy for another service', cart() + aimedAt('{group: "", kind: Service, name: other}')],
    ['by a policy of another namespace', cart() + aimedAt(AT_CART, '', 'pay/p')],
    [
      'by a policy that audits only',
      cart() + aimedAt(AT_CART).replace('{targetRefs', '{action: AUDIT, targetRefs'),
    ],
    ['by a policy in dry run', cart() + aimedAt(AT_CART, 'annotations: {istio.io/dry-run: "true"}')],
    [
      'of a service that has none, and that is said where it asks for it',
      cart(`labels: {istio.io/use-waypoint: none, ${REQUIRE}: "true"}`),
    ],
  ])('%s', (_when, text) => {
    const snapshot = deriveText(base + text);
    expect(required(snapshot)).toEqual([]);
    const said = snapshot.problems.some(({ message }) => message.includes('no waypoint is bound'));
    expect(said).toBe(text.includes('use-waypoint: none'));
  });

  test('when the namespace says so', () => {
    const text = namespace(`, ${REQUIRE}: "false"`) + gateway() + pod + cart() + aimedAt(AT_CART);
    expect(required(deriveText(text))).toEqual([]);
  });
});

test('workloads that are guarded in the same way share a policy', () => {
  const second = podYaml('shop/cart-2', '10.1.0.2', 'labels: {app: cart}');
  expect(required(deriveText(base + second + cart(`labels: {${REQUIRE}: "true"}`)))).toHaveLength(1);
});
