import type { Facts } from './decide.ts';

/** Which pods of the mesh, on whichever node, are on their way in or out. */
export interface Movement {
  /** Takes the orders of all nodes. Milliseconds of a clock that never goes back. */
  readonly order: (pods: readonly MeshOrder[], nowMs: number) => void;
  /** How long some pod may still be on its way; 0: all are where they should be, or late. */
  readonly leftMs: (nowMs: number) => number;
}

/** Whether a pod of the mesh should be in it. */
export interface MeshOrder {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly enrol: boolean;
}

/** A pod that has not come where it should within this time is waited for no longer. */
const MOVE_MS = 1_500;

/** Compares what is ordered with what the workload API says. */
export function createMovement(told: (pod: MeshOrder) => Facts['told']): Movement {
  let orders = new Map<string, MeshOrder & { readonly sinceMs: number }>();
  return {
    order: (pods, nowMs) => {
      orders = new Map(
        pods.map((pod) => {
          const last = orders.get(pod.uid);
          const sinceMs = last?.enrol === pod.enrol ? last.sinceMs : nowMs;
          return [pod.uid, { ...pod, sinceMs }];
        }),
      );
    },
    leftMs: (nowMs) => {
      let left = 0;
      for (const pod of orders.values()) {
        const may = pod.sinceMs + MOVE_MS - nowMs;
        if (may > left && (told(pod)?.tunnel === 'HBONE') !== pod.enrol) left = may;
      }
      return left;
    },
  };
}
