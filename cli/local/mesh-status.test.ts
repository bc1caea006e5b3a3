import { expect, test } from 'vitest';
import type { TimedCondition } from '#control-plane/condition-times.ts';
import type { ControlPlaneStatus } from '#control-plane/status.ts';
import type { PodRecord } from './inventory.ts';
import { composeStatus, type ProcessReport, pendingParts, type StatusSources } from './mesh-status.ts';
import { formatStatus } from './status-text.ts';
import type { ReplicaReport } from './waypoint-report.ts';

const XDS = [
  { type: 'istio.security.Authorization', sent: 1, acked: 1, rejected: [] },
  { type: 'istio.workload.Address', sent: 3, acked: 3, rejected: [] },
];

function controlPlane(changes: Partial<ControlPlaneStatus> = {}): ControlPlaneStatus {
  return {
    ready: true,
    trustDomain: 'cluster.local',
    rootNamespace: 'istio-system',
    svidTtlSeconds: 86_400,
    problems: [],
    clients: [{ node: 'n1', connected: true, xds: XDS }],
    workloads: [],
    services: [],
    policies: [],
    waypoints: [],
    routes: [],
    faults: [],
    certificates: [],
    ...changes,
  };
}

function process(name: string, changes: Partial<ProcessReport> = {}): ProcessReport {
  return { name, state: { kind: 'running', pid: 10 }, restarts: 0, ready: true, ...changes };
}

const RECORD: PodRecord = {
  namespace: 'shop',
  name: 'web-1',
  uid: 'u',
  serviceAccount: 'web',
  node: 'n1',
  number: 2,
  labels: { app: 'web' },
  ports: [],
  user: { name: 'root', uid: 0, gid: 0, home: '/root', shell: '/bin/sh' },
  capabilities: ['net_raw'],
  createdAt: '2026-01-01T00:00:00Z',
  runner: { pid: 7, startTime: 1 },
  command: { pid: 8, startTime: 1 },
};

function sources(changes: Partial<StatusSources> = {}): StatusSources {
  return {
    mesh: 'tulle-123456',
    nodes: [{ name: 'n1', number: 1, external: false }],
    processes: [
      process('control-plane'),
      process('node-agent/n1'),
      process('ztunnel/n1', { state: { kind: 'running', pid: 11 } }),
    ],
    workers: 1,
    supervisor: [],
    nowMs: Date.parse('2026-01-01T00:00:10Z'),
    waitingSince: new Map(),
    whyUnseen: 'the control plane has not seen it yet',
    waypoints: { wanted: [], replicas: [], problems: [] },
    pods: [],
    enrolment: new Map(),
    controlPlane: controlPlane(),
    ...changes,
  };
}

const WITH_WEB: Partial<StatusSources> = {
  pods: [
    {
      record: RECORD,
      netns: 'tulle-123456-pod-shop_web-1',
      cgroup: '/sys/fs/cgroup/tulle-123456/pods/shop_web-1',
      addresses: ['10.244.1.2', 'fd00:10:244:1::2'],
      state: '/srv/.tulle',
      resolver: '/srv/.tulle/pods/shop_web-1.resolv.conf',
    },
  ],
  enrolment: new Map([
    [
      'n1',
      {
        wanted: { pods: [{ uid: 'u', enrol: true }] },
        done: {
          pods: [
            {
              uid: 'u',
              state: 'enrolled',
              capture: 'nftables',
              captureReason: 'no bpffs',
              refused: { udp_outbound: 3 },
            },
          ],
          ztunnel: { connected: 1 },
        },
      },
    ],
  ]),
};

const CERTIFICATE = {
  identity: 'spiffe://cluster.local/ns/shop/sa/web',
  node: 'n1',
  serial: 'ab',
  notAfter: '2026-01-02T00:00:00.000Z',
};

test('a mesh in which everything is there is ready', () => {
  expect(composeStatus(sources())).toMatchObject({
    ready: true,
    trustDomain: 'cluster.local',
    controlPlane: { pid: 10, address: '10.240.0.2', netns: 'tulle-123456-control-plane', restarts: 0 },
    problems: [],
    nodes: [
      {
        name: 'n1',
        address: '10.240.0.11',
        netns: 'tulle-123456-node-n1',
        ztunnel: { pid: 11, ready: true },
        xds: XDS,
      },
    ],
  });
});

