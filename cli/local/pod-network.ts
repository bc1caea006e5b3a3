import { podAddress, podGateway } from './addresses.ts';
import { nodeNetns, podNetns, type WorkloadRef } from './names.ts';
import {
  addNamespaces,
  BASE_SYSCTLS,
  configureNamespace,
  deleteLink,
  deleteNamespaces,
  ETH0_SYSCTLS,
  ipBatch,
  listNamespaces,
} from './network-namespace.ts';

/** Where a pod's namespace goes. */
export interface PodPlace {
  readonly mesh: string;
  readonly pod: WorkloadRef;
  readonly node: { readonly name: string; readonly number: number };
  /** Decides its addresses. */
  readonly number: number;
  /** Kernel parameters of its own: path under /proc/sys to value. */
  readonly sysctls?: Readonly<Record<string, string>>;
}

/**
 * Makes a pod's network: a named namespace with `eth0`, the pod's addresses alone (no subnet: every packet passes its
 * node), and a default route to the node, which has the same address towards all of its pods.
 */
export async function addPodNetwork({ mesh, pod, node, number, sysctls }: PodPlace): Promise<void> {
  const netns = podNetns(mesh, pod);
  if (listNamespaces(mesh).includes(netns)) await deleteNamespaces([netns]);
  await addNamespaces([netns]);
  const onNode = nodeNetns(mesh, node.name);
  const link = `pod-${number}`;
  const address = podAddress(node.number, number);
  const gateway = podGateway(node.number);
  await ipBatch([`link add name ${link} netns ${onNode} type veth peer name eth0 netns ${netns}`]);
  await Promise.all([
    configureNamespace(onNode, {
      sysctls: {},
      ip: [
        `addr add ${gateway.v4}/32 dev ${link}`,
        `addr add ${gateway.v6}/128 dev ${link} nodad`,
        `link set ${link} up`,
        `route replace ${address.v4}/32 dev ${link} src ${gateway.v4}`,
        `route replace ${address.v6}/128 dev ${link} src ${gateway.v6}`,
      ],
    }),
    configureNamespace(netns, {
      sysctls: { ...BASE_SYSCTLS, ...ETH0_SYSCTLS, 'net/ipv4/ping_group_range': '0 2147483647', ...sysctls },
      ip: [
        'link set lo up',
        `addr add ${address.v4}/32 dev eth0`,
        `addr add ${address.v6}/128 dev eth0 nodad`,
        'link set eth0 up',
        `route add default via ${gateway.v4} dev eth0 onlink`,
        `route add ::/0 via ${gateway.v6} dev eth0 onlink`,
      ],
    }),
  ]);
}

/** Takes a pod's network away, link and routes included. Nothing happens when it is gone already. */
export async function removePodNetwork({ mesh, pod, node, number }: PodPlace): Promise<void> {
  // First the link: the namespace itself lives on for as long as somebody holds it.
  await deleteLink(nodeNetns(mesh, node.name), `pod-${number}`);
  const netns = podNetns(mesh, pod);
  if (listNamespaces(mesh).includes(netns)) await deleteNamespaces([netns]);
}
