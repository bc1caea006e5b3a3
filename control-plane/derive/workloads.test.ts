import { describe, expect, test } from 'vitest';
import { deriveText, namesOf, objectYaml, podOf, podYaml } from '#test/kit/objects.ts';

const pod = (fields: string, spec = '') =>
  podOf(deriveText(podYaml('shop/p', '10.1.0.1', fields, spec)), 'shop/p');

describe('the name of what made a pod', () => {
  const owner = (kind: string, name: string): string =>
    `generateName: x-, ownerReferences: [{apiVersion: v1, kind: ${kind}, name: ${name}, controller: true}]`;

  test.each([
    ['its own, when nothing made it', '', 'p'],
    [
      'its own, when its name was not generated',
      owner('ReplicaSet', 'web-1').replace('generateName: x-, ', ''),
      'p',
    ],
    [
      'the Deployment’s, by the template hash',
      `${owner('ReplicaSet', 'web-6d4')}, labels: {pod-template-hash: 6d4}`,
      'web',
    ],
    [
      'the ReplicaSet’s, when the hash is another',
      `${owner('ReplicaSet', 'web-6d4')}, labels: {pod-template-hash: "777"}`,
      'web-6d4',
    ],
    ['the Rollout’s', `${owner('ReplicaSet', 'web-6d4')}, labels: {rollouts-pod-template-hash: 6d4}`, 'web'],
    [
      'the DeploymentConfig’s',
      `${owner('ReplicationController', 'web-3')}, labels: {deploymentconfig: web}`,
      'web',
    ],
    ['the CronJob’s', owner('Job', 'backup-28371940'), 'backup'],
    ['the Job’s', owner('Job', 'migrate-7'), 'migrate-7'],
    ['the StatefulSet’s', owner('StatefulSet', 'db'), 'db'],
    [
      'that of its label',
      `${owner('Job', 'backup-28371940')}, labels: {service.istio.io/workload-name: chosen}`,
      'chosen',
    ],
  ])('is %s', (_, fields, workloadName) => {
    expect(pod(fields)).toMatchObject({ workloadName, workloadType: 'POD', canonicalName: workloadName });
  });

  test.each([
    ['app: a, version: v1', 'a', 'v1'],
    ['app: a, app.kubernetes.io/name: b, version: v1, app.kubernetes.io/version: v2', 'b', 'v2'],
    ['app: a, service.istio.io/canonical-name: c, service.istio.io/canonical-revision: v3', 'c', 'v3'],
    ['x: y', 'p', 'latest'],
  ])('labels {%s} make it %s at %s', (labels, canonicalName, canonicalRevision) => {
    expect(pod(`labels: {${labels}}`)).toMatchObject({ canonicalName, canonicalRevision });
  });
});

