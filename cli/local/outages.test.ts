import { expect, test } from 'vitest';
import type { PodRecord } from './inventory.ts';
import type { ProcessReport, StatusSources } from './mesh-status.ts';
import { certificateProblems, certificatesHold, noteWaiting, whyUnseen } from './outages.ts';

const NOON = Date.parse('2026-01-01T12:00:00Z');
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';

const RECORD: PodRecord = {
  namespace: 'shop',
  name: 'web-1',
  uid: 'u1',
  serviceAccount: 'web',
  node: 'n1',
  number: 2,
  labels: {},
  ports: [],
  user: { name: 'root', uid: 0, gid: 0, home: '/root', shell: '/bin/sh' },
  capabilities: [],
  createdAt: '2026-01-01T00:00:00Z',
  runner: { pid: 7, startTime: 1 },
};

/** One enrolled workload, and a certificate of it that ends then, of a minute's life. */
function sources(
  notAfterMs: number,
  controlPlane: Pick<ProcessReport, 'state' | 'downSince'>,
): StatusSources {
  const pod = (record: PodRecord) => ({
    record,
    netns: '',
    cgroup: '',
    addresses: [],
    state: '',
    resolver: '',
  });
  return {
    nowMs: NOON,
    mesh: 'tulle-123456',
    nodes: [],
    processes: [{ name: 'control-plane', restarts: 0, ready: false, ...controlPlane }],
    workers: 1,
    supervisor: [],
    waypoints: { wanted: [], replicas: [], problems: [] },
    waitingSince: new Map(),
    whyUnseen: '',
    pods: [pod(RECORD), pod({ ...RECORD, name: 'web-2', uid: 'u2' })],
    enrolment: new Map([
      [
        'n1',
        {
          wanted: { pods: [{ uid: 'u1', enrol: true }] },
          done: { pods: [{ uid: 'u1', state: 'enrolled' }], ztunnel: { connected: 1 } },
        },
      ],
    ]),
    controlPlane: {
      ready: true,
      trustDomain: 'cluster.local',
      rootNamespace: 'istio-system',
      svidTtlSeconds: 60,
      problems: [],
      clients: [],
      workloads: [],
      services: [],
      waypoints: [],
      routes: [],
      policies: [],
      faults: [],
      certificates: [
        { identity: WEB, node: 'n1', serial: '1', notAfter: new Date(notAfterMs).toISOString() },
      ],
    },
  };
}

const STOPPED = { state: { kind: 'stopped' }, downSince: NOON - 60_000 } as const;
const RUNNING = { state: { kind: 'running', pid: 1 } } as const;

test('who waits for a control plane is told how it is, and since when', () => {
  expect([
    whyUnseen({ ready: false, ...STOPPED }),
    whyUnseen({ ready: false, state: { kind: 'crashed', how: 'was killed by SIGKILL' }, downSince: NOON }),
    whyUnseen({ ready: false, ...RUNNING }),
    whyUnseen({ ready: true, ...RUNNING }),
  ]).toEqual([
    'the control plane is stopped since 2026-01-01T11:59:00Z: tulle start control-plane',
    'the control plane was killed by SIGKILL since 2026-01-01T12:00:00Z, and is started again',
    'the control plane is not ready yet',
    'the control plane has not seen it yet',
  ]);
});

test('a workload that nobody has seen waits since it was first found to', () => {
  const first = noteWaiting(new Map(), sources(NOON, STOPPED));
  expect([...first]).toEqual([['u2', NOON]]);
  expect([...noteWaiting(first, { ...sources(NOON, STOPPED), nowMs: NOON + 5 })]).toEqual([['u2', NOON]]);
});

test.each([
  ['that was renewed is no problem', NOON + 25_000, RUNNING, []],
  [
    'that nobody renews is one before it ends',
    NOON + 15_000,
    STOPPED,
    [
      'its certificate (ztunnel/n1) ends at 2026-01-01T12:00:15Z, in 15 s, and was not renewed: the control plane is stopped since 2026-01-01T11:59:00Z: tulle start control-plane; then its connections are refused',
    ],
  ],
  [
    'that has ended says so',
    NOON - 1_000,
    RUNNING,
    [
      'its certificate (ztunnel/n1) ended at 2026-01-01T11:59:59Z and was not renewed: the log of who holds it says why; its connections are refused',
    ],
  ],
] as const)('a certificate %s', (_, notAfterMs, controlPlane, expected) => {
  const problems = certificateProblems(sources(notAfterMs, controlPlane));
  expect(problems.map(({ message, effect }) => `${message}; ${effect}`)).toEqual(expected);
});

test('an outage says until when certificates hold', () => {
  expect(certificatesHold(sources(NOON + 25_000, STOPPED))).toBe(
    `, certificates until 2026-01-01T12:00:25Z (${WEB})`,
  );
});
