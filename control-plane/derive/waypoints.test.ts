import { describe, expect, test } from 'vitest';
import { deriveText, objectYaml, podOf, podYaml, serviceOf } from '#test/kit/objects.ts';

const HBONE = 'listeners: [{name: mesh, port: 15008, protocol: HBONE';
const gateway = (name: string, rest = '', fields = '', status = ''): string =>
  objectYaml('Gateway', name, `{gatewayClassName: istio-waypoint, ${HBONE}${rest}}]}`, fields, status);
const ready = (name: string, fields = '', rest = ''): string => gateway(name, rest, fields, statusOf(name));
const statusOf = (name: string): string =>
  `{addresses: [{type: Hostname, value: ${name.split('/').reverse().join('.')}.svc.cluster.local}]}`;
const cart = (labels: string): string => objectYaml('Service', 'shop/cart', '{}', `labels: {${labels}}`);
const pod = (labels: string): string => podYaml('shop/p', '10.1.0.1', `labels: {${labels}}`);
const addressOf = (namespace: string, hostname: string) => ({
  destination: { kind: 'hostname', namespace, hostname },
  hboneMtlsPort: 15008,
});
const WP = addressOf('shop', 'wp.shop.svc.cluster.local');
const USE = 'istio.io/use-waypoint: wp';

describe('the waypoint of a Service', () => {
  test('is named by its label', () => {
    expect(serviceOf(deriveText(ready('shop/wp') + cart(USE)), 'shop/cart').waypoint).toEqual(WP);
  });

  test('is named by the label of its namespace, unless it says none', () => {
    const namespace = objectYaml('Namespace', 'shop', '', `labels: {${USE}}`);
    const other = objectYaml('Service', 'shop/other', '{}');
    const snapshot = deriveText(namespace + ready('shop/wp') + other + cart('istio.io/use-waypoint: none'));
    expect(serviceOf(snapshot, 'shop/other').waypoint).toEqual(WP);
    expect(serviceOf(snapshot, 'shop/cart').waypoint).toBeUndefined();
    expect(snapshot.problems).toEqual([]);
  });

  test.each(['istio-waypoint', 'tulle-waypoint'])('may be of class %s', (name) => {
    const text = ready('shop/wp').replace('istio-waypoint', name) + cart(USE);
    expect(serviceOf(deriveText(text), 'shop/cart').waypoint).toEqual(WP);
  });

  test('is known by its address when its status has no name', () => {
    const status = '{addresses: [{type: IPAddress, value: 10.97.0.5}]}';
    expect(
      serviceOf(deriveText(gateway('shop/wp', '', '', status) + cart(USE)), 'shop/cart').waypoint,
    ).toEqual({
      destination: { kind: 'address', network: '', ip: '10.97.0.5' },
      hboneMtlsPort: 15008,
    });
  });

  test('is sent all the same when nothing of that name exists, and that is said', () => {
    const snapshot = deriveText(cart(USE));
    expect(serviceOf(snapshot, 'shop/cart').waypoint).toEqual(WP);
    expect(snapshot.problems).toMatchObject([
      { object: 'Service shop/cart', path: 'metadata.labels["istio.io/use-waypoint"]', severity: 'warning' },
    ]);
  });

  test('that a namespace names and that does not exist is one problem, however many Services there are', () => {
    const namespace = objectYaml('Namespace', 'shop', '', `labels: {${USE}}`);
    const services = ['a', 'b', 'c'].map((name) => objectYaml('Service', `shop/${name}`, '{}')).join('');
    expect(deriveText(namespace + services).problems).toMatchObject([{ object: 'Namespace shop' }]);
  });

  test('is sent all the same when it is not ready, and that is said once, at the waypoint', () => {
    const other = objectYaml('Service', 'shop/other', '{}', `labels: {${USE}}`);
    const snapshot = deriveText(gateway('shop/wp') + cart(USE) + other);
    expect(serviceOf(snapshot, 'shop/cart').waypoint).toEqual(WP);
    expect(snapshot.problems).toMatchObject([{ object: 'Gateway shop/wp', severity: 'warning' }]);
  });

  test('is ready with a Service of its name and a healthy pod behind it', () => {
    const text =
      gateway('shop/wp') +
      objectYaml('Service', 'shop/wp', '{selector: {gateway.networking.k8s.io/gateway-name: wp}}') +
      pod('gateway.networking.k8s.io/gateway-name: wp') +
      cart(USE);
    expect(deriveText(text).problems).toEqual([]);
  });

  test('is none for a Service that is a part of a gateway', () => {
    const text = ready('shop/wp') + cart(`${USE}, gateway.istio.io/managed: istio.io-mesh-controller`);
    expect(serviceOf(deriveText(text), 'shop/cart').waypoint).toBeUndefined();
  });

  test.each(['workload', 'none'])('is none when it is for %s traffic, and that is said', (traffic) => {
    const snapshot = deriveText(ready('shop/wp', `labels: {istio.io/waypoint-for: ${traffic}}`) + cart(USE));
    expect(serviceOf(snapshot, 'shop/cart').waypoint).toBeUndefined();
    expect(snapshot.problems).toMatchObject([{ object: 'Service shop/cart', severity: 'warning' }]);
  });

  test('may be told by its class what it is for', () => {
    const gatewayClass = objectYaml(
      'GatewayClass',
      'istio-waypoint',
      '{controllerName: istio.io/mesh-controller}',
      'labels: {istio.io/waypoint-for: workload}',
    );
    const text = gatewayClass + ready('shop/wp');
    expect(serviceOf(deriveText(text + cart(USE)), 'shop/cart').waypoint).toBeUndefined();
    expect(podOf(deriveText(text + pod(USE)), 'shop/p').waypoint).toEqual(WP);
  });

  test('also takes ingress traffic when the Service or namespace says so', () => {
    const ingress = 'istio.io/ingress-use-waypoint: "true"';
    const of = (text: string) => serviceOf(deriveText(text), 'shop/cart').ingressUseWaypoint;
    expect(of(ready('shop/wp') + cart(`${USE}, ${ingress}`))).toBe(true);
    expect(of(ready('shop/wp') + cart(USE))).toBe(false);
    expect(
      of(objectYaml('Namespace', 'shop', '', `labels: {${ingress}}`) + ready('shop/wp') + cart(USE)),
    ).toBe(true);
    expect(of(cart(ingress))).toBe(false);
  });
});

