import { expect, test } from 'vitest';
import { deriveText, podOf, podYaml } from '#test/kit/objects.ts';

const space = (fields: string): string =>
  `{apiVersion: v1, kind: Namespace, metadata: {name: shop, ${fields}}}\n---\n`;

function derive(namespaceFields: string, podFields: string) {
  const derived = deriveText(space(namespaceFields) + podYaml('shop/p', '10.1.0.1', podFields));
  return { derived, sameNode: podOf(derived, 'shop/p').sameNode };
}

test.each([
  ['nothing', '', '', undefined],
  ['a label of the pod', '', 'labels: {tulle.dev/same-node: tunnel}', 'tunnel'],
  ['an annotation of the pod', '', 'annotations: {tulle.dev/same-node: tunnel}', 'tunnel'],
  ['a label of the namespace', 'labels: {tulle.dev/same-node: tunnel}', '', 'tunnel'],
  ['an annotation of the namespace', 'annotations: {tulle.dev/same-node: tunnel}', '', 'tunnel'],
  [
    'the pod, against its namespace',
    'labels: {tulle.dev/same-node: tunnel}',
    'annotations: {tulle.dev/same-node: direct}',
    undefined,
  ],
  [
    'the label, against the annotation',
    '',
    'labels: {tulle.dev/same-node: direct}, annotations: {tulle.dev/same-node: tunnel}',
    undefined,
  ],
])('%s says how a pod is reached on its node', (_, namespaceFields, podFields, expected) => {
  expect(derive(namespaceFields, podFields).sameNode).toBe(expected);
});

test('what is neither of the two is reported, and encrypts', () => {
  const { derived, sameNode } = derive('', 'labels: {tulle.dev/same-node: tunel}');
  expect(sameNode).toBe('tunnel');
  expect(derived.problems).toMatchObject([
    {
      object: 'Pod shop/p',
      path: 'metadata.labels["tulle.dev/same-node"]',
      message: '"tunel" is neither tunnel nor direct',
      severity: 'error',
    },
  ]);
});