test.each([
  {
    when: 'a ztunnel is not ready',
    changes: { processes: [process('ztunnel/n1', { ready: false })] },
    pending: ['ztunnel/n1 to be ready'],
  },
  {
    when: 'the control plane has not been heard of',
    changes: { controlPlane: undefined },
    pending: ['ztunnel/n1 to have its configuration'],
  },
  {
    when: 'a push is not acknowledged',
    changes: {
      controlPlane: controlPlane({
        clients: [{ node: 'n1', connected: true, xds: XDS.map((one) => ({ ...one, acked: 0 })) }],
      }),
    },
    pending: ['ztunnel/n1 to have its configuration'],
  },
  {
    when: 'a workload has no certificate',
    changes: WITH_WEB,
    pending: ['shop/web-1 to have its certificate'],
  },
])('the mesh is not ready when $when', ({ changes, pending }) => {
  expect(pendingParts(sources(changes))).toEqual(pending);
});

test('a resource that a node rejected does not keep the mesh from being ready', () => {
  const rejected = [{ name: 'shop/p', message: 'unknown action' }];
  const xds = XDS.map((one) => ({ ...one, sent: 2, acked: 1, rejected }));
  const clients = [{ node: 'n1', connected: true, xds }];
  expect(pendingParts(sources({ controlPlane: controlPlane({ clients }) }))).toEqual([]);
});

test('an external node needs no ztunnel of ours', () => {
  const status = composeStatus(
    sources({ nodes: [{ name: 'n1', number: 1, external: true }], processes: [process('control-plane')] }),
  );
  expect(status).toMatchObject({ ready: true, nodes: [{ ztunnel: null }] });
});

test('a workload has its place, its identity and its certificate', () => {
  const { workloads } = composeStatus(
    sources({ ...WITH_WEB, controlPlane: controlPlane({ certificates: [CERTIFICATE] }) }),
  );
  expect(workloads).toEqual([
    {
      namespace: 'shop',
      name: 'web-1',
      uid: 'Kubernetes//Pod/shop/web-1',
      node: 'n1',
      addresses: ['10.244.1.2', 'fd00:10:244:1::2'],
      netns: 'tulle-123456-pod-shop_web-1',
      cgroup: '/sys/fs/cgroup/tulle-123456/pods/shop_web-1',
      pid: 8,
      identity: 'spiffe://cluster.local/ns/shop/sa/web',
      enrolled: true,
      pending: null,
      pendingSince: null,
      capture: 'nftables',
      captureReason: 'no bpffs',
      refused: { udp_outbound: 3 },
      labels: { app: 'web' },
      capabilities: ['NET_RAW'],
      certificate: { serial: 'ab', notAfter: '2026-01-02T00:00:00.000Z' },
      services: [],
      waypoint: null,
    },
  ]);
});

test('a workload that waits says why', () => {
  const done = {
    pods: [{ uid: 'u', state: 'pending' as const, error: 'maps of v2' }],
    ztunnel: { connected: 1 },
  };
  const enrolment = new Map([['n1', { wanted: { pods: [{ uid: 'u', enrol: true }] }, done }]]);
  const status = composeStatus(sources({ ...WITH_WEB, enrolment }));
  expect(status.workloads[0]).toMatchObject({ enrolled: false, pending: 'maps of v2', capture: null });
  expect(formatStatus(status)).toMatch(/ waits .*NOT IN THE MESH YET.*shop\/web-1 +- +maps of v2/s);
});

test('a process that does not run is a problem, with what holds meanwhile', () => {
  const processes = [process('control-plane', { state: { kind: 'stopped' }, ready: false })];
  expect(composeStatus(sources({ processes })).problems).toEqual([
    expect.objectContaining({
      object: 'control-plane',
      message: 'is stopped',
      effect: 'what was configured last stays in force; workloads that start wait',
    }),
  ]);
});

test('what crashes and is started again is one problem in the same words until it is ready', () => {
  const problemsOf = (state: ProcessReport['state'], ready = false): readonly unknown[] => {
    const downSince = ready ? undefined : Date.parse('2026-01-01T00:00:00Z');
    const processes = [process('node-agent/n1', { state, ready, downSince })];
    return composeStatus(sources({ processes })).problems;
  };
  const crashed = problemsOf({ kind: 'crashed', how: 'was killed by SIGKILL' });
  expect(crashed).toMatchObject([{ message: 'was killed by SIGKILL since 2026-01-01T00:00:00Z' }]);
  expect(problemsOf({ kind: 'running', pid: 5, after: 'was killed by SIGKILL' })).toEqual(crashed);
  expect(problemsOf({ kind: 'running', pid: 5 }, true)).toEqual([]);
});

