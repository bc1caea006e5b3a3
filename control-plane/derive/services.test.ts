import { describe, expect, test } from 'vitest';
import { deriveText, namesOf, objectYaml, podOf, podYaml, serviceOf } from '#test/kit/objects.ts';

const service = (spec: string, fields = ''): string => objectYaml('Service', 'shop/cart', spec, fields);
const cart = (spec: string, fields = '') => serviceOf(deriveText(service(spec, fields)), 'shop/cart');

describe('the ports of a Service', () => {
  test.each([
    ['by its name', '{name: http-web, port: 80}', 80, 'HTTP11'],
    ['by its name in capitals', '{name: HTTP2, port: 80}', 80, 'HTTP2'],
    ['by appProtocol before its name', '{name: http, port: 80, appProtocol: tcp}', 80, 'TCP'],
    ['by Kubernetes’ own appProtocols', '{name: x, port: 80, appProtocol: kubernetes.io/h2c}', 80, 'HTTP2'],
    ['for WebSocket', '{name: x, port: 80, appProtocol: kubernetes.io/wss}', 80, 'TLS'],
    ['for HTTPS', '{name: https, port: 443}', 443, 'TLS'],
    ['for gRPC-Web, which has no value', '{name: grpc-web, port: 80}', 80, 'UNKNOWN'],
    ['for a name without meaning', '{name: web, port: 80}', 80, 'UNKNOWN'],
    ['for a server that speaks first', '{name: db, port: 3306}', 3306, 'TCP'],
    ['for a server that speaks first and is named so', '{name: mysql, port: 3306}', 3306, 'UNKNOWN'],
    ['for UDP', '{name: http, port: 53, protocol: UDP}', 53, 'UNKNOWN'],
  ])('have a protocol %s', (_, port, servicePort, appProtocol) => {
    expect(cart(`{ports: [${port}]}`).ports).toEqual([{ servicePort, targetPort: servicePort, appProtocol }]);
  });

  test('go to the target port, or to 0 if that is a name', () => {
    const { ports } = cart(
      '{ports: [{name: a, port: 1, targetPort: 8080}, {name: b, port: 2, targetPort: web}]}',
    );
    expect(ports.map(({ targetPort }) => targetPort)).toEqual([8080, 0]);
  });
});

describe('the addresses of a Service', () => {
  test.each([
    ['both families if they are ours', '{}', ['10.96.1.0', 'fd00:10:96::100'], 'DUAL'],
    ['the family that is asked for', '{ipFamilies: [IPv6]}', ['fd00:10:96::100'], 'IPV6_ONLY'],
    ['what is written', '{clusterIP: 10.97.0.9}', ['10.97.0.9'], 'IPV4_ONLY'],
    [
      'all that is written',
      '{clusterIP: 10.97.0.9, clusterIPs: [10.97.0.9, "fd01::9"]}',
      ['10.97.0.9', 'fd01::9'],
      'DUAL',
    ],
    ['none if it is headless', '{clusterIP: None, ipFamilies: [IPv4, IPv6]}', [], 'DUAL'],
  ])('are %s', (_, spec, addresses, ipFamilies) => {
    const derived = cart(spec);
    expect(derived.addresses.map(({ ip }) => ip)).toEqual(addresses);
    expect(derived.ipFamilies).toBe(ipFamilies);
  });

  test('a headless Service beside cluster IPs has the family that the cluster would write', () => {
    const db = objectYaml('Service', 'shop/db', '{clusterIP: None}');
    expect(serviceOf(deriveText(db), 'shop/db').ipFamilies).toBe('DUAL');
    expect(serviceOf(deriveText(db + service('{clusterIP: 10.97.0.9}')), 'shop/db').ipFamilies).toBe(
      'IPV4_ONLY',
    );
  });

  test('are on the network that the root namespace names', () => {
    const root = objectYaml('Namespace', 'istio-system', '', 'labels: {topology.istio.io/network: east}');
    const snapshot = deriveText(root + service('{selector: {app: cart}}') + podYaml('shop/p', '10.1.0.1'));
    expect(serviceOf(snapshot, 'shop/cart').addresses[0]?.network).toBe('east');
    expect(podOf(snapshot, 'shop/p').network).toBe('east');
  });
});

describe('how endpoints are chosen', () => {
  const ZONE = ['NETWORK', 'REGION', 'ZONE'];
  const NODE = [...ZONE, 'SUBZONE', 'NODE'];
  const annotation = (value: string): string =>
    `annotations: {networking.istio.io/traffic-distribution: ${value}}`;

  test.each([
    ['nothing is said', '{}', '', undefined],
    ['trafficDistribution is PreferClose', '{trafficDistribution: PreferClose}', '', ZONE],
    ['trafficDistribution is PreferSameNode', '{trafficDistribution: PreferSameNode}', '', NODE],
    ['the annotation says so, in any case', '{}', annotation('prefersamezone'), ZONE],
    [
      'the field is stronger than the annotation',
      '{trafficDistribution: PreferSameNode}',
      annotation('PreferClose'),
      NODE,
    ],
    ['the annotation is unknown', '{}', annotation('Nowhere'), undefined],
  ])('when %s', (_, spec, fields, routingPreference) => {
    expect(cart(spec, fields).loadBalancing).toEqual(
      routingPreference && { routingPreference, mode: 'FAILOVER', healthPolicy: 'ONLY_HEALTHY' },
    );
  });

  test('the namespace says it for all its services that do not', () => {
    const namespace = objectYaml('Namespace', 'shop', '', annotation('PreferClose'));
    const other = objectYaml('Service', 'shop/other', '{}', annotation('PreferSameNode'));
    const snapshot = deriveText(namespace + service('{}') + other);
    expect(serviceOf(snapshot, 'shop/cart').loadBalancing?.routingPreference).toEqual(ZONE);
    expect(serviceOf(snapshot, 'shop/other').loadBalancing?.routingPreference).toEqual(NODE);
  });

  test('internalTrafficPolicy Local keeps traffic on the node, whatever else is said', () => {
    const spec =
      '{internalTrafficPolicy: Local, trafficDistribution: PreferClose, publishNotReadyAddresses: true}';
    expect(cart(spec).loadBalancing).toEqual({
      routingPreference: ['NODE'],
      mode: 'STRICT',
      healthPolicy: 'ALLOW_ALL',
    });
  });

  test('publishNotReadyAddresses alone changes health only', () => {
    expect(cart('{publishNotReadyAddresses: true}').loadBalancing).toEqual({
      routingPreference: [],
      mode: 'UNSPECIFIED',
      healthPolicy: 'ALLOW_ALL',
    });
  });
});

test('an ExternalName is not served, and that is said', () => {
  const snapshot = deriveText(service('{type: ExternalName, externalName: example.com}'));
  expect(namesOf(snapshot)).toEqual([]);
  expect(snapshot.problems).toMatchObject([
    { object: 'Service shop/cart', path: 'spec.type', severity: 'warning' },
  ]);
});
