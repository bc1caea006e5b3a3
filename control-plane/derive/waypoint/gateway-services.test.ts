import { describe, expect, test } from 'vitest';
import { deriveText, objectYaml, serviceOf } from '#test/kit/objects.ts';

const GATEWAY = '{gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]';
const REF = 'infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: size}}';

describe('the Service of a waypoint', () => {
  test('is made where none is written, with an address, for its pods', () => {
    const snapshot = deriveText(objectYaml('Gateway', 'pay/wp', `${GATEWAY}}`));
    const { addresses, ports } = serviceOf(snapshot, 'pay/wp');
    expect(addresses.map(({ ip }) => ip)).toEqual(['10.96.1.0', 'fd00:10:96::100']);
    expect(ports.map(({ servicePort, targetPort }) => [servicePort, targetPort])).toEqual([
      [15021, 15021],
      [15008, 15008],
    ]);
  });

  test('stays as it is written', () => {
    const written = objectYaml(
      'Service',
      'pay/wp',
      '{clusterIP: 10.97.2.9, ports: [{name: mesh, port: 15008}]}',
    );
    const snapshot = deriveText(objectYaml('Gateway', 'pay/wp', `${GATEWAY}}`) + written);
    expect(serviceOf(snapshot, 'pay/wp').addresses.map(({ ip }) => ip)).toEqual(['10.97.2.9']);
  });

  test.each([
    ['of another class', GATEWAY.replace('tulle-waypoint', 'other'), ''],
    ['that has an address already', GATEWAY, '{addresses: [{type: IPAddress, value: 10.0.0.9}]}'],
  ])('is not made for a Gateway %s', (_, spec, status) => {
    const snapshot = deriveText(objectYaml('Gateway', 'pay/wp', `${spec}}`, '', status));
    expect(() => serviceOf(snapshot, 'pay/wp')).toThrow('no service');
  });
});

describe('how often a waypoint is to run', () => {
  const wantedOf = (deployment: string | undefined, spec = `${GATEWAY}, ${REF}}`) => {
    const data = deployment === undefined ? '' : `data: {deployment: ${JSON.stringify(deployment)}}`;
    const size = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: size, namespace: pay}\n${data}\n---\n`;
    return deriveText(objectYaml('Gateway', 'pay/wp', spec) + (deployment === 'none' ? '' : size));
  };

  test.each([
    ['spec: {replicas: 3}', 3],
    ['spec: {replicas: 0}', 0],
    ['spec: {template: {}}', 1],
    [undefined, 1],
  ])('is what its parameters say: %s', (deployment, replicas) => {
    const snapshot = wantedOf(deployment);
    expect(snapshot.problems).toEqual([]);
    expect(snapshot.wantedWaypoints).toEqual([
      { namespace: 'pay', name: 'wp', serviceAccount: 'wp', replicas },
    ]);
  });

  test.each([
    ['spec: {replicas: many}', 'key deployment: spec.replicas has to be a whole number'],
    ['spec: [', 'key deployment: not YAML'],
    ['none', 'there is no ConfigMap pay/size'],
  ])('is once where they are wrong, and that is said: %s', (deployment, message) => {
    const snapshot = wantedOf(deployment);
    expect(snapshot.wantedWaypoints.map(({ replicas }) => replicas)).toEqual([1]);
    expect(snapshot.problems).toMatchObject([
      {
        object: 'Gateway pay/wp',
        path: 'spec.infrastructure.parametersRef',
        message: expect.stringContaining(message),
        effect: 'one replica runs',
      },
    ]);
  });

  test('is not at all for a Gateway of another class', () => {
    const snapshot = deriveText(objectYaml('Gateway', 'pay/gw', '{gatewayClassName: other, listeners: []}'));
    expect(snapshot.wantedWaypoints).toEqual([]);
  });
});
