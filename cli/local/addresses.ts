/**
 * The address plan, the same for every mesh: nothing of it exists outside the mesh's own namespaces.
 * Nodes and pods are counted from 1; a pod's number on its node is the last part of its addresses.
 */

/** An IPv4 and an IPv6 address of one thing. */
export interface AddressPair {
  readonly v4: string;
  readonly v6: string;
}

/** Nodes that the plan has room for, and pods a node. */
export const MAX_NODES: 200 = 200;
/** Pods take the numbers 2 to this one. */
export const MAX_POD_NUMBER: 254 = 254;
export const FIRST_POD_NUMBER: 2 = 2;

/** What is inside the mesh: fabric and pods. Dialled from a pod, never from the host's namespace. */
export const FABRIC_CIDRS: readonly string[] = [
  '10.240.0.0/24',
  '10.244.0.0/16',
  'fd00:10:240::/64',
  'fd00:10:244::/48',
];

/** Prefix lengths of the fabric's bridge. */
export const FABRIC_PREFIX_LENGTH: { readonly v4: 24; readonly v6: 64 } = { v4: 24, v6: 64 };

export const CONTROL_PLANE_ADDRESS: AddressPair = { v4: '10.240.0.2', v6: 'fd00:10:240::2' };
export const CONTROL_PLANE_PORT: 15012 = 15012;

/** Address of a node on the fabric. */
export function nodeAddress(node: number): AddressPair {
  return { v4: `10.240.0.${node + 10}`, v6: `fd00:10:240::${node + 10}` };
}

/** Range of a node's pods. */
export function podRange(node: number): AddressPair {
  return { v4: `10.244.${node}.0/24`, v6: `fd00:10:244:${node}::/64` };
}

/** The node's own address towards its pods: their gateway and resolver. */
export function podGateway(node: number): AddressPair {
  return { v4: `10.244.${node}.1`, v6: `fd00:10:244:${node}::1` };
}

/** Addresses of a node's pod. */
export function podAddress(node: number, pod: number): AddressPair {
  return { v4: `10.244.${node}.${pod}`, v6: `fd00:10:244:${node}::${pod}` };
}

/**
 * The next free pod number after the last one given out, so that an address rests as long as possible before somebody
 * else has it; undefined when all are taken.
 */
export function nextPodNumber(taken: ReadonlySet<number>, last: number): number | undefined {
  const count = MAX_POD_NUMBER - FIRST_POD_NUMBER + 1;
  for (let step = 1; step <= count; step++) {
    const number = FIRST_POD_NUMBER + ((last - FIRST_POD_NUMBER + step + count) % count);
    if (!taken.has(number)) return number;
  }
  return undefined;
}
