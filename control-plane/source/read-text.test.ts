import { readdirSync, readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { BrokenPolicy, MeshObject, ObjectSet } from './objects.ts';
import { readText } from './read-text.ts';
import { settle } from './settle.ts';

const FIXTURES = 'test/fixtures/objects';

// A cluster with every kind, as a stock istiod was seen to serve it.
const CLUSTER = 'test/fixtures/istiod/objects.yaml';

function read(text: string, file = 'a.yaml'): ObjectSet {
  return settle([{ path: file, ...readText(file, text), findings: [] }], new Map()).set;
}

/** The only object of a text that has nothing wrong with it. */
function readOne(text: string): MeshObject {
  const { objects, problems } = read(text);
  expect(problems).toEqual([]);
  const [object] = objects.values();
  if (object === undefined || objects.size > 1) throw new Error(`${objects.size} objects`);
  return object;
}

function report({ problems, broken, unread, objects }: ObjectSet): string {
  const selection = ({ selector, targetRefs }: BrokenPolicy): string =>
    JSON.stringify(selector ? [...selector.matchLabels] : (targetRefs ?? 'everything'));
  return [
    ...problems.map(({ position: { line, column }, severity, object, path, message, effect }) =>
      [`${line}:${column}`, severity, `${object}:`, `${path}:`, message, `(${effect})`].join(' '),
    ),
    ...broken.map(
      (policy) => `broken ${policy.kind} ${policy.namespace}/${policy.name} ${selection(policy)}`,
    ),
    ...unread.map(({ object, position }) => `unread ${position.line}:${position.column} ${object}`),
    ...[...objects.keys()].map((key) => `good ${key}`),
    '',
  ].join('\n');
}

// What is expected of bad/x.yaml stands in bad/x.expected, a line for each problem.
const BAD = readdirSync(`${FIXTURES}/bad`).filter((name) => !name.endsWith('.expected'));

test.each(BAD)('every mistake in %s is named with its place', async (name) => {
  const file = `${FIXTURES}/bad/${name}`;
  const expected = `${FIXTURES}/bad/${name.replace(/\.\w+$/, '.expected')}`;
  await expect(report(read(readFileSync(file, 'utf8'), name))).toMatchFileSnapshot(`../../${expected}`);
});

test('a cluster with every kind has nothing wrong with it', () => {
  const { objects, problems, broken, unread } = read(readFileSync(CLUSTER, 'utf8'));
  expect({ problems, broken, unread }).toEqual({ problems: [], broken: [], unread: [] });
  // Two of the 71 documents say a second time, word for word, what others do.
  expect(objects.size).toBe(69);
});

test('a service has defaults for what is not written', () => {
  const service = readOne(
    '{apiVersion: v1, kind: Service, metadata: {name: cart}, spec: {ports: [{port: 80}]}}',
  );
  expect(service).toMatchObject({
    metadata: { name: 'cart', namespace: 'default', labels: new Map() },
    spec: {
      type: 'ClusterIP',
      clusterIPs: [],
      ports: [{ name: '', port: 80, protocol: 'TCP' }],
      publishNotReadyAddresses: false,
    },
  });
});

test('a pod that is redirected, with what its status says', () => {
  const pod = readOne(`
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  creationTimestamp: "2026-01-31T12:00:00Z"
  deletionTimestamp: null
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]
  managedFields: [{manager: kubectl}]
spec:
  nodeName: n1
  containers: [{name: c, image: x, ports: [{containerPort: 8080, name: http}]}, {name: d}]
status:
  phase: Running
  podIP: FD00::0:1
  podIPs: [{ip: FD00::0:1}, {ip: 10.0.0.1}]
  conditions: [{type: Ready, status: "True", lastProbeTime: null}]
`);
  expect(pod).toMatchObject({
    metadata: {
      creationTimestampMs: Date.UTC(2026, 0, 31, 12),
      ownerReferences: [{ kind: 'ReplicaSet', name: 'web', controller: true }],
    },
    spec: {
      serviceAccountName: 'default',
      nodeName: 'n1',
      hostNetwork: false,
      containers: [{ ports: [{ containerPort: 8080, name: 'http', protocol: 'TCP' }] }, { ports: [] }],
    },
    status: { phase: 'Running', podIPs: ['fd00::1', '10.0.0.1'], ready: true },
  });
  expect(pod.metadata).not.toHaveProperty('deletionTimestamp');
});

test('an endpoint is ready, and serves as it is ready, where that is not written', () => {
  const slice = readOne(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1]}
- {addresses: [10.0.0.2], conditions: {ready: false, terminating: true}}
`);
  expect(slice).toMatchObject({
    endpoints: [
      { ready: true, serving: true, terminating: false },
      { ready: false, serving: false, terminating: true },
    ],
    ports: [],
  });
});

test('a policy may name its target the old way', () => {
  const target = '{kind: Service, group: "", name: web}';
  const policy = readOne(
    `{apiVersion: security.istio.io/v1beta1, kind: AuthorizationPolicy, metadata: {name: p}, spec: {targetRef: ${target}}}`,
  );
  expect(policy).toMatchObject({ spec: { targetRefs: [{ kind: 'Service', group: '', name: 'web' }] } });
});

test('a policy without a spec allows nothing', () => {
  const policy = readOne(
    '{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p}}',
  );
  expect(policy).toMatchObject({ spec: { action: 'ALLOW', rules: [] } });
});

test.each([
  { path: 'spec.rules', limit: 512, spec: (count: number) => ({ rules: Array(count).fill({}) }) },
  {
    path: 'spec.rules[0].from',
    limit: 512,
    spec: (count: number) => ({ rules: [{ from: Array(count).fill({ source: {} }) }] }),
  },
  {
    path: 'spec.rules[0].to',
    limit: 512,
    spec: (count: number) => ({ rules: [{ to: Array(count).fill({ operation: {} }) }] }),
  },
  {
    path: 'spec.targetRefs',
    limit: 16,
    spec: (count: number) => ({ targetRefs: Array(count).fill({ kind: 'Service', name: 'web' }) }),
  },
  {
    path: 'spec.rules[0].from[0].source.serviceAccounts',
    limit: 16,
    spec: (count: number) => ({
      rules: [{ from: [{ source: { serviceAccounts: Array(count).fill('a') } }] }],
    }),
  },
])('a policy may have $limit entries in $path, and no more', ({ path, limit, spec }) => {
  const head = { apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy', metadata: { name: 'p' } };
  const within = read(JSON.stringify({ ...head, spec: spec(limit) }));
  expect(within.problems).toEqual([]);
  const beyond = read(JSON.stringify({ ...head, spec: spec(limit + 1) }));
  const message = `has too many entries, at most ${limit} are allowed`;
  expect(beyond.problems).toMatchObject([{ path, message, effect: 'denies what it selects' }]);
});

test('modes by port have the ports as numbers', () => {
  const policy = readOne(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p}
spec: {selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: STRICT}, "81": {}}}
`);
  const portLevelMtls = new Map([
    [81, 'UNSET'],
    [8080, 'STRICT'],
  ]);
  expect(policy).toMatchObject({ spec: { mode: 'UNSET', portLevelMtls } });
});

