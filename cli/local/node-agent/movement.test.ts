import { expect, test } from 'vitest';
import { createMovement, type MeshOrder } from './movement.ts';

const pod = (uid: string, enrol: boolean): MeshOrder => ({ uid, namespace: 'shop', name: uid, enrol });

test('a pod is on its way until the workload API says that it has arrived, or until it is late', () => {
  const tunnels = new Set<string>();
  const movement = createMovement(({ uid }) => ({ tunnel: tunnels.has(uid) ? 'HBONE' : 'NONE', sinceMs: 0 }));
  movement.order([pod('a', false), pod('b', false)], 0);
  expect(movement.leftMs(100)).toBe(0);
  movement.order([pod('a', true), pod('b', true)], 1_000);
  tunnels.add('a');
  movement.order([pod('a', true), pod('b', true)], 1_400);
  expect(movement.leftMs(1_500)).toBe(1_000);
  tunnels.add('b');
  expect(movement.leftMs(1_500)).toBe(0);
  movement.order([pod('a', false), pod('b', true)], 2_000);
  expect(movement.leftMs(2_500)).toBe(1_000);
  expect(movement.leftMs(3_600)).toBe(0);
  movement.order([pod('b', true)], 4_000);
  expect(movement.leftMs(4_000)).toBe(0);
});
