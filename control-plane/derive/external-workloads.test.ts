import { describe, expect, test } from 'vitest';
import { deriveText, namesOf, objectYaml, podYaml, serviceOf, workloadOf } from '#test/kit/objects.ts';

const WORKLOAD_ENTRY = 'Kubernetes/networking.istio.io/WorkloadEntry/shop/vm';
const entryUid = (name: string, address: string): string =>
  `Kubernetes/networking.istio.io/ServiceEntry/shop/${name}/${address}`;

describe('a WorkloadEntry', () => {
  const entry = (spec: string, fields = ''): string => objectYaml('WorkloadEntry', 'shop/vm', spec, fields);
  const vm = (spec: string, fields = '') => workloadOf(deriveText(entry(spec, fields)), WORKLOAD_ENTRY);

  test('is a workload, without node or default account', () => {
    const spec = '{address: 192.0.2.1, serviceAccount: vm, weight: 5, locality: r/z, network: east}';
    expect(vm(spec)).toMatchObject({
      name: 'vm',
      addresses: ['192.0.2.1'],
      hostname: '',
      serviceAccount: 'vm',
      capacity: 5,
      locality: { region: 'r', zone: 'z', subzone: '' },
      network: 'east',
      node: '',
      status: 'HEALTHY',
      workloadName: 'vm',
      tunnelProtocol: 'NONE',
    });
    expect(vm('{address: 192.0.2.1}')).toMatchObject({ serviceAccount: '', capacity: 1 });
  });

  test('may be known by a name only', () => {
    expect(vm('{address: vm.example}')).toMatchObject({ addresses: [], hostname: 'vm.example' });
  });

  test('has labels in two places, those of its metadata winning', () => {
    const derived = vm('{address: 192.0.2.1, labels: {app: a, version: v1}}', 'labels: {app: b}');
    expect(derived).toMatchObject({ canonicalName: 'b', canonicalRevision: 'v1' });
  });

  test('belongs to Services and ServiceEntries, with its own ports by name', () => {
    const service = objectYaml(
      'Service',
      'shop/s',
      '{selector: {app: vm}, ports: [{name: a, port: 1, targetPort: 10}, {name: b, port: 2, targetPort: named}, {name: c, port: 3, targetPort: missing}]}',
    );
    const se = objectYaml(
      'ServiceEntry',
      'shop/se',
      '{hosts: [se.example], resolution: STATIC, ports: [{number: 4, name: a, protocol: TCP}, {number: 5, name: z, protocol: TCP}], workloadSelector: {labels: {app: vm}}}',
    );
    const text =
      entry('{address: 192.0.2.1, labels: {app: vm}, ports: {a: 1000, named: 2000}}') + service + se;
    expect([...workloadOf(deriveText(text), WORKLOAD_ENTRY).services]).toEqual([
      [
        'shop/s.shop.svc.cluster.local',
        [
          { servicePort: 1, targetPort: 1000 },
          { servicePort: 2, targetPort: 2000 },
        ],
      ],
      [
        'shop/se.example',
        [
          { servicePort: 4, targetPort: 1000 },
          { servicePort: 5, targetPort: 5 },
        ],
      ],
    ]);
  });

  test('is called after its group when it registered itself', () => {
    expect(
      vm('{address: 192.0.2.1}', 'annotations: {istio.io/autoRegistrationGroup: fleet}').workloadName,
    ).toBe('fleet');
  });
});

