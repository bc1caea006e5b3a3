import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readVips, writeVips } from '#control-plane/derive/vips.ts';
import { formatPath, parsePath } from '#control-plane/source/path.ts';
import { readText } from '#control-plane/source/read-text.ts';
import { always, textNear } from './fuzz.ts';

const FILE = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: viewer, namespace: shop, labels: &labels { app: web } }
spec:
  selector: { matchLabels: *labels }
  action: ALLOW
  rules:
    - from: [{ source: { principals: ["cluster.local/ns/shop/sa/web"] } }]
      to: [{ operation: { ports: ["80"], paths: ["/a/*"], methods: [GET] } }]
---
{ "apiVersion": "v1", "kind": "List", "items": [{ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": "x" } }] }
`;
const ROUTE = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: catalog, group: "" }]
  rules: [{ matches: [{ path: { type: RegularExpression, value: "(a+)+$" } }], backendRefs: [{ name: v1, port: 80, weight: 1 }] }]
`;

/** Anchors that name ten of the one before each: a billion words when they are written out. */
const BOMB = [
  'a: &a0 [x]',
  ...Array.from({ length: 9 }, (_, i) => `b${i}: &a${i + 1} [${`*a${i},`.repeat(10)}]`),
].join('\n');

test('a file of objects is read object by object, each taken or wrong with a place, whatever is in it', () => {
  const numbers = fc.constantFrom(
    '1e999',
    '-0',
    '.nan',
    '0x7fffffffffffffff',
    '!!binary x',
    '!!js/function x',
    '<<: *labels',
  );
  const text = fc.oneof(
    { weight: 6, arbitrary: textNear(FILE, ROUTE) },
    { weight: 1, arbitrary: numbers.map((number) => FILE.replace('viewer', number)) },
  );
  always(text, (each) => {
    for (const entry of readText('f.yaml', each).entries) {
      if (entry.kind !== 'wrong') continue;
      expect(entry.findings.length).toBeGreaterThan(0);
      expect(entry.position.line).toBeGreaterThan(0);
    }
  });
});

test.each([
  { what: 'lists in lists, as JSON', text: '['.repeat(100_000) },
  { what: 'objects in objects, as JSON', text: '{"a":'.repeat(50_000) },
  { what: 'lists in lists, as YAML', text: '- '.repeat(20_000) },
  { what: 'anchors that multiply', text: BOMB },
  { what: 'an anchor in itself', text: 'a: &a [*a]\nkind: Namespace' },
  {
    what: 'merges that multiply',
    text: BOMB.replaceAll(': &', ': &').replace('a: &a0 [x]', 'a: &a0 {x: 1}'),
  },
  { what: 'a hundred thousand documents', text: '---\n'.repeat(100_000) },
  { what: 'a key a hundred thousand times', text: '{'.concat('"a":1,'.repeat(100_000), '"b":1}') },
  {
    what: 'keys that an object has by itself',
    text: '{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a","__proto__":{"x":1},"constructor":1}}',
  },
])('$what are read or refused, soon, and change nothing else', ({ text }) => {
  const began = process.threadCpuUsage().user;
  readText('f.yaml', text);
  expect((process.threadCpuUsage().user - began) / 1000).toBeLessThan(10_000);
  expect(Reflect.get({}, 'x')).toBeUndefined();
});

test('a path of a field is the same when it is read again', () => {
  always(fc.array(fc.oneof(fc.nat(99), fc.string(), fc.string({ unit: 'binary' }))), (path) => {
    expect(parsePath(formatPath(path))).toEqual(path);
  });
});

test('addresses that were given out are read as far as they are some', () => {
  const json = fc.jsonValue();
  const written = fc.record({
    addresses: fc.dictionary(fc.string(), fc.oneof(json, fc.constant(['240.240.0.1']))),
    next: fc.dictionary(fc.string(), fc.oneof(json, fc.integer())),
  });
  always(fc.oneof(json, written), (value) => {
    const vips = readVips(value);
    expect(readVips(JSON.parse(JSON.stringify(writeVips(vips))))).toEqual(vips);
  });
});
