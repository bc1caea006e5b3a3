import type { Reason } from '#bpf/layout.ts';
import { handedOverText } from './handed-over.ts';
import type { MeshStatus, NodeStatus } from './mesh-status.ts';
import { formatWorkloadRef } from './names.ts';
import type { RouteStatusEntry } from './route-status.ts';
import type { WaypointStatus } from './waypoint-status.ts';
import type { WorkloadStatus } from './workload-status.ts';

/** `tulle status` for people: a table each of nodes, workloads, services, waypoints, routes, faults and policies, and the problems. */
export function formatStatus(status: MeshStatus): string {
  const { controlPlane } = status;
  const head = [
    `mesh ${status.ready ? 'ready' : 'not ready'}, trust domain ${status.trustDomain || 'not known yet'}`,
    `control plane ${controlPlane.pid === null ? 'does not run' : `pid ${controlPlane.pid}`}, ${controlPlane.address}, restarts ${controlPlane.restarts}`,
  ].join('\n');
  const sections = [
    section(
      'NODES',
      ['NAME', 'ADDRESS', 'ZTUNNEL', 'RESTARTS', 'CONFIGURATION', 'NETNS'],
      status.nodes.map(nodeRow),
    ),
    section(
      'WORKLOADS',
      ['NAME', 'NODE', 'ADDRESS', 'MESH', 'IDENTITY', 'CERTIFICATE', 'PID'],
      status.workloads.map(workloadRow),
    ),
    section(
      'NOT IN THE MESH YET',
      ['WORKLOAD', 'SINCE', 'WHY'],
      status.workloads.flatMap((one) =>
        one.pending === null ? [] : [[formatWorkloadRef(one), one.pendingSince ?? '-', one.pending]],
      ),
    ),
    section(
      'NOT BY EBPF',
      ['WORKLOAD', 'CAPTURED'],
      status.workloads.flatMap((one) =>
        one.captureReason === null ? [] : [[formatWorkloadRef(one), `by packet rules: ${one.captureReason}`]],
      ),
    ),
    section('LAST RESTARTS', ['ZTUNNEL', 'CONNECTIONS'], status.nodes.flatMap(handedOverRows)),
    section('REFUSED', ['WORKLOAD', 'REASON', 'COUNT', 'WHAT'], status.workloads.flatMap(refusedRows)),
    section(
      'SERVICES',
      ['NAME', 'ADDRESSES', 'WAYPOINT'],
      status.services.map(({ hostname, addresses, waypoint }) => [
        hostname,
        addresses.join(' '),
        waypoint ?? '-',
      ]),
    ),
    section(
      'WAYPOINTS',
      ['NAME', 'READY', 'PIDS', 'NODES', 'RESTARTS', 'CONFIGURATION', 'SERVES'],
      status.waypoints.map(waypointRow),
    ),
    section('ROUTES', ['OBJECT', 'PARENT', 'CONDITIONS'], status.routes.flatMap(routeRows)),
    section(
      'SPLITS',
      ['OBJECT', 'RULE', 'BACKEND', 'WEIGHT', 'WANTED', 'OBSERVED', 'REQUESTS'],
      status.routes.flatMap(splitRows),
    ),
    section(
      'FAULTS IN FORCE',
      ['POLICY', 'FAULT', 'AFFECTS', 'ENDS'],
      status.faults.map(({ policy, name, targets, endsAt }) => [policy, name, targets.join(' '), endsAt]),
    ),
    section(
      'POLICIES',
      ['OBJECT', 'ENFORCED BY', 'ACKNOWLEDGED', 'INEFFECTIVE'],
      status.policies.map(({ object, enforcedBy, acknowledged, ineffective }) => [
        object,
        enforcedBy.join(' ') || '-',
        acknowledged,
        ineffective.map(({ rule, reason }) => `rule ${rule}: ${reason}`).join('; ') || '-',
      ]),
    ),
    ...(status.problems.length === 0 ? [] : [['PROBLEMS', ...status.problems.map(formatProblem)].join('\n')]),
  ];
  return [head, ...sections.filter((text) => text !== '')].join('\n\n');
}

/** Columns as wide as their widest cell. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** `AuthorizationPolicy shop/p (a.yaml:3:5 spec.action): what is wrong; what holds instead`. */
export function formatProblem(problem: MeshStatus['problems'][number]): string {
  const place = [problem.position, problem.path].filter((part) => part !== '').join(' ');
  return `${problem.object}${place === '' ? '' : ` (${place})`}: ${problem.message}; ${problem.effect}`;
}

function section(title: string, header: readonly string[], rows: readonly (readonly string[])[]): string {
  return rows.length === 0 ? '' : `${title}\n${formatTable([header, ...rows])}`;
}

function nodeRow(node: NodeStatus): readonly string[] {
  const { ztunnel, xds } = node;
  return [
    node.name,
    node.address,
    ztunnel === null ? 'external' : describeProcess(ztunnel.pid, ztunnel.ready),
    ztunnel === null ? '-' : `${ztunnel.restarts}`,
    configurationText(xds),
    node.netns,
  ];
}

