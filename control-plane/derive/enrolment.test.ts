import { describe, expect, test } from 'vitest';
import { deriveText, objectYaml, podYaml } from '#test/kit/objects.ts';

const MODE = 'istio.io/dataplane-mode';
const space = (mode: string): string =>
  objectYaml('Namespace', 'shop', '', mode && `labels: {${MODE}: ${mode}}`);
const enrolment = (text: string) => deriveText(text).enrolment.get('n1')?.[0];

describe('a pod is captured', () => {
  test.each([
    { when: 'its namespace says ambient', space: 'ambient', pod: '', enrol: true },
    { when: 'its namespace says nothing', space: '', pod: '', enrol: false },
    { when: 'its namespace says something else', space: 'sidecar', pod: '', enrol: false },
    { when: 'it says ambient', space: '', pod: `${MODE}: ambient`, enrol: true },
    { when: 'it says none', space: 'ambient', pod: `${MODE}: none`, enrol: false },
    {
      when: 'it is part of a gateway',
      space: 'ambient',
      pod: 'gateway.istio.io/managed: istio.io-mesh-controller',
      enrol: false,
    },
  ])('when $when: $enrol', (given) => {
    const pod = podYaml('shop/p', '10.1.0.1', given.pod && `labels: {${given.pod}}`);
    expect(enrolment(space(given.space) + pod)?.enrol).toBe(given.enrol);
  });

  test.each([
    ['in the network of its node', podYaml('shop/p', '10.1.0.1', '', 'hostNetwork: true')],
    ['with a sidecar', podYaml('shop/p', '10.1.0.1', 'annotations: {sidecar.istio.io/status: "{}"}')],
    [
      'of a waypoint',
      podYaml('shop/p', '10.1.0.1', 'labels: {gateway.networking.k8s.io/gateway-name: wp}') +
        objectYaml('Gateway', 'shop/wp', '{gatewayClassName: istio-waypoint, listeners: []}'),
    ],
  ])('never %s', (_, text) => {
    expect(enrolment(space('ambient') + text)?.enrol).toBe(false);
  });

  test('never after its end, when it is not listed at all', () => {
    const ended = podYaml('shop/p', '10.1.0.1').replace('Running', 'Failed');
    expect(deriveText(space('ambient') + ended).enrolment.size).toBe(0);
  });
});

describe('UDP of a pod', () => {
  const strict = objectYaml('PeerAuthentication', 'shop/default', '{mtls: {mode: STRICT}}');

  test.each([
    ['passes', '', '', 'allow'],
    ['is refused when plaintext is', strict, '', 'refuse'],
    ['passes when it says so by a label', strict, 'labels: {tulle.dev/udp: allow}', 'allow'],
    ['passes when it says so by an annotation', strict, 'annotations: {tulle.dev/udp: allow}', 'allow'],
  ])('%s', (_, text, fields, udp) => {
    expect(enrolment(space('ambient') + text + podYaml('shop/p', '10.1.0.1', fields))?.udp).toBe(udp);
  });
});

test('a pod is held to the mesh where plaintext is refused', () => {
  const strict = objectYaml('PeerAuthentication', 'shop/default', '{mtls: {mode: STRICT}}');
  const pod = podYaml('shop/p', '10.1.0.1');
  expect(enrolment(space('ambient') + pod)?.mode).toBe('permissive');
  expect(enrolment(space('ambient') + strict + pod)?.mode).toBe('strict');
});

test('every node has its pods, sorted, by their own uid or that of the workload', () => {
  const { enrolment: nodes } = deriveText(
    podYaml('shop/b', '10.1.0.2', 'uid: 0b-1', 'serviceAccountName: web') +
      podYaml('shop/a', '10.1.0.1') +
      podYaml('shop/c', '10.1.0.3').replace('n1', 'n2'),
  );
  expect([...nodes.keys()]).toEqual(['n1', 'n2']);
  expect(nodes.get('n1')).toEqual([
    {
      uid: 'Kubernetes//Pod/shop/a',
      name: 'a',
      namespace: 'shop',
      serviceAccount: 'default',
      udp: 'allow',
      mode: 'permissive',
      enrol: false,
    },
    {
      uid: '0b-1',
      name: 'b',
      namespace: 'shop',
      serviceAccount: 'web',
      udp: 'allow',
      mode: 'permissive',
      enrol: false,
    },
  ]);
});
