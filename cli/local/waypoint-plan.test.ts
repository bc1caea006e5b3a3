import { expect, test } from 'vitest';
import type { WantedWaypoint } from './waypoint-files.ts';
import { chooseReplicaNode, planReplicas, type ReplicaRef, replicaProcessName } from './waypoint-plan.ts';

function wanted(replicas: number, changes: Partial<WantedWaypoint> = {}): WantedWaypoint {
  return { namespace: 'shop', name: 'waypoint', serviceAccount: 'waypoint', replicas, ...changes };
}

function replica(index: number, changes: Partial<ReplicaRef> = {}): ReplicaRef {
  return { namespace: 'shop', name: 'waypoint', serviceAccount: 'waypoint', index, ...changes };
}

test.each([
  { when: 'a waypoint is new', want: [wanted(2)], have: [], add: [0, 1], remove: [] },
  { when: 'it is there', want: [wanted(2)], have: [replica(0), replica(1)], add: [], remove: [] },
  { when: 'it grows', want: [wanted(3)], have: [replica(0)], add: [1, 2], remove: [] },
  {
    when: 'it shrinks',
    want: [wanted(1)],
    have: [replica(0), replica(1), replica(2)],
    add: [],
    remove: [2, 1],
  },
  { when: 'it is wanted no more', want: [], have: [replica(0)], add: [], remove: [0] },
  { when: 'it has no replicas', want: [wanted(0)], have: [replica(0)], add: [], remove: [0] },
  {
    when: 'its account is another',
    want: [wanted(1, { serviceAccount: 'other' })],
    have: [replica(0)],
    add: [],
    remove: [0],
  },
])('replicas to add and to remove when $when', ({ want, have, add, remove }) => {
  const plan = planReplicas(want, have);
  expect(plan.add.map(({ index }) => index)).toEqual(add);
  expect(plan.remove.map(({ index }) => index)).toEqual(remove);
  expect(plan.unusable).toEqual([]);
});

test.each([
  { when: 'a dot in its name', waypoint: wanted(1, { name: 'a.b' }), says: /no name here/ },
  { when: 'a name that is a path', waypoint: wanted(1, { name: '../x' }), says: /no name here/ },
  { when: 'a name that leaves no room', waypoint: wanted(1, { name: 'a'.repeat(63) }), says: /61/ },
  { when: 'a namespace that is none', waypoint: wanted(1, { namespace: 'A' }), says: /namespace/ },
  { when: 'a slip of the pen', waypoint: wanted(1000), says: /ask for fewer/ },
])('a waypoint with $when is not run, and the reason is said', ({ waypoint, says }) => {
  const plan = planReplicas([waypoint, wanted(1, { name: 'good' })], []);
  expect(plan.add.map(({ name }) => name)).toEqual(['good']);
  expect(plan.unusable).toHaveLength(1);
  expect(plan.unusable[0]?.reason).toMatch(says);
});

test('the first replica has the name of its waypoint, the others a number beside', () => {
  expect([0, 1].map((index) => replicaProcessName(replica(index)))).toEqual([
    'waypoint/shop/waypoint',
    'waypoint/shop/waypoint/1',
  ]);
});

const NODES = [
  { name: 'n1', number: 1, external: false },
  { name: 'n2', number: 2, external: false },
  { name: 'far', number: 3, external: true },
];

test.each([
  { when: 'all are empty', pods: [], node: 'n1' },
  { when: 'one has a replica', pods: [{ namespace: 'shop', node: 'n1', waypoint: 'waypoint' }], node: 'n2' },
  {
    when: 'one has a replica, and the other more pods',
    pods: [
      { namespace: 'shop', node: 'n1', waypoint: 'waypoint' },
      { namespace: 'shop', node: 'n2' },
      { namespace: 'shop', node: 'n2', waypoint: 'other' },
      { namespace: 'else', node: 'n2', waypoint: 'waypoint' },
    ],
    node: 'n2',
  },
  { when: 'one has more pods', pods: [{ namespace: 'shop', node: 'n1' }], node: 'n2' },
])('a replica goes to $node when $when', ({ pods, node }) => {
  expect(chooseReplicaNode(NODES, pods, { namespace: 'shop', name: 'waypoint' })).toBe(node);
});

test('an external node is taken only when there is no other', () => {
  const ref = { namespace: 'shop', name: 'waypoint' };
  expect(chooseReplicaNode(NODES.slice(2), [], ref)).toBe('far');
  expect(chooseReplicaNode([], [], ref)).toBeUndefined();
});