test('what cannot be replaced is a problem, and goes on', () => {
  const notRenewed = { sinceMs: Date.parse('2026-01-01T00:00:00Z'), why: 'it was not ready' };
  const problems = [true, false].flatMap((ready) => {
    const processes = [process('ztunnel/n1', { notRenewed, ready })];
    return composeStatus(sources({ processes })).problems;
  });
  expect(problems.map(({ message, effect }) => `${message}; ${effect}`)).toEqual([
    'cannot be replaced since 2026-01-01T00:00:00Z, which is tried again: it was not ready; what it does goes on',
    expect.stringMatching(/^is not ready, and cannot be replaced since .*; connections of its workloads are/),
  ]);
});

test('of a ztunnel that does not run, status says whose connections go direct', () => {
  const processes = [process('ztunnel/n1', { state: { kind: 'stopped' }, ready: false })];
  expect(composeStatus(sources({ processes })).problems).toEqual([
    expect.objectContaining({ object: 'ztunnel/n1', effect: expect.stringMatching(/refused; .*go direct$/) }),
  ]);
});

test('for people, everything has a line', () => {
  const text = formatStatus(
    composeStatus(sources({ ...WITH_WEB, controlPlane: controlPlane({ certificates: [CERTIFICATE] }) })),
  );
  expect(text).toMatch(/^mesh ready, trust domain cluster.local\n/);
  expect(text).toMatch(/^n1 +10\.240\.0\.11 +pid 11 +0 +Authorization 1\/1, Address 3\/3/m);
  expect(text).toMatch(
    /^shop\/web-1 +n1 +10\.244\.1\.2 +in \(nftables\) +spiffe:\S+ \+NET_RAW +until 2026-01-02/m,
  );
  expect(text).toMatch(/^shop\/web-1 +by packet rules: no bpffs$/m);
  expect(text).toMatch(/^shop\/web-1 +udp_outbound +3 +UDP to others$/m);
});

test('for people, waypoints, routes with what they came to, and faults have a line', () => {
  const waypoint = { namespace: 'shop', name: 'waypoint' };
  const object = 'HTTPRoute shop/catalog';
  const parentRef = { group: '', kind: 'Service', name: 'catalog', port: 8080 };
  const accepted = {
    type: 'Accepted',
    status: 'True',
    reason: 'Accepted',
    message: '',
    observedGeneration: 1,
    lastTransitionTime: '2026-01-01T00:00:00Z',
  };
  const unresolved = { ...accepted, type: 'ResolvedRefs', status: 'False', reason: 'BackendNotFound' };
  const conditions = [accepted, unresolved] as readonly TimedCondition[];
  const report = controlPlane({
    waypoints: [
      { ...waypoint, replicas: 1, serves: ['shop/catalog.shop.svc'], connected: 1, configured: 1, xds: [] },
    ],
    routes: [
      {
        object,
        parents: [{ parentRef, controllerName: 'tulle.dev/waypoint', conditions }],
        split: [
          { rule: 0, backend: 'shop/catalog-v1:8080', weight: 3 },
          { rule: 0, backend: 'shop/catalog-v2:8080', weight: 1 },
        ],
      },
    ],
    faults: [
      { policy: 'TrafficPolicy shop/chaos', name: 'slow', targets: [object], endsAt: '2026-01-01T00:10:00Z' },
    ],
  });
  const replica: ReplicaReport = {
    ...waypoint,
    index: 0,
    processName: 'waypoint/shop/waypoint',
    pod: 'waypoint-0',
    node: 'n1',
    netns: 'tulle-123456-pod-shop_waypoint-0',
    addresses: ['10.244.1.9'],
    state: { kind: 'running', pid: 12 },
    restarts: 0,
    ready: true,
    splits: [
      { object, rule: 0, backend: 'shop/catalog-v1:8080', requests: 74 },
      { object, rule: 0, backend: 'shop/catalog-v2:8080', requests: 26 },
    ],
  };
  const waypoints = { wanted: [{ ...waypoint, replicas: 1 }], replicas: [replica], problems: [] };
  const text = formatStatus(composeStatus(sources({ controlPlane: report, waypoints })));
  expect(text).toMatch(/^shop\/waypoint +1\/1 +12 +n1 +0 +- +shop\/catalog\.shop\.svc$/m);
  expect(text).toMatch(
    /^HTTPRoute shop\/catalog +Service catalog:8080 +Accepted=True ResolvedRefs=False \(BackendNotFound\)$/m,
  );
  expect(text).toMatch(/^HTTPRoute shop\/catalog +0 +shop\/catalog-v1:8080 +3 +75\.0% +74\.0% +74$/m);
  expect(text).toMatch(/^HTTPRoute shop\/catalog +0 +shop\/catalog-v2:8080 +1 +25\.0% +26\.0% +26$/m);
  expect(text).toMatch(/^TrafficPolicy shop\/chaos +slow +HTTPRoute shop\/catalog +2026-01-01T00:10:00Z$/m);
});
