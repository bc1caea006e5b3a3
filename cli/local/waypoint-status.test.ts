import { expect, test } from 'vitest';
import type { ControlPlaneStatus } from '#control-plane/status.ts';
import type { ReplicaReport, WaypointsReport } from './waypoint-report.ts';
import { pendingReplicas, waypointProblems, waypointStatuses } from './waypoint-status.ts';

const BOUND = 'shop/waypoint.shop.svc.cluster.local';

const CONTROL_PLANE: Pick<ControlPlaneStatus, 'services' | 'workloads'> = {
  services: ['waypoint', 'ledger', 'free'].map((name) => ({
    namespace: 'shop',
    name,
    hostname: `${name}.shop.svc.cluster.local`,
    addresses: ['10.96.0.9'],
    waypoint: name === 'ledger' ? BOUND : null,
  })),
  workloads: [],
};

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
  const [waypoint] = waypointStatuses(report([replica(0), replica(1)]), CONTROL_PLANE);
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
  expect(waypointStatuses(report(replicas), CONTROL_PLANE)[0]?.ready).toBe(false);
});

test('replicas that are still to be made are waited for, but not those that cannot be', () => {
  expect(pendingReplicas(report([replica(0)]))).toEqual(['waypoint/shop/waypoint to be started']);
  expect(pendingReplicas(report([replica(0), replica(1)]))).toEqual([]);
  const problems = [{ namespace: 'shop', name: 'waypoint', message: 'no' }];
  expect(pendingReplicas(report([], { problems }))).toEqual([]);
});

test('a waypoint without a ready replica says whose requests are refused', () => {
  const crashed = { state: { kind: 'crashed', how: 'was killed by SIGKILL' }, ready: false } as const;
  expect(
    waypointProblems(report([replica(0, crashed), replica(1, { ready: false })]), CONTROL_PLANE),
  ).toEqual([
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
  const [one] = waypointProblems(report([replica(0, crashed), replica(1)]), CONTROL_PLANE);
  expect(one?.effect).toBe('its other replicas serve');
});
