import { describe, expect, test } from 'vitest';
import { deriveText, namesOf, objectYaml, serviceOf } from '#test/kit/objects.ts';

const PORTS = 'ports: [{number: 80, name: http, protocol: HTTP}]';
const entry = (spec: string, fields = '', status = ''): string =>
  objectYaml('ServiceEntry', 'shop/e', `{hosts: [a.example], ${PORTS}, ${spec}}`, fields, status);
const derive = (spec: string, fields = '', status = '') =>
  serviceOf(deriveText(entry(spec, fields, status)), 'shop/a.example');
const ips = (spec: string, fields = '', status = ''): readonly string[] =>
  derive(spec, fields, status).addresses.map(({ ip }) => ip);

describe('the addresses of a ServiceEntry', () => {
  test.each([
    ['are what is written', 'resolution: STATIC, addresses: [1.2.3.4, "fd00::1"]', ['1.2.3.4', 'fd00::1']],
    ['are automatic when names are resolved', 'resolution: DNS', ['240.240.0.1', '2001:2::1']],
    ['are automatic with written endpoints, too', 'resolution: STATIC', ['240.240.0.1', '2001:2::1']],
    ['are none with resolution NONE', 'resolution: NONE', []],
  ])('%s', (_, spec, addresses) => {
    expect(ips(spec)).toEqual(addresses);
  });

  test('keep the length of a CIDR, whose host bits are cleared', () => {
    const { addresses } = derive('resolution: NONE, addresses: [10.0.0.5/22, 1.2.3.4/32, "fd00::99/64"]');
    expect(addresses).toEqual([
      { network: '', ip: '10.0.0.0', length: 22 },
      { network: '', ip: '1.2.3.4' },
      { network: '', ip: 'fd00::', length: 64 },
    ]);
  });

  test('are those of its status, which a cluster has given out', () => {
    const status =
      '{addresses: [{host: a.example, value: 240.240.7.7}, {host: b.example, value: 240.240.7.8}, {host: a.example, value: "2001:2::77"}]}';
    expect(ips('resolution: DNS', '', status)).toEqual(['240.240.7.7', '2001:2::77']);
  });

  test('are none when it opts out by its label', () => {
    expect(ips('resolution: DNS', 'labels: {networking.istio.io/enable-autoallocate-ip: "false"}')).toEqual(
      [],
    );
  });

  test('are one pair for each host, none for a wildcard that is not resolved on demand', () => {
    const spec = (resolution: string): string =>
      `{hosts: ["*.w.example", b.example, c.example], ${PORTS}, resolution: ${resolution}}`;
    const addressesOf = (resolution: string): unknown => {
      const snapshot = deriveText(objectYaml('ServiceEntry', 'shop/e', spec(resolution)));
      return ['*.w.example', 'b.example', 'c.example'].map(
        (host) => serviceOf(snapshot, `shop/${host}`).addresses[0]?.ip,
      );
    };
    expect(addressesOf('DNS')).toEqual([undefined, '240.240.0.1', '240.240.0.2']);
    expect(addressesOf('DYNAMIC_DNS')).toEqual(['240.240.0.1', '240.240.0.2', '240.240.0.3']);
  });
});

describe('a ServiceEntry', () => {
  test('with resolution NONE lets traffic go where it was sent', () => {
    expect(
      derive('resolution: NONE', 'annotations: {networking.istio.io/traffic-distribution: PreferClose}'),
    ).toMatchObject({
      loadBalancing: { routingPreference: [], mode: 'PASSTHROUGH', healthPolicy: 'ALLOW_ALL' },
    });
  });

  test('prefers near endpoints when its annotation or namespace says so', () => {
    const annotation = 'annotations: {networking.istio.io/traffic-distribution: PreferSameZone}';
    const expected = { routingPreference: ['NETWORK', 'REGION', 'ZONE'], mode: 'FAILOVER' };
    expect(derive('resolution: DNS', annotation).loadBalancing).toMatchObject(expected);
    const namespace = objectYaml('Namespace', 'shop', '', annotation);
    const inherited = serviceOf(deriveText(namespace + entry('resolution: DNS')), 'shop/a.example');
    expect(inherited.loadBalancing).toMatchObject(expected);
  });

  test('has target ports, protocols and subject names', () => {
    const spec =
      '{hosts: [a.example], resolution: STATIC, subjectAltNames: [spiffe://x/ns/a/sa/b], ports: [{number: 80, name: a, protocol: http2, targetPort: 8080}, {number: 81, name: b, protocol: MONGO}, {number: 443, name: c, protocol: HTTPS}]}';
    expect(serviceOf(deriveText(objectYaml('ServiceEntry', 'shop/e', spec)), 'shop/a.example')).toMatchObject(
      {
        name: 'e',
        namespace: 'shop',
        canonical: true,
        ipFamilies: 'AUTOMATIC',
        subjectAltNames: ['spiffe://x/ns/a/sa/b'],
        ports: [
          { servicePort: 80, targetPort: 8080, appProtocol: 'HTTP2' },
          { servicePort: 81, targetPort: 81, appProtocol: 'UNKNOWN' },
          { servicePort: 443, targetPort: 443, appProtocol: 'TLS' },
        ],
      },
    );
  });

  test('is seen everywhere, whatever exportTo says, and that is said', () => {
    const snapshot = deriveText(entry('resolution: DNS, exportTo: ["."]'));
    expect(serviceOf(snapshot, 'shop/a.example').visibility).toBe('PUBLIC');
    expect(snapshot.problems).toMatchObject([{ path: 'spec.exportTo', severity: 'warning' }]);
  });
});