describe('endpoints of a ServiceEntry', () => {
  const derive = (spec: string, fields = '') =>
    deriveText(objectYaml('ServiceEntry', 'shop/e', spec, fields));
  const PORTS = 'ports: [{number: 80, name: http, protocol: HTTP}]';

  test('are workloads of all its hosts', () => {
    const snapshot = derive(
      `{hosts: [a.example, b.example], resolution: STATIC, ${PORTS}, endpoints: [{address: 192.0.2.1, ports: {http: 8080}, locality: r/z/s, weight: 2, serviceAccount: x}]}`,
    );
    const workload = workloadOf(snapshot, entryUid('e', '192.0.2.1'));
    expect(workload).toMatchObject({ name: 'e', addresses: ['192.0.2.1'], capacity: 2, serviceAccount: 'x' });
    expect([...workload.services]).toEqual([
      ['shop/a.example', [{ servicePort: 80, targetPort: 8080 }]],
      ['shop/b.example', [{ servicePort: 80, targetPort: 8080 }]],
    ]);
  });

  test('are its hosts, one each, when it has none and names are resolved', () => {
    const snapshot = derive(`{hosts: [a.example, b.example], resolution: DNS, ${PORTS}}`);
    const workload = workloadOf(snapshot, entryUid('e', 'b.example'));
    expect(workload).toMatchObject({ hostname: 'b.example', addresses: [] });
    expect([...workload.services.keys()]).toEqual(['shop/b.example']);
  });

  test.each(['NONE', 'STATIC'])('do not exist with resolution %s when none are written', (resolution) => {
    expect(namesOf(derive(`{hosts: [a.example], resolution: ${resolution}, ${PORTS}}`))).toEqual([
      'shop/a.example',
    ]);
  });

  test('go with labels of the ServiceEntry, not of the endpoint', () => {
    const snapshot = derive(
      `{hosts: [a.example], resolution: STATIC, ${PORTS}, endpoints: [{address: 192.0.2.1, labels: {app: endpoint}}]}`,
      'labels: {app: entry}',
    );
    expect(workloadOf(snapshot, entryUid('e', '192.0.2.1')).canonicalName).toBe('entry');
  });

  test('with one address count once, and the second is reported', () => {
    const snapshot = derive(
      `{hosts: [a.example], resolution: STATIC, ${PORTS}, endpoints: [{address: 192.0.2.1}, {address: 192.0.2.1, weight: 9}]}`,
    );
    expect(workloadOf(snapshot, entryUid('e', '192.0.2.1')).capacity).toBe(1);
    expect(snapshot.problems).toMatchObject([{ path: 'spec.endpoints[1]', severity: 'error' }]);
  });
});

describe('endpoints of an EndpointSlice', () => {
  const slice = (rest: string, labels = 'kubernetes.io/service-name: s'): string =>
    `apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, namespace: shop, labels: {${labels}}}\n${rest}\n---\n`;
  const service = objectYaml(
    'Service',
    'shop/s',
    '{ports: [{name: http, port: 80, targetPort: 8080}, {name: x, port: 81}]}',
  );
  const two = `addressType: IPv4
endpoints: [{addresses: [192.0.2.1]}, {addresses: [192.0.2.2], conditions: {ready: false}}]
ports: [{name: http, port: 9000}, {name: other, port: 1}]`;

  test('that are no pods are workloads of which only the address is known', () => {
    const snapshot = deriveText(service + slice(two));
    const uid = 'Kubernetes/discovery.k8s.io/EndpointSlice/shop/s-1/192.0.2.';
    expect(workloadOf(snapshot, `${uid}1`)).toMatchObject({
      name: 's-1',
      networkMode: 'HOST_NETWORK',
      status: 'HEALTHY',
      canonicalName: '',
      workloadType: 'DEPLOYMENT',
      authorizationPolicies: [],
    });
    expect([...workloadOf(snapshot, `${uid}1`).services]).toEqual([
      ['shop/s.shop.svc.cluster.local', [{ servicePort: 80, targetPort: 9000 }]],
    ]);
    expect(workloadOf(snapshot, `${uid}2`).status).toBe('UNHEALTHY');
  });

  test.each([
    ['its Service does not exist', slice(two)],
    ['it names no Service', service + slice(two, 'x: y')],
    ['it holds names', service + slice('addressType: FQDN\nendpoints: [{addresses: [a.example]}]')],
  ])('are left out when %s', (_, text) => {
    expect(namesOf(deriveText(text)).filter((name) => name.includes('EndpointSlice'))).toEqual([]);
  });

  test('that are pods are left to the pods', () => {
    const text = slice(
      'addressType: IPv4\nendpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: gone, namespace: shop}}]\nports: [{name: http, port: 9000}]',
    );
    expect(namesOf(deriveText(service + text + podYaml('shop/p', '10.1.0.1')))).toEqual([
      'Kubernetes//Pod/shop/p',
      'shop/s.shop.svc.cluster.local',
    ]);
  });
});

test('a ServiceEntry whose hosts all belong to others has no endpoints', () => {
  const spec = '{hosts: [a.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}';
  const snapshot = deriveText(
    objectYaml('ServiceEntry', 'shop/old', spec, 'creationTimestamp: "2026-01-01T00:00:00Z"') +
      objectYaml('ServiceEntry', 'shop/new', spec, 'creationTimestamp: "2026-02-01T00:00:00Z"'),
  );
  expect(namesOf(snapshot)).toEqual([entryUid('old', 'a.example'), 'shop/a.example']);
  expect(serviceOf(snapshot, 'shop/a.example').name).toBe('old');
});
