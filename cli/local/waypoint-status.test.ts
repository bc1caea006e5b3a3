import { expect, test } from 'vitest';
import type { StatusWaypoint } from '#control-plane/status-waypoints.ts';
import type { ReplicaReport, WaypointsReport } from './waypoint-report.ts';
import { pendingReplicas, waypointProblems, waypointStatuses } from './waypoint-status.ts';

const KNOWN: readonly StatusWaypoint[] = [
  {
    namespace: 'shop',
    name: 'waypoint',
    replicas: 2,
    serves: ['shop/ledger.shop.svc.cluster.local'],
    connected: 2,
    configured: 2,
    xds: [],
  },
];

function replica(index: number, changes: Partial<ReplicaReport> = {}): ReplicaReport {
  return {
    namespace: 'shop',
    name: 'waypoint',
    index,
    processName: index === 0 ? 'waypoint/shop/waypoint' : `waypoint/shop/waypoint/${index}`,
    pod: `waypoint-${index}`,
    node: `n${index + 1}`,
    netns: `tulle-123456-pod-shop_waypoint-${index}`,
    addresses: [`10.244.${index + 1}.2`, `fd00:10:244:${index + 1}::2`],
    state: { kind: 'running', pid: 40 + index },
    restarts: 0,
    ready: true,
    splits: [],
    ...changes,
  };
}

function report(replicas: readonly ReplicaReport[], changes: Partial<WaypointsReport> = {}): WaypointsReport {
  return {
    wanted: [{ namespace: 'shop', name: 'waypoint', replicas: 2 }],
    replicas,
    problems: [],
    ...changes,
  };
}

test('a waypoint is shown with its replicas and what it serves', () => {
  const [waypoint] = waypointStatuses(report([replica(0), replica(1)]), KNOWN);
  expect(waypoint).toMatchObject({
    namespace: 'shop',
    name: 'waypoint',
    pid: 40,
    ready: true,
    addresses: ['10.244.1.2', 'fd00:10:244:1::2', '10.244.2.2', 'fd00:10:244:2::2'],
    serves: ['shop/ledger.shop.svc.cluster.local'],
  });
  expect(waypoint?.replicas.map(({ name, node, pid }) => [name, node, pid])).toEqual([
    ['waypoint-0', 'n1', 40],
    ['waypoint-1', 'n2', 41],
  ]);
});

test.each([
  { when: 'a replica is missing', replicas: [replica(0)] },
  { when: 'a replica is not ready', replicas: [replica(0), replica(1, { ready: false })] },
  { when: 'none is there', replicas: [] },
])('a waypoint is not ready when $when', ({ replicas }) => {
  expect(waypointStatuses(report(replicas), KNOWN)[0]?.ready).toBe(false);
});

test('what is not made or not configured is waited for, but not what cannot be', () => {
  const whole = report([replica(0), replica(1)]);
  expect(pendingReplicas(report([replica(0)]), KNOWN)).toEqual(['waypoint/shop/waypoint to be started']);
  expect(pendingReplicas(whole, [])).toEqual(['waypoint/shop/waypoint to have its configuration']);
  expect(pendingReplicas(whole, KNOWN)).toEqual([]);
  const problems = [{ namespace: 'shop', name: 'waypoint', message: 'no' }];
  expect(pendingReplicas(report([], { problems }), [])).toEqual([]);
});

test('a waypoint without a ready replica says whose requests are refused', () => {
  const crashed = { state: { kind: 'crashed', how: 'was killed by SIGKILL' }, ready: false } as const;
  expect(waypointProblems(report([replica(0, crashed), replica(1, { ready: false })]), KNOWN)).toEqual([
    {
      object: 'waypoint/shop/waypoint',
      position: '',
      path: '',
      message: 'was killed by SIGKILL',
      severity: 'error',
      effect: 'requests to shop/ledger.shop.svc.cluster.local are refused',
    },
    expect.objectContaining({ object: 'waypoint/shop/waypoint/1', severity: 'warning' }),
  ]);
  const [one] = waypointProblems(report([replica(0, crashed), replica(1)]), KNOWN);
  expect(one?.effect).toBe('its other replicas serve');
});

test('a replica that cannot be replaced says so in the same words all the time', () => {
  const notRenewed = { sinceMs: Date.parse('2026-01-01T12:00:00Z'), why: 'the new one was not ready' };
  const said = (ready: boolean): readonly string[] =>
    waypointProblems(report([replica(0, { ready, notRenewed })]), KNOWN).map(
      ({ message, effect, severity }) => `${severity}: ${message}; ${effect}`,
    );
  expect([said(true), said(false)]).toEqual([
    [
      'error: cannot be replaced since 2026-01-01T12:00:00Z, which is tried again: the new one was not ready; what it does goes on',
    ],
    [
      'error: is not ready, and cannot be replaced since 2026-01-01T12:00:00Z, which is tried again: the new one was not ready; requests to shop/ledger.shop.svc.cluster.local are refused',
    ],
  ]);
});
