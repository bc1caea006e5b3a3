import {
  type AddressPair,
  CONTROL_PLANE_ADDRESS,
  FABRIC_PREFIX_LENGTH,
  nodeAddress,
  podRange,
} from './addresses.ts';
import { controlPlaneNetns, fabricNetns, nodeNetns, podNetnsPrefix } from './names.ts';
import {
  addNamespaces,
  BASE_SYSCTLS,
  configureNamespace,
  deleteLink,
  deleteNamespaces,
  ETH0_SYSCTLS,
  FORWARDING_SYSCTLS,
  ipBatch,
  listNamespaces,
} from './network-namespace.ts';

/** A node of a mesh on one machine: a network namespace. */
export interface FabricNode {
  readonly name: string;
  /** From 1: decides its addresses; kept as long as the fabric stands. */
  readonly number: number;
  /** Everything but a ztunnel, which somebody else starts in it. */
  readonly external: boolean;
}

/** A namespace on the fabric's bridge. */
interface Member {
  readonly netns: string;
  /** Its end of the link at the bridge. */
  readonly port: string;
  readonly address: AddressPair;
  readonly sysctls: Readonly<Record<string, string>>;
}

const BRIDGE = 'bridge0';

/**
 * Makes what is missing of the fabric: a namespace with a bridge, one for the control plane and one a node, joined to it
 * by links, with routes to the pods of every (other) node. Nothing is added to the host's own namespace.
 * `complete` are the namespaces that an earlier call finished; all others but pods' are removed, and made anew where they are wanted. Returns the names of
 * all that are complete now.
 */
export async function buildFabric(
  mesh: string,
  nodes: readonly FabricNode[],
  complete: ReadonlySet<string>,
): Promise<readonly string[]> {
  const bridge = fabricNetns(mesh);
  const members = [controlPlaneMember(mesh), ...nodes.map((node) => nodeMember(mesh, node))];
  const wanted = [bridge, ...members.map(({ netns }) => netns)];
  const present = new Set(listNamespaces(mesh));
  const usable = new Set(
    complete.has(bridge) ? wanted.filter((name) => complete.has(name) && present.has(name)) : [],
  );
  const stale = [...present].filter((name) => !usable.has(name) && !name.startsWith(podNetnsPrefix(mesh)));
  await deleteNamespaces(stale);
  await addNamespaces(wanted.filter((name) => !usable.has(name)));
  if (!usable.has(bridge)) await makeBridge(bridge);
  const fresh = members.filter(({ netns }) => !usable.has(netns));
  await joinMembers(bridge, fresh, usable.has(bridge));
  await Promise.all([
    ...nodes.map((node) => routeToPods(nodeNetns(mesh, node.name), othersOf(node, nodes))),
    // The way back to waypoints, which are clients of the control plane with addresses of their own.
    routeToPods(controlPlaneNetns(mesh), nodes),
  ]);
  return wanted;
}

function controlPlaneMember(mesh: string): Member {
  return {
    netns: controlPlaneNetns(mesh),
    port: 'control-plane',
    address: CONTROL_PLANE_ADDRESS,
    sysctls: BASE_SYSCTLS,
  };
}

function nodeMember(mesh: string, node: FabricNode): Member {
  return {
    netns: nodeNetns(mesh, node.name),
    port: `node-${node.number}`,
    address: nodeAddress(node.number),
    sysctls: FORWARDING_SYSCTLS,
  };
}

async function makeBridge(netns: string): Promise<void> {
  const ip = ['link set lo up', `link add ${BRIDGE} type bridge`, `link set ${BRIDGE} up`];
  await configureNamespace(netns, { sysctls: BASE_SYSCTLS, ip });
}

async function joinMembers(bridge: string, members: readonly Member[], maybeStale: boolean): Promise<void> {
  if (members.length === 0) return;
  if (maybeStale) {
    // The far end of a link whose namespace was just deleted goes a moment later by itself; its name is needed now.
    for (const { port } of members) await deleteLink(bridge, port);
  }
  await ipBatch(
    members.map(
      ({ netns, port }) => `link add name ${port} netns ${bridge} type veth peer name eth0 netns ${netns}`,
    ),
  );
  const ports = members.map(({ port }) => `link set ${port} master ${BRIDGE} up`);
  await Promise.all([
    configureNamespace(bridge, { sysctls: {}, ip: ports }),
    ...members.map(({ netns, address, sysctls }) =>
      configureNamespace(netns, {
        sysctls: { ...sysctls, ...ETH0_SYSCTLS },
        ip: [
          'link set lo up',
          `addr add ${address.v4}/${FABRIC_PREFIX_LENGTH.v4} dev eth0`,
          `addr add ${address.v6}/${FABRIC_PREFIX_LENGTH.v6} dev eth0 nodad`,
          'link set eth0 up',
        ],
      }),
    ),
  ]);
}

function othersOf(node: FabricNode, nodes: readonly FabricNode[]): readonly FabricNode[] {
  return nodes.filter(({ number }) => number !== node.number);
}

/** Routes from a namespace on the bridge to the pods of nodes. */
async function routeToPods(netns: string, nodes: readonly FabricNode[]): Promise<void> {
  if (nodes.length === 0) return;
  const ip = nodes.flatMap(({ number }) => {
    const range = podRange(number);
    const via = nodeAddress(number);
    return [
      `route replace ${range.v4} via ${via.v4} dev eth0`,
      `route replace ${range.v6} via ${via.v6} dev eth0`,
    ];
  });
  await configureNamespace(netns, { sysctls: {}, ip });
}