describe('a pod', () => {
  test('that has ended or has no address is no workload', () => {
    const ended = podYaml('shop/ended', '10.1.0.1').replace('Running', 'Succeeded');
    const failed = podYaml('shop/failed', '10.1.0.2').replace('Running', 'Failed');
    const starting = podYaml('shop/starting', '10.1.0.3').replace('podIP: 10.1.0.3, ', '');
    expect(namesOf(deriveText(ended + failed + starting))).toEqual([]);
  });

  test('that waits for its init containers is a workload, not healthy', () => {
    const pending = podYaml('shop/p', '10.1.0.1').replace('Running', 'Pending').replace('"True"', '"False"');
    expect(podOf(deriveText(pending), 'shop/p').status).toBe('UNHEALTHY');
  });

  test('that is being deleted is not healthy', () => {
    expect(pod('deletionTimestamp: "2026-01-01T00:00:00Z"').status).toBe('UNHEALTHY');
  });

  test('has all its addresses, of both families', () => {
    const dual = podYaml('shop/p', '10.1.0.1').replace(
      'podIP:',
      'podIPs: [{ip: 10.1.0.1}, {ip: "fd00::1"}], podIP:',
    );
    expect(podOf(deriveText(dual), 'shop/p').addresses).toEqual(['10.1.0.1', 'fd00::1']);
  });

  test('in the network of its node is marked', () => {
    expect(pod('', 'hostNetwork: true').networkMode).toBe('HOST_NETWORK');
  });

  test('has the account default when it names none', () => {
    expect(pod('').serviceAccount).toBe('default');
    expect(pod('', 'serviceAccountName: web').serviceAccount).toBe('web');
  });

  test.each([
    ['NONE when nothing captures it', '', 'NONE', false],
    [
      'HBONE when the node agent captures it',
      'annotations: {ambient.istio.io/redirection: enabled}',
      'HBONE',
      false,
    ],
    [
      'NONE while the node agent is at it',
      'annotations: {ambient.istio.io/redirection: pending}',
      'NONE',
      false,
    ],
    ['HBONE when it speaks it itself', 'labels: {networking.istio.io/tunnel: http}', 'HBONE', true],
  ])('is reached by %s', (_, fields, tunnelProtocol, nativeTunnel) => {
    expect(pod(fields)).toMatchObject({ tunnelProtocol, nativeTunnel });
  });

  test('is where its node is', () => {
    const labels =
      'topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s';
    const node = objectYaml('Node', 'n1', '', `labels: {${labels}}`);
    const snapshot = deriveText(node + podYaml('shop/p', '10.1.0.1'));
    expect(podOf(snapshot, 'shop/p').locality).toEqual({ region: 'r', zone: 'z', subzone: 's' });
    expect(pod('').locality).toEqual({ region: '', zone: '', subzone: '' });
  });

  test('belongs to the trust domain of the mesh', () => {
    const mesh = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: "trustDomain: corp.example"}\n---\n`;
    expect(podOf(deriveText(mesh + podYaml('shop/p', '10.1.0.1')), 'shop/p').trustDomain).toBe(
      'corp.example',
    );
  });
});

describe('a pod belongs to', () => {
  const ports =
    'containers: [{ports: [{containerPort: 9000, name: web}, {containerPort: 9001, name: udp, protocol: UDP}]}]';
  const web = podYaml('shop/p', '10.1.0.1', 'labels: {app: web, v: "1"}', ports);
  const services = (text: string) => podOf(deriveText(web + text), 'shop/p').services;

  test('the Services of its namespace that select it, sorted', () => {
    const text =
      objectYaml(
        'Service',
        'shop/z',
        '{selector: {app: web}, ports: [{name: a, port: 80, targetPort: 8080}]}',
      ) +
      objectYaml('Service', 'shop/a', '{selector: {app: web, v: "1"}, ports: [{name: a, port: 81}]}') +
      objectYaml('Service', 'shop/v2', '{selector: {app: web, v: "2"}, ports: [{name: a, port: 82}]}') +
      objectYaml('Service', 'shop/all', '{ports: [{name: a, port: 83}]}') +
      objectYaml('Service', 'other/web', '{selector: {app: web}, ports: [{name: a, port: 84}]}');
    expect([...services(text)]).toEqual([
      ['shop/a.shop.svc.cluster.local', [{ servicePort: 81, targetPort: 81 }]],
      ['shop/z.shop.svc.cluster.local', [{ servicePort: 80, targetPort: 8080 }]],
    ]);
  });

  test('a Service with named ports, of which it leaves out those that it does not have', () => {
    const spec =
      '{selector: {app: web}, ports: [{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: none}, {name: c, port: 82, targetPort: udp}]}';
    expect(services(objectYaml('Service', 'shop/s', spec)).get('shop/s.shop.svc.cluster.local')).toEqual([
      { servicePort: 80, targetPort: 9000 },
    ]);
  });

  test('a Service without a selector whose EndpointSlice names it', () => {
    const slice = `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-1, namespace: shop, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: p, namespace: shop}}]
ports: [{name: a, port: 7777}]
---
`;
    const snapshot = deriveText(
      web + slice + objectYaml('Service', 'shop/s', '{ports: [{name: a, port: 80}]}'),
    );
    expect([...podOf(snapshot, 'shop/p').services]).toEqual([
      ['shop/s.shop.svc.cluster.local', [{ servicePort: 80, targetPort: 80 }]],
    ]);
    expect(namesOf(snapshot)).toEqual(['Kubernetes//Pod/shop/p', 'shop/s.shop.svc.cluster.local']);
  });

  test('a ServiceEntry that selects it, with the container ports of the same names', () => {
    const spec =
      '{hosts: [s.example], resolution: STATIC, ports: [{number: 80, name: web, protocol: HTTP, targetPort: 1}, {number: 81, name: other, protocol: TCP}], workloadSelector: {labels: {app: web}}}';
    expect(services(objectYaml('ServiceEntry', 'shop/s', spec)).get('shop/s.example')).toEqual([
      { servicePort: 80, targetPort: 9000 },
      { servicePort: 81, targetPort: 81 },
    ]);
  });
});