describe('two with one host', () => {
  const named = (object: string, created = ''): string =>
    objectYaml(
      'ServiceEntry',
      object,
      `{hosts: [a.example], ${PORTS}, resolution: NONE}`,
      created && `creationTimestamp: "${created}"`,
    );

  test('in one namespace: the older holds, the other is left out, both are named', () => {
    const snapshot = deriveText(
      named('shop/b', '2026-02-01T00:00:00Z') + named('shop/z', '2026-01-01T00:00:00Z'),
    );
    expect(serviceOf(snapshot, 'shop/a.example').name).toBe('z');
    expect(snapshot.problems).toMatchObject([
      {
        object: 'ServiceEntry shop/b',
        severity: 'error',
        message:
          'ServiceEntry shop/b (mesh.yaml:1:1) has the host a.example, and so has ServiceEntry shop/z (mesh.yaml:7:1) in the same namespace; rename one',
      },
    ]);
  });

  test('in one namespace, of unknown age: the first by name holds', () => {
    expect(serviceOf(deriveText(named('shop/z') + named('shop/b')), 'shop/a.example').name).toBe('b');
  });

  test('in two namespaces: both hold, the older for clients of third namespaces', () => {
    const snapshot = deriveText(
      named('one/e', '2026-02-01T00:00:00Z') + named('two/e', '2026-01-01T00:00:00Z'),
    );
    expect(serviceOf(snapshot, 'one/a.example').canonical).toBe(false);
    expect(serviceOf(snapshot, 'two/a.example').canonical).toBe(true);
    expect(snapshot.problems).toMatchObject([{ object: 'ServiceEntry one/e', severity: 'warning' }]);
  });

  test('a Kubernetes Service wins over ServiceEntries, however old', () => {
    const host = 'cart.shop.svc.cluster.local';
    const spec = `{hosts: [${host}], ${PORTS}, resolution: NONE}`;
    const old = 'creationTimestamp: "2020-01-01T00:00:00Z"';
    const snapshot = deriveText(
      objectYaml('ServiceEntry', 'shop/e', spec, old) +
        objectYaml('ServiceEntry', 'other/e', spec, old) +
        objectYaml(
          'Service',
          'shop/cart',
          '{ports: [{name: http, port: 80}]}',
          'creationTimestamp: "2026-01-01T00:00:00Z"',
        ),
    );
    expect(namesOf(snapshot)).toEqual([`other/${host}`, `shop/${host}`]);
    expect(serviceOf(snapshot, `shop/${host}`)).toMatchObject({ name: 'cart', canonical: true });
    expect(serviceOf(snapshot, `other/${host}`).canonical).toBe(false);
  });
});

test('two services with one address are both served, and both named', () => {
  const snapshot = deriveText(
    objectYaml('Service', 'shop/a', '{clusterIP: 10.97.0.1}') +
      objectYaml(
        'ServiceEntry',
        'shop/e',
        `{hosts: [a.example, b.example], ${PORTS}, addresses: [10.97.0.1], resolution: NONE}`,
      ),
  );
  expect(namesOf(snapshot)).toHaveLength(3);
  expect(snapshot.problems).toMatchObject([
    {
      object: 'ServiceEntry shop/e',
      path: 'spec.addresses',
      severity: 'error',
      message: expect.stringContaining('Service shop/a (mesh.yaml:1:1)'),
    },
  ]);
});