test('positions of an object are those of its parts, or of the nearest part above', () => {
  const policy = readOne(`# first line
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, labels: {"a.b/c": d}}
spec:
  rules:
  - to: [{operation: {ports: ["80"]}}]
`);
  expect(policy.position).toEqual({ file: 'a.yaml', line: 2, column: 1 });
  expect(policy.positionOf('spec.rules[0].to[0].operation.ports[0]')).toMatchObject({ line: 7, column: 31 });
  expect(policy.positionOf('spec.rules[0].from[2].source')).toMatchObject({ line: 7, column: 5 });
  expect(policy.positionOf('metadata.labels["a.b/c"]')).toMatchObject({ line: 4, column: 39 });
  expect(policy.positionOf('')).toEqual(policy.position);
});

test('positions are found again when the tree of the text is gone', async () => {
  const first = '{apiVersion: v1, kind: Namespace, metadata: {name: first}}';
  const second = '# two\n{apiVersion: v1, kind: Namespace, metadata:\n {name: second}}';
  const { objects } = read(`${first}\n---\n${second}`);
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  // What a weak reference gave lives on until the task ends.
  await setImmediate();
  collect();
  expect(objects.get('Namespace second')?.positionOf('metadata.name')).toMatchObject({ line: 5, column: 9 });
  expect(objects.get('Namespace first')?.positionOf('metadata')).toMatchObject({ line: 1, column: 45 });
});

