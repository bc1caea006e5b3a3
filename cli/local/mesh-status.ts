import type {
  ControlPlaneStatus,
  StatusClient,
  StatusPolicy,
  StatusProblem,
  StatusService,
} from '#control-plane/status.ts';
import type { StatusFault } from '#control-plane/status-waypoints.ts';
import { CONTROL_PLANE_ADDRESS, nodeAddress } from './addresses.ts';
import { type AuthorityCertificate, authorityProblems } from './authority-problems.ts';
import type { FabricNode } from './fabric.ts';
import type { HandedOver } from './handed-over.ts';
import { controlPlaneNetns, formatWorkloadRef, nodeNetns } from './names.ts';
import { certificateProblems, certificatesHold, notRenewedText, sinceText } from './outages.ts';
import { type RouteStatusEntry, routeStatuses } from './route-status.ts';
import type { NotRenewed, ProcessState } from './supervised-process.ts';
import type { WaypointsReport } from './waypoint-report.ts';
import {
  isSettled,
  pendingReplicas,
  type WaypointStatus,
  waypointProblems,
  waypointStatuses,
} from './waypoint-status.ts';
import {
  certificateOf,
  stateOf,
  type WorkloadSources,
  type WorkloadStatus,
  workloadStatuses,
} from './workload-status.ts';

/** `status -o json`; design section 8 is the contract for its fields. */
export interface MeshStatus {
  readonly ready: boolean;
  readonly trustDomain: string;
  readonly controlPlane: {
    readonly pid: number | null;
    readonly address: string;
    readonly netns: string;
    readonly restarts: number;
  };
  readonly problems: readonly StatusProblem[];
  readonly nodes: readonly NodeStatus[];
  readonly waypoints: readonly WaypointStatus[];
  readonly workloads: readonly WorkloadStatus[];
  readonly services: readonly StatusService[];
  readonly routes: readonly RouteStatusEntry[];
  /** Those that are injected now. */
  readonly faults: readonly StatusFault[];
  readonly policies: readonly StatusPolicy[];
}

export interface NodeStatus {
  readonly name: string;
  readonly address: string;
  readonly netns: string;
  /** Null on an external node. */
  readonly ztunnel: {
    readonly pid: number | null;
    readonly ready: boolean;
    readonly restarts: number;
    readonly workers: number;
    /** What became of the connections that its last restart met; null: it does not say. */
    readonly handedOver: HandedOver | null;
  } | null;
  readonly xds: StatusClient['xds'];
}

/** A process of the mesh, as its supervisor sees it. */
export interface ProcessReport {
  readonly name: string;
  readonly state: ProcessState;
  readonly restarts: number;
  readonly ready: boolean;
  /** Since when it has not done its work, in milliseconds since the epoch; absent while it does, or starts for the first time. */
  readonly downSince?: number | undefined;
  /** It should have been replaced, and could not be. */
  readonly notRenewed?: NotRenewed | undefined;
}

/** All that the status is made of. */
export interface StatusSources extends WorkloadSources {
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
  readonly mesh: string;
  readonly processes: readonly ProcessReport[];
  /** Byte workers of each ztunnel. */
  readonly workers: number;
  /** What the ztunnel of a node says of its last restart. */
  readonly handedOver?: ReadonlyMap<string, HandedOver>;
  /** Who signs. */
  readonly authority?: readonly AuthorityCertificate[];
  /** What ztunnels refuse for want of something. */
  readonly shortages?: readonly StatusProblem[];
  readonly waypoints: WaypointsReport;
  /** What the supervisor itself cannot do now. */
  readonly supervisor: readonly { readonly message: string; readonly effect: string }[];
}

/** Puts the parts together. */
export function composeStatus(sources: StatusSources): MeshStatus {
  const { mesh, controlPlane } = sources;
  const process = processReport(sources, 'control-plane');
  return {
    ready: pendingParts(sources).length === 0,
    trustDomain: controlPlane?.trustDomain ?? '',
    controlPlane: {
      pid: pidOf(process),
      address: CONTROL_PLANE_ADDRESS.v4,
      netns: controlPlaneNetns(mesh),
      restarts: process?.restarts ?? 0,
    },
    problems: [
      ...sources.supervisor.map((problem) => ownProblem(problem)),
      ...processProblems(sources),
      ...authorityProblems(sources.authority ?? [], sources.nowMs),
      ...certificateProblems(sources),
      ...(sources.shortages ?? []),
      ...waypointProblems(sources.waypoints, controlPlane?.waypoints ?? []),
      ...(controlPlane?.problems ?? []),
    ],
    nodes: sources.nodes.map((node) => nodeStatus(sources, node)),
    waypoints: waypointStatuses(sources.waypoints, controlPlane?.waypoints ?? []),
    workloads: workloadStatuses(sources),
    services: controlPlane?.services ?? [],
    routes: routeStatuses(
      controlPlane?.routes ?? [],
      sources.waypoints.replicas.flatMap(({ splits }) => splits),
    ),
    faults: controlPlane?.faults ?? [],
    policies: controlPlane?.policies ?? [],
  };
}

