import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createOrderReader } from './orders.ts';

let state: string;
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), 'orders-'));
  mkdirSync(join(state, 'pods'));
  mkdirSync(join(state, 'run/n1'), { recursive: true });
});
afterEach(() => rmSync(state, { recursive: true }));

function writePod(name: string, nodeName = 'n1', phase = 'Running'): void {
  const annotations = { 'tulle.dev/netns': `/run/netns/${name}` };
  const pod = {
    metadata: { name, namespace: 'shop', uid: `u-${name}`, annotations },
    spec: { nodeName },
    status: { phase },
  };
  writeFileSync(join(state, `pods/shop_${name}.json`), JSON.stringify(pod));
}

function writeEnrolment(pods: readonly unknown[]): void {
  writeFileSync(join(state, 'run/n1/enrolment.json'), JSON.stringify({ version: '1', pods }));
}

const entry = (name: string, enrol: boolean, udp = 'allow'): unknown => ({
  uid: `u-${name}`,
  name,
  namespace: 'shop',
  serviceAccount: 'default',
  udp,
  mode: 'strict',
  enrol,
});

test('a pod of this node gets its order, others are not ours', () => {
  writePod('a');
  writePod('b', 'n1', 'Pending');
  writePod('elsewhere', 'n2');
  writeEnrolment([entry('a', true, 'refuse'), entry('b', false), entry('not-local', true)]);
  const { pods, problems } = createOrderReader(state, 'n1')();
  expect(problems).toEqual([]);
  expect([...pods.values()]).toEqual([
    {
      pod: { uid: 'u-a', name: 'a', namespace: 'shop', serviceAccount: 'default' },
      netnsPath: '/run/netns/a',
      fileName: 'shop_a',
      hasStarted: true,
      addresses: [],
      probePorts: [],
      order: { wanted: 'in', udp: 'refuse', mode: 'strict' },
    },
    expect.objectContaining({ hasStarted: false, order: { wanted: 'out', udp: 'allow', mode: 'strict' } }),
  ]);
});

test("a pod's addresses are known, and the ports on which it may be probed", () => {
  const pod = {
    metadata: {
      name: 'a',
      namespace: 'shop',
      uid: 'u-a',
      annotations: { 'tulle.dev/netns': '/run/netns/a' },
    },
    spec: {
      nodeName: 'n1',
      containers: [
        {
          ports: [{ name: 'health', containerPort: 9090 }, { containerPort: 8080 }],
          livenessProbe: { httpGet: { port: 'health', path: '/' } },
          readinessProbe: { tcpSocket: { port: 8080 } },
          startupProbe: { exec: { command: ['true'] } },
        },
      ],
      initContainers: [
        { livenessProbe: { grpc: { port: 7000 } }, readinessProbe: { httpGet: { port: 'nobody' } } },
        { startupProbe: { httpGet: { port: 8080 } }, livenessProbe: { tcpSocket: { port: 70_000 } } },
      ],
    },
    status: { podIP: '10.1.0.2', podIPs: [{ ip: '10.1.0.2' }, { ip: 'FD00::2' }] },
  };
  writeFileSync(join(state, 'pods/shop_a.json'), JSON.stringify(pod));
  expect(createOrderReader(state, 'n1')().pods.get('u-a')).toMatchObject({
    addresses: ['10.1.0.2', 'fd00::2'],
    probePorts: [7000, 8080, 9090],
  });
});

test('the orders of all nodes are known', () => {
  writeEnrolment([entry('a', true)]);
  mkdirSync(join(state, 'run/n2'));
  writeFileSync(join(state, 'run/n2/enrolment.json'), JSON.stringify({ pods: [entry('b', false)] }));
  mkdirSync(join(state, 'run/n3'));
  const { mesh } = createOrderReader(state, 'n1')();
  expect(mesh.map(({ uid, enrol }) => [uid, enrol])).toEqual([
    ['u-a', true],
    ['u-b', false],
  ]);
});

test('a pod of which the control plane has not spoken is left as it is', () => {
  writePod('a');
  expect(createOrderReader(state, 'n1')().pods.get('u-a')?.order.wanted).toBe('unknown');
});

test('a file that cannot be read counts as it was, and is reported', () => {
  writePod('a');
  writeEnrolment([entry('a', true)]);
  const read = createOrderReader(state, 'n1');
  read();
  writeFileSync(join(state, 'pods/shop_a.json'), '{');
  writeFileSync(join(state, 'run/n1/enrolment.json'), '{"pods": [{"uid": 1}]}');
  const { pods, problems } = read();
  expect(pods.get('u-a')?.order.wanted).toBe('in');
  expect(problems).toEqual([expect.stringMatching(/^shop_a.json: /), expect.stringMatching(/pods\[0\].uid/)]);
});

test('a pod whose file is gone is no more', () => {
  writePod('a');
  const read = createOrderReader(state, 'n1');
  read();
  rmSync(join(state, 'pods/shop_a.json'));
  expect(read().pods.size).toBe(0);
});