test('JSON is read as YAML is, with tabs and with positions', () => {
  const { objects, problems } = read(
    '{\n\t"apiVersion": "v1",\n\t"kind": "Namespace",\n\t"metadata": {"name": "a\\u0062", "x": 1}\n}',
  );
  expect([...objects.keys()]).toEqual(['Namespace ab']);
  expect(problems).toMatchObject([{ position: { line: 4, column: 34 }, path: 'metadata.x' }]);
});

test('an anchor may be used again, within reason', () => {
  const used = read('apiVersion: v1\nkind: Namespace\nmetadata: {name: &n a, labels: {x: *n}}\n');
  expect(used.objects.get('Namespace a')?.metadata.labels.get('x')).toBe('a');
  let bomb = 'a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n';
  for (let level = 1; level < 9; level += 1)
    bomb += `a${level}: &a${level} [${Array(10)
      .fill(`*a${level - 1}`)
      .join()}]\n`;
  expect(read(bomb).problems).toMatchObject([
    { severity: 'error', message: expect.stringContaining('alias') },
  ]);
});

test.each([
  { what: 'brackets', text: '['.repeat(100_000) },
  { what: 'maps', text: '{a: '.repeat(2000) },
  { what: 'lists', text: '- '.repeat(20_000) },
  { what: 'an alias to itself', text: '&a [*a]' },
])('$what without end are one problem', ({ text }) => {
  expect(read(text).problems.map(({ severity }) => severity)).toEqual(['error']);
});

test('a document with too many words is refused before it takes the memory for them', () => {
  const text = `[${'1,'.repeat(1_000_000)}1]`;
  expect(read(text).problems).toMatchObject([
    { message: 'the document is too large; split it into several with ---' },
  ]);
});

test('a file that is no YAML of ours says so once it has been tried', () => {
  const { problems } = read('--- x\n'.repeat(5000));
  expect(problems.length).toBeLessThan(110);
  expect(problems.at(-1)?.message).toContain('the rest of it is not read');
});

test('a key that JavaScript gives a meaning to is a key like any other', () => {
  const { objects, problems } = read(
    'apiVersion: v1\nkind: Namespace\nmetadata: {name: a, __proto__: {labels: {x: y}}}\nconstructor: {}\n',
  );
  expect(objects.get('Namespace a')?.metadata.labels.size).toBe(0);
  expect(problems.map(({ path }) => path)).toEqual(['metadata.__proto__', 'constructor']);
});

test('no text makes reading throw', () => {
  fc.assert(fc.property(fc.string({ maxLength: 400 }), (text) => void read(text)));
});

test('no JSON makes reading throw, and every policy in it is either good or broken', () => {
  const spec = fc.oneof(
    fc.jsonValue({ maxDepth: 4 }),
    fc.record({ selector: fc.jsonValue(), rules: fc.jsonValue() }),
  );
  const policy = fc.record({
    apiVersion: fc.constant('security.istio.io/v1'),
    kind: fc.constantFrom('AuthorizationPolicy', 'PeerAuthentication'),
    metadata: fc.record({ name: fc.constant('p'), namespace: fc.constant('n') }),
    spec,
  });
  fc.assert(
    fc.property(policy, (object) => {
      const { objects, broken } = read(JSON.stringify(object));
      expect(objects.size + broken.length).toBe(1);
    }),
  );
});

test('every kind takes any JSON in its fields without throwing', () => {
  const kinds = [
    ['v1', 'Namespace'],
    ['v1', 'Service'],
    ['v1', 'Pod'],
    ['discovery.k8s.io/v1', 'EndpointSlice'],
    ['gateway.networking.k8s.io/v1', 'Gateway'],
    ['networking.istio.io/v1', 'ServiceEntry'],
    ['networking.istio.io/v1', 'WorkloadEntry'],
    ['v1', 'List'],
  ] as const;
  const object = fc
    .tuple(
      fc.constantFrom(...kinds),
      fc.dictionary(fc.constantFrom('metadata', 'spec', 'status', 'items'), fc.jsonValue()),
    )
    .map(([[apiVersion, kind], rest]) => ({ apiVersion, kind, ...rest }));
  fc.assert(fc.property(object, (value) => void read(JSON.stringify(value))));
});
