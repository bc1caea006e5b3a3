import { expect, test } from 'vitest';
import { deriveText, objectYaml } from '#test/kit/objects.ts';
import { PAY } from './testing.ts';

const entry = (spec: string, labels = ''): string =>
  objectYaml(
    'ServiceEntry',
    'pay/out',
    `{hosts: [out.example], ports: [{number: 80, name: http, protocol: HTTP}], ${spec}}`,
    labels,
  );

test.each([
  ['names to look up', 'resolution: DNS', 'spec.resolution'],
  ['where it was sent first', 'resolution: NONE, addresses: [192.0.2.1]', 'spec.resolution'],
  [
    'ranges',
    'resolution: STATIC, addresses: [192.0.2.0/24], endpoints: [{address: 192.0.2.9}]',
    'spec.addresses',
  ],
])('what a waypoint cannot serve is reported: %s', (_, spec, path) => {
  const { problems } = deriveText(PAY + entry(spec));
  expect(problems.filter(({ severity }) => severity === 'error')).toMatchObject([
    { object: 'ServiceEntry pay/out', path },
  ]);
});

test('and not of a ServiceEntry without a waypoint', () => {
  const { problems } = deriveText(PAY + entry('resolution: DNS', 'labels: {istio.io/use-waypoint: none}'));
  expect(problems.filter(({ severity }) => severity === 'error')).toEqual([]);
});

test.each([
  ['trafficDistribution: PreferSameZone', '', 'spec.trafficDistribution'],
  ['internalTrafficPolicy: Local', '', 'spec.internalTrafficPolicy'],
  [
    'type: ClusterIP',
    'annotations: {networking.istio.io/traffic-distribution: PreferClose}',
    'metadata.annotations["networking.istio.io/traffic-distribution"]',
  ],
])('that nothing near is preferred is a warning: %s %s', (spec, fields, path) => {
  const near = (waypoint: string): string =>
    objectYaml(
      'Service',
      'pay/near',
      `{clusterIP: 10.97.2.9, selector: {app: ledger}, ports: [{name: http, port: 80}], ${spec}}`,
      `labels: {istio.io/use-waypoint: ${waypoint}}${fields && `, ${fields}`}`,
    );
  const found = (text: string): unknown =>
    deriveText(PAY + text).problems.filter(({ object }) => object === 'Service pay/near');
  expect(found(near('wp'))).toMatchObject([
    { path, severity: 'warning', effect: 'what goes through the waypoint is spread over all endpoints' },
  ]);
  expect(found(near('none'))).toEqual([]);
});
