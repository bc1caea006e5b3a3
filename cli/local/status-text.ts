import type { MeshStatus, NodeStatus, WorkloadStatus } from './mesh-status.ts';

/** `tulle status` for people: a table each of nodes, workloads, services and policies, and the problems. */
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
      'SERVICES',
      ['NAME', 'ADDRESSES', 'WAYPOINT'],
      status.services.map(({ hostname, addresses, waypoint }) => [
        hostname,
        addresses.join(' '),
        waypoint ?? '-',
      ]),
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
  const configuration = xds.map(({ type, sent, acked, rejected }) => {
    const name = type.slice(type.lastIndexOf('.') + 1);
    return `${name} ${acked}/${sent}${rejected.length === 0 ? '' : ` rejected ${rejected.length}`}`;
  });
  return [
    node.name,
    node.address,
    ztunnel === null ? 'external' : describeProcess(ztunnel.pid, ztunnel.ready),
    ztunnel === null ? '-' : `${ztunnel.restarts}`,
    configuration.join(', ') || '-',
    node.netns,
  ];
}

function workloadRow(workload: WorkloadStatus): readonly string[] {
  const { certificate, capabilities } = workload;
  return [
    `${workload.namespace}/${workload.name}`,
    workload.node || '-',
    workload.addresses[0] ?? '-',
    workload.enrolled ? `in (${workload.capture})` : 'out',
    workload.identity + (capabilities.length === 0 ? '' : ` +${capabilities.join(' +')}`),
    certificate === null ? '-' : `until ${certificate.notAfter}`,
    workload.pid === null ? '-' : `${workload.pid}`,
  ];
}

function describeProcess(pid: number | null, ready: boolean): string {
  if (pid === null) return 'does not run';
  return `pid ${pid}${ready ? '' : ', not ready'}`;
}