/** What the mesh is still waiting for before it is ready; one line each. */
export function pendingParts(sources: StatusSources): readonly string[] {
  const processes = sources.processes
    .filter(({ state, ready }) => state.kind !== 'running' || !ready)
    .map(({ name }) => `${name} to be ready`);
  const configuration = sources.nodes
    .filter(({ external }) => !external)
    .filter((node) => !isConfigured(sources.controlPlane, node.name))
    .map(({ name }) => `ztunnel/${name} to have its configuration`);
  const certificates = sources.pods
    .filter(({ record }) => stateOf(sources, record.uid, record.node).kind === 'enrolled')
    .filter(({ record }) => certificateOf(sources, record) === null)
    .map(({ record }) => `${formatWorkloadRef(record)} to have its certificate`);
  return [
    ...processes,
    ...pendingReplicas(sources.waypoints, sources.controlPlane?.waypoints ?? []),
    ...configuration,
    ...certificates,
  ];
}

function isConfigured(report: ControlPlaneStatus | undefined, node: string): boolean {
  const clients = report?.clients.filter((client) => client.node === node && client.connected) ?? [];
  return clients.some((client) => client.xds.length >= 2 && isSettled(client));
}

function nodeStatus(sources: StatusSources, node: FabricNode): NodeStatus {
  const process = processReport(sources, `ztunnel/${node.name}`);
  const client = sources.controlPlane?.clients.find((one) => one.node === node.name);
  return {
    name: node.name,
    address: nodeAddress(node.number).v4,
    netns: nodeNetns(sources.mesh, node.name),
    ztunnel:
      process === undefined
        ? null
        : {
            pid: pidOf(process),
            ready: process.ready,
            restarts: process.restarts,
            workers: sources.workers,
            handedOver: sources.handedOver?.get(node.name) ?? null,
          },
    xds: client?.xds ?? [],
  };
}

/** Processes that do not run are problems as well: what they did stays in force, what is new is not seen. */
function processProblems(sources: StatusSources): readonly StatusProblem[] {
  return sources.processes.flatMap((process) => {
    const { name, state, ready } = process;
    const message = whatIsWrong(process);
    if (message === undefined || name.startsWith('waypoint/')) return [];
    const serves = state.kind === 'running' && ready;
    const effect = serves ? 'what it does goes on' : effectOf(sources, name);
    return [{ object: name, position: '', path: '', message, severity: 'error', effect }];
  });
}

function whatIsWrong(process: ProcessReport): string | undefined {
  const { state, ready, notRenewed } = process;
  if (state.kind !== 'running') {
    return `${state.kind === 'stopped' ? 'is stopped' : state.how}${sinceText(process)}`;
  }
  // Started again, and as little use as before.
  if (!ready && state.after !== undefined) return `${state.after}${sinceText(process)}`;
  return notRenewed && notRenewedText(notRenewed, ready);
}

function effectOf(sources: StatusSources, name: string): string {
  if (name.startsWith('ztunnel/')) {
    return 'connections of its workloads are refused; those of workloads captured by eBPF that need not be closed go direct';
  }
  if (name.startsWith('node-agent/')) {
    return 'what was configured last stays in force; workloads of its node that start wait';
  }
  return `what was configured last stays in force${certificatesHold(sources)}; workloads that start wait`;
}

function ownProblem({ message, effect }: StatusSources['supervisor'][number]): StatusProblem {
  return { object: 'tulle up', position: '', path: '', message, severity: 'error', effect };
}

function processReport(sources: StatusSources, name: string): ProcessReport | undefined {
  return sources.processes.find((process) => process.name === name);
}

function pidOf(process: ProcessReport | undefined): number | null {
  return process?.state.kind === 'running' ? process.state.pid : null;
}