/** Of a ztunnel whose last restart met connections. */
function handedOverRows({ name, ztunnel }: NodeStatus): readonly (readonly string[])[] {
  const handedOver = ztunnel?.handedOver ?? {};
  return Object.keys(handedOver).length === 0 ? [] : [[name, handedOverText(handedOver)]];
}

function waypointRow(waypoint: WaypointStatus): readonly string[] {
  const { replicas } = waypoint;
  return [
    `${waypoint.namespace}/${waypoint.name}`,
    `${replicas.filter(({ ready }) => ready).length}/${replicas.length}`,
    replicas.map(({ pid }) => pid ?? '-').join(' ') || '-',
    replicas.map(({ node }) => node).join(' ') || '-',
    `${replicas.reduce((sum, { restarts }) => sum + restarts, 0)}`,
    configurationText(waypoint.xds),
    waypoint.serves.join(' ') || '-',
  ];
}

function routeRows({ object, parents }: RouteStatusEntry): readonly (readonly string[])[] {
  if (parents.length === 0) return [[object, '-', '-']];
  return parents.map(({ parentRef, conditions }) => [
    object,
    parentText(parentRef),
    conditions
      .map(({ type, status, reason }) => `${type}=${status}${reason === type ? '' : ` (${reason})`}`)
      .join(' '),
  ]);
}

/** As it is written: `Service shop/catalog:8080`. */
function parentText(parentRef: Readonly<Record<string, unknown>>): string {
  const { kind = 'Gateway', namespace, name, port } = parentRef;
  const path = [namespace, name].filter((part) => part !== undefined).join('/');
  return `${String(kind)} ${path}${port === undefined ? '' : `:${String(port)}`}`;
}

function splitRows({ object, split }: RouteStatusEntry): readonly (readonly string[])[] {
  const byRule = Map.groupBy(split, ({ rule }) => rule);
  return [...byRule.values()].flatMap((backends) => {
    const total = backends.reduce((sum, { weight }) => sum + weight, 0);
    return backends.map(({ rule, backend, weight, requests, observed }) => [
      object,
      `${rule}`,
      backend,
      `${weight}`,
      total === 0 ? '-' : percent(weight / total),
      observed === null ? '-' : percent(observed),
      `${requests}`,
    ]);
  });
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}

/** `Address 12/12, Cluster 3/4 rejected 1`. */
function configurationText(xds: NodeStatus['xds']): string {
  const types = xds.map(({ type, sent, acked, rejected }) => {
    const name = type.slice(type.lastIndexOf('.') + 1);
    return `${name} ${acked}/${sent}${rejected.length === 0 ? '' : ` rejected ${rejected.length}`}`;
  });
  return types.join(', ') || '-';
}

function meshText({ enrolled, capture, pending }: WorkloadStatus): string {
  if (enrolled) return `in (${capture})`;
  return pending === null ? 'out' : 'waits';
}

function workloadRow(workload: WorkloadStatus): readonly string[] {
  const { certificate, capabilities } = workload;
  return [
    formatWorkloadRef(workload),
    workload.node || '-',
    workload.addresses[0] ?? '-',
    meshText(workload),
    workload.identity + (capabilities.length === 0 ? '' : ` +${capabilities.join(' +')}`),
    certificate === null ? '-' : `until ${certificate.notAfter}`,
    workload.pid === null ? '-' : `${workload.pid}`,
  ];
}

/** By reason as the node agent reports it. */
const REFUSED: Readonly<Record<Reason, string>> = {
  outbound_without_ztunnel: 'connections while there was no ztunnel',
  inbound_without_ztunnel: 'callers while there was no ztunnel',
  plaintext_refused: 'callers without an identity, as policies say',
  egress_tcp: 'connections that went round the mesh',
  egress_raw: 'packets of raw sockets',
  udp_outbound: 'UDP to others',
  udp_inbound: 'UDP from others',
  mesh_port_bound: 'tries to take a port of the mesh',
  egress_fragment: 'fragments of packets',
  egress_protocol: 'packets that are neither TCP, UDP nor ICMP',
  no_memory: 'connections that the kernel had no memory to capture',
  egress_seen: 'connections that went round the mesh, and were let pass',
  mesh_port_dialled: 'callers of a port of the mesh that is not for them',
};

function refusedRows(workload: WorkloadStatus): readonly (readonly string[])[] {
  return Object.entries(workload.refused).map(([reason, count]) => [
    formatWorkloadRef(workload),
    reason,
    `${count}`,
    Object.hasOwn(REFUSED, reason) ? REFUSED[reason as Reason] : '',
  ]);
}

function describeProcess(pid: number | null, ready: boolean): string {
  if (pid === null) return 'does not run';
  return `pid ${pid}${ready ? '' : ', not ready'}`;
}
