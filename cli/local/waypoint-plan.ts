import type { FabricNode } from './fabric.ts';
import type { PodRecord } from './inventory.ts';
import type { WorkloadRef } from './names.ts';
import type { WantedWaypoint } from './waypoint-files.ts';

/** One process of a waypoint, with a pod of its own: the nth, counted from 0. */
export interface ReplicaRef extends WorkloadRef {
  readonly index: number;
  readonly serviceAccount: string;
}

/** Where a replica is, or another pod. */
export interface ReplicaPlace {
  readonly namespace: string;
  readonly node: string;
  /** Name of the waypoint, for a replica of one. */
  readonly waypoint?: string | undefined;
}

/** What to do, so that what is wanted runs. */
export interface ReplicaPlan {
  readonly add: readonly ReplicaRef[];
  readonly remove: readonly ReplicaRef[];
  /** Waypoints that cannot run, whatever is tried. */
  readonly unusable: readonly { readonly waypoint: WantedWaypoint; readonly reason: string }[];
}

/** What names of pods and namespaces, and so of waypoints, are made of here. */
const DNS_LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
/** More than that on one machine is a slip of the pen. */
const MAX_REPLICAS = 32;

/** `shop/waypoint/0`: what tells replicas apart. */
export function replicaKey({ namespace, name, index }: ReplicaRef): string {
  return `${namespace}/${name}/${index}`;
}

/** `waypoint/shop/waypoint`, and `waypoint/shop/waypoint/1` … for those after the first. */
export function replicaProcessName({ namespace, name, index }: ReplicaRef): string {
  return `waypoint/${namespace}/${name}${index === 0 ? '' : `/${index}`}`;
}

/** Name of a replica's pod. */
export function replicaPod({ namespace, name, index }: ReplicaRef): WorkloadRef {
  return { namespace, name: `${name}-${index}` };
}

/** The replica that a pod is the place of; undefined for a workload. */
export function replicaOf({
  namespace,
  name: pod,
  serviceAccount,
  waypoint: name,
}: Pick<PodRecord, 'namespace' | 'name' | 'serviceAccount' | 'waypoint'>): ReplicaRef | undefined {
  if (name === undefined || !pod.startsWith(`${name}-`)) return undefined;
  const index = Number(pod.slice(name.length + 1));
  return Number.isInteger(index) ? { namespace, name, serviceAccount, index } : undefined;
}

/**
 * Compares what is wanted with what there is. The highest replicas go first. One whose service account has become another is
 * removed, and added again when it is gone.
 */
export function planReplicas(wanted: readonly WantedWaypoint[], present: readonly ReplicaRef[]): ReplicaPlan {
  const judged = wanted.map((waypoint) => ({ waypoint, reason: whyUnusable(waypoint) }));
  const refs = judged.flatMap(({ waypoint, reason }) => (reason === undefined ? replicasOf(waypoint) : []));
  const wantedByKey = new Map(refs.map((ref) => [replicaKey(ref), ref]));
  const taken = new Set(present.map(replicaKey));
  return {
    add: refs.filter((ref) => !taken.has(replicaKey(ref))),
    remove: present
      .filter((ref) => wantedByKey.get(replicaKey(ref))?.serviceAccount !== ref.serviceAccount)
      .toSorted((a, b) => b.index - a.index),
    unusable: judged.flatMap(({ waypoint, reason }) => (reason === undefined ? [] : [{ waypoint, reason }])),
  };
}

/**
 * Chooses the node of a new replica: the one with the fewest replicas of the same waypoint, then with the fewest pods, then
 * the first. External nodes come last: nobody says how long they stay.
 */
export function chooseReplicaNode(
  nodes: readonly FabricNode[],
  pods: readonly ReplicaPlace[],
  waypoint: WorkloadRef,
): string | undefined {
  const score = ({ name, external }: FabricNode): readonly [number, number, number] => {
    const here = pods.filter(({ node }) => node === name);
    const same = here.filter((pod) => pod.waypoint === waypoint.name && pod.namespace === waypoint.namespace);
    return [external ? 1 : 0, same.length, here.length];
  };
  const [best] = nodes
    .map((node) => ({ node, score: score(node) }))
    .toSorted((a, b) => compareScores(a.score, b.score));
  return best?.node.name;
}

function replicasOf({ namespace, name, serviceAccount, replicas }: WantedWaypoint): readonly ReplicaRef[] {
  return Array.from({ length: replicas }, (_, index) => ({
    namespace,
    name,
    serviceAccount,
    index,
  }));
}

function whyUnusable({ namespace, name, replicas }: WantedWaypoint): string | undefined {
  if (!DNS_LABEL.test(namespace)) return `${JSON.stringify(namespace)} cannot be the namespace of a pod here`;
  if (!DNS_LABEL.test(`${name}-${Math.max(0, replicas - 1)}`)) {
    return `its pods would be called ${name}-0, which is no name here: at most 61 lower-case letters, digits and '-'`;
  }
  if (replicas > MAX_REPLICAS) {
    return `${replicas} replicas are more than one machine runs (${MAX_REPLICAS}): ask for fewer in its ConfigMap`;
  }
  return undefined;
}

function compareScores(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) {
    const difference = value - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
