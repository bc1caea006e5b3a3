import { expect, test } from 'vitest';
import { objectsOf } from '#test/kit/objects.ts';
import { splitsOfRoutes } from './route-splits.ts';

test('a backend that a rule names twice has both weights, and weights are 1 where none is written', () => {
  const yaml = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules:
  - backendRefs: [{name: a, port: 80, weight: 2}, {name: b, namespace: pay, port: 80}, {name: a, port: 80, weight: 3}]
  - backendRefs: []
  - backendRefs: [{name: a, port: 81}]
`;
  const { objects } = objectsOf(yaml);
  expect(splitsOfRoutes(objects.values()).get('HTTPRoute shop/r')).toEqual([
    { rule: 0, backend: 'shop/a:80', weight: 5 },
    { rule: 0, backend: 'pay/b:80', weight: 1 },
    { rule: 2, backend: 'shop/a:81', weight: 1 },
  ]);
});
