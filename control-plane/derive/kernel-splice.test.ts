import { expect, test } from 'vitest';
import { deriveText, podOf, podYaml } from '#test/kit/objects.ts';

const space = (fields: string): string =>
  `{apiVersion: v1, kind: Namespace, metadata: {name: shop, ${fields}}}\n---\n`;

function derive(namespaceFields: string, podFields: string) {
  const derived = deriveText(space(namespaceFields) + podYaml('shop/p', '10.1.0.1', podFields));
  return { derived, splice: podOf(derived, 'shop/p').splice };
}

test.each([
  ['nothing', '', '', undefined],
  ['a label of the pod', '', 'labels: {tulle.dev/splice: "true"}', true],
  ['an annotation of the pod', '', 'annotations: {tulle.dev/splice: "true"}', true],
  ['a label of the namespace', 'labels: {tulle.dev/splice: "true"}', '', true],
  ['an annotation of the namespace', 'annotations: {tulle.dev/splice: "true"}', '', true],
  [
    'the pod, against its namespace',
    'labels: {tulle.dev/splice: "true"}',
    'annotations: {tulle.dev/splice: "false"}',
    undefined,
  ],
])('%s says whether bytes of a pod may go past the ztunnel', (_, namespaceFields, podFields, expected) => {
  expect(derive(namespaceFields, podFields).splice).toBe(expected);
});

test('what is neither of the two is reported, and means no', () => {
  const { derived, splice } = derive(
    'labels: {tulle.dev/splice: "true"}',
    'labels: {tulle.dev/splice: "yes"}',
  );
  expect(splice).toBeUndefined();
  expect(derived.problems).toMatchObject([
    {
      object: 'Pod shop/p',
      path: 'metadata.labels["tulle.dev/splice"]',
      message: '"yes" is neither "true" nor "false"',
      severity: 'error',
    },
  ]);
});
