import { describe, expect, test } from 'vitest';
import { deriveText, objectsOf } from '#test/kit/objects.ts';
import { DEFAULT_SETTINGS } from './settings.ts';
import { deriveSnapshot } from './snapshot.ts';
import { NO_VIPS } from './vips.ts';

const configMap = (mesh: string, name = 'istio', namespace = 'istio-system'): string =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, namespace: ${namespace}}\ndata:\n  mesh: |\n${mesh
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n')}\n`;
const read = (mesh: string) => deriveText(configMap(mesh));

/** Each line is ten of the line before. */
const BILLION = Array.from({ length: 8 }, (_, depth) =>
  depth === 0
    ? 'a0: &a0 x'
    : `a${depth}: &a${depth} [${Array(10)
        .fill(`*a${depth - 1}`)
        .join(', ')}]`,
).join('\n');

test('without a ConfigMap of that name and namespace the defaults hold', () => {
  expect(deriveText('').settings).toEqual(DEFAULT_SETTINGS);
  expect(deriveText(configMap('trustDomain: x', 'istio', 'shop')).settings).toEqual(DEFAULT_SETTINGS);
});

test('what is written is read', () => {
  const { settings, problems } = read(`trustDomain: corp.example
rootNamespace: mesh
pathNormalization: {normalization: MERGE_SLASHES}
extensionProviders: [{name: authz, envoyExtAuthzHttp: {port: 80}}]
tulle: {dryRunPolicies: true, faults: off}`);
  expect(problems).toEqual([]);
  expect(settings).toEqual({
    trustDomain: 'corp.example',
    rootNamespace: 'mesh',
    pathNormalization: 'MERGE_SLASHES',
    extensionProviders: [{ name: 'authz', settings: { name: 'authz', envoyExtAuthzHttp: { port: 80 } } }],
    dryRunPolicies: true,
    faultsOff: true,
  });
});

describe('what is wrong is reported, and at first its default holds', () => {
  test.each([
    ['text that is not YAML', 'trustDomain: [', 'data.mesh'],
    ['text that would grow without end', BILLION, 'data.mesh'],
    ['something else than a mapping', '- a', 'data.mesh'],
    ['a trust domain that is none', 'trustDomain: spiffe://x', 'data.mesh: trustDomain'],
    ['a namespace that is none', 'rootNamespace: 7', 'data.mesh: rootNamespace'],
    [
      'a normalization that is none',
      'pathNormalization: {normalization: SOME}',
      'data.mesh: pathNormalization.normalization',
    ],
    ['a provider without a name', 'extensionProviders: [{}]', 'data.mesh: extensionProviders[0]'],
    ['providers that are no list', 'extensionProviders: x', 'data.mesh: extensionProviders'],
    ['a switch that is neither on nor off', 'tulle: {dryRunPolicies: 1}', 'data.mesh: tulle.dryRunPolicies'],
    ['faults that are neither', 'tulle: {faults: never}', 'data.mesh: tulle.faults'],
  ])('%s', (_, mesh, path) => {
    const { settings, problems } = read(mesh);
    expect(settings).toEqual(DEFAULT_SETTINGS);
    expect(problems).toMatchObject([{ object: 'ConfigMap istio-system/istio', path, severity: 'error' }]);
  });

  test('one fault leaves the other settings alone', () => {
    expect(read('trustDomain: corp.example\nrootNamespace: 7').settings.trustDomain).toBe('corp.example');
  });
});

test.each(['trustDomain: [', 'trustDomain: "?"', '- a'])(
  'a wrong text leaves what was set before: %s',
  (mesh) => {
    const before = read('trustDomain: corp.example').settings;
    const objects = objectsOf(configMap(mesh));
    expect(deriveSnapshot({ objects, vips: NO_VIPS, previousSettings: before }).settings).toEqual(before);
  },
);

test('a setting that is taken out goes back to its default, whatever it was before', () => {
  const before = read('trustDomain: corp.example').settings;
  const objects = objectsOf(configMap('rootNamespace: mesh'));
  const { settings } = deriveSnapshot({ objects, vips: NO_VIPS, previousSettings: before });
  expect(settings.trustDomain).toBe('cluster.local');
});

test.each([
  ['enableTracing: true', 'data.mesh: enableTracing'],
  ['tulle: {dryRun: true}', 'data.mesh: tulle.dryRun'],
])('a setting that is not known is warned about: %s', (mesh, path) => {
  expect(read(mesh).problems).toMatchObject([{ path, severity: 'warning' }]);
});