describe('a waypoint of another namespace', () => {
  const use = `${USE}, istio.io/use-waypoint-namespace: infra`;
  const namespace = objectYaml('Namespace', 'shop', '', 'labels: {team: a}');
  const bound = addressOf('infra', 'wp.infra.svc.cluster.local');

  test.each([
    ['refuses, when its listener says nothing', '', undefined],
    ['refuses, when its listener says Same', ', allowedRoutes: {namespaces: {from: Same}}', undefined],
    ['takes, when its listener says All', ', allowedRoutes: {namespaces: {from: All}}', bound],
    [
      'takes, when its selector selects the namespace',
      ', allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}',
      bound,
    ],
    [
      'takes, when its selector names the namespace',
      ', allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}',
      bound,
    ],
    [
      'refuses, when its selector selects others',
      ', allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: b}}}}',
      undefined,
    ],
  ])('%s', (_, rest, waypoint) => {
    const snapshot = deriveText(namespace + ready('infra/wp', '', rest) + cart(use));
    expect(serviceOf(snapshot, 'shop/cart').waypoint).toEqual(waypoint);
    expect(snapshot.problems).toHaveLength(waypoint === undefined ? 1 : 0);
  });
});

describe('the waypoint of a workload', () => {
  const forAll = 'labels: {istio.io/waypoint-for: all}';
  const namespace = objectYaml('Namespace', 'shop', '', `labels: {${USE}}`);
  const waypointOf = (text: string) => podOf(deriveText(text), 'shop/p').waypoint;

  test('is named by its label or that of its namespace, if it is for workloads', () => {
    expect(waypointOf(ready('shop/wp', forAll) + pod(USE))).toEqual(WP);
    expect(waypointOf(namespace + ready('shop/wp', forAll) + pod('a: b'))).toEqual(WP);
  });

  test('is none when the namespace’s is for services: that is not wrong', () => {
    const snapshot = deriveText(namespace + ready('shop/wp') + pod('a: b'));
    expect(podOf(snapshot, 'shop/p').waypoint).toBeUndefined();
    expect(snapshot.problems).toEqual([]);
  });

  test('is none when its own is for services: that is said', () => {
    const snapshot = deriveText(ready('shop/wp') + pod(USE));
    expect(podOf(snapshot, 'shop/p').waypoint).toBeUndefined();
    expect(snapshot.problems).toMatchObject([{ object: 'Pod shop/p', severity: 'warning' }]);
  });

  test('is sent all the same when its own does not exist', () => {
    expect(waypointOf(pod(USE))).toEqual(WP);
    expect(waypointOf(namespace + pod('a: b'))).toBeUndefined();
  });

  test('is none for an instance of it, which may want its connections in another way', () => {
    const annotation = 'annotations: {ambient.istio.io/waypoint-inbound-binding: PROXY/15088}';
    const text = namespace + ready('shop/wp', `${forAll}, ${annotation}`);
    const instance = podOf(deriveText(text + pod('gateway.networking.k8s.io/gateway-name: wp')), 'shop/p');
    expect(instance.waypoint).toBeUndefined();
    expect(instance.applicationTunnel).toEqual({ protocol: 'PROXY', port: 15088 });
  });
});

describe('a canary waypoint', () => {
  const canary = 'istio.io/use-waypoint-canary: wp2';
  const weight = (value: string): string => `annotations: {istio.io/use-waypoint-canary-weight: "${value}"}`;
  const service = (labels: string, rest: string): string =>
    objectYaml('Service', 'shop/cart', '{}', `labels: {${labels}}, ${rest}`);
  const both = ready('shop/wp') + ready('shop/wp2');

  test('has its share of the connections', () => {
    expect(
      serviceOf(deriveText(both + service(`${USE}, ${canary}`, weight('20'))), 'shop/cart').weightedWaypoints,
    ).toEqual([
      { destination: WP, weight: 80 },
      { destination: addressOf('shop', 'wp2.shop.svc.cluster.local'), weight: 20 },
    ]);
  });

  test('is inherited from the namespace with the waypoint', () => {
    const namespace = objectYaml('Namespace', 'shop', '', `labels: {${USE}, ${canary}}, ${weight('5')}`);
    const { weightedWaypoints } = serviceOf(deriveText(namespace + both + cart('a: b')), 'shop/cart');
    expect(weightedWaypoints.map((share) => share.weight)).toEqual([95, 5]);
  });

  test.each([
    ['it does not exist', 'istio.io/use-waypoint-canary: gone', '20'],
    ['its weight is no share', canary, '120'],
    ['it is the waypoint itself', 'istio.io/use-waypoint-canary: wp', '20'],
  ])('has no share when %s, and that is said', (_, label, value) => {
    const snapshot = deriveText(both + service(`${USE}, ${label}`, weight(value)));
    expect(serviceOf(snapshot, 'shop/cart')).toMatchObject({ waypoint: WP, weightedWaypoints: [] });
    expect(snapshot.problems).toMatchObject([{ object: 'Service shop/cart', severity: 'warning' }]);
  });
});
