import type {
  ControlPlaneStatus,
  StatusClient,
  StatusPolicy,
  StatusProblem,
  StatusService,
  StatusWorkload,
} from '#control-plane/status.ts';
import { CONTROL_PLANE_ADDRESS, nodeAddress } from './addresses.ts';
import { type EnrolmentState, enrolmentState, type NodeEnrolment } from './enrolment.ts';
import type { FabricNode } from './fabric.ts';
import type { PodRecord } from './inventory.ts';
import { controlPlaneNetns, formatWorkloadRef, nodeNetns } from './names.ts';
import type { PodDescription } from './pods.ts';
import type { ProcessState } from './supervised-process.ts';
import type { WaypointsReport } from './waypoint-report.ts';
import {
  isSettled,
  pendingReplicas,
  type WaypointStatus,
  waypointProblems,
  waypointStatuses,
} from './waypoint-status.ts';

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
  readonly routes: readonly never[];
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
  } | null;
  readonly xds: StatusClient['xds'];
}

export interface WorkloadStatus {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly node: string;
  readonly addresses: readonly string[];
  readonly netns: string | null;
  readonly cgroup: string | null;
  /** Of its command; null while it waits to be started, and for what runs elsewhere. */
  readonly pid: number | null;
  readonly identity: string;
  readonly enrolled: boolean;
  readonly capture: string | null;
  readonly labels: Readonly<Record<string, string>>;
  /** Beside NET_BIND_SERVICE. */
  readonly capabilities: readonly string[];
  readonly certificate: { readonly serial: string; readonly notAfter: string } | null;
  readonly services: readonly string[];
  readonly waypoint: string | null;
}

/** A process of the mesh, as its supervisor sees it. */
export interface ProcessReport {
  readonly name: string;
  readonly state: ProcessState;
  readonly restarts: number;
  readonly ready: boolean;
}

/** All that the status is made of. */
export interface StatusSources {
  readonly mesh: string;
  readonly nodes: readonly FabricNode[];
  readonly processes: readonly ProcessReport[];
  /** Byte workers of each ztunnel. */
  readonly workers: number;
  readonly waypoints: WaypointsReport;
  readonly pods: readonly PodDescription[];
  /** By node. */
  readonly enrolment: ReadonlyMap<string, NodeEnrolment>;
  /** The last one that could be had; absent before the first. */
  readonly controlPlane: ControlPlaneStatus | undefined;
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
      ...processProblems(sources),
      ...waypointProblems(sources.waypoints, controlPlane),
      ...(controlPlane?.problems ?? []),
    ],
    nodes: sources.nodes.map((node) => nodeStatus(sources, node)),
    waypoints: waypointStatuses(sources.waypoints, controlPlane),
    workloads: workloads(sources),
    services: controlPlane?.services ?? [],
    routes: [],
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
  return [...processes, ...pendingReplicas(sources.waypoints), ...configuration, ...certificates];
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
        : { pid: pidOf(process), ready: process.ready, restarts: process.restarts, workers: sources.workers },
    xds: client?.xds ?? [],
  };
}

function workloads(sources: StatusSources): readonly WorkloadStatus[] {
  const local = sources.pods.map((pod) => localWorkload(sources, pod));
  const known = new Set(local.map(formatWorkloadRef));
  const elsewhere = (sources.controlPlane?.workloads ?? [])
    .filter((workload) => !known.has(formatWorkloadRef(workload)))
    .filter(({ node }) => !sources.nodes.some(({ name }) => name === node))
    .map((workload) => remoteWorkload(workload));
  return [...local, ...elsewhere].sort((a, b) => (formatWorkloadRef(a) < formatWorkloadRef(b) ? -1 : 1));
}

function localWorkload(sources: StatusSources, pod: PodDescription): WorkloadStatus {
  const { record } = pod;
  const report = reportOf(sources, record);
  const state = stateOf(sources, record.uid, record.node);
  return {
    namespace: record.namespace,
    name: record.name,
    uid: report?.uid ?? `Kubernetes//Pod/${formatWorkloadRef(record)}`,
    node: record.node,
    addresses: pod.addresses,
    netns: pod.netns,
    cgroup: pod.cgroup,
    pid: record.command?.pid ?? null,
    identity: identityOf(sources, record),
    enrolled: state.kind === 'enrolled',
    capture: state.kind === 'enrolled' ? state.capture : null,
    labels: record.labels,
    capabilities: record.capabilities.map((name) => name.toUpperCase()),
    certificate: state.kind === 'enrolled' ? certificateOf(sources, record) : null,
    services: report?.services ?? [],
    waypoint: report?.waypoint ?? null,
  };
}

function remoteWorkload(report: StatusWorkload): WorkloadStatus {
  return {
    namespace: report.namespace,
    name: report.name,
    uid: report.uid,
    node: report.node,
    addresses: report.addresses,
    netns: null,
    cgroup: null,
    pid: null,
    identity: report.identity,
    enrolled: false,
    capture: null,
    labels: report.labels,
    capabilities: [],
    certificate: null,
    services: report.services,
    waypoint: report.waypoint,
  };
}

function reportOf(sources: StatusSources, record: PodRecord): StatusWorkload | undefined {
  return sources.controlPlane?.workloads.find(
    ({ namespace, name }) => namespace === record.namespace && name === record.name,
  );
}

function identityOf(sources: StatusSources, record: PodRecord): string {
  const trustDomain = sources.controlPlane?.trustDomain ?? 'cluster.local';
  return (
    reportOf(sources, record)?.identity ??
    `spiffe://${trustDomain}/ns/${record.namespace}/sa/${record.serviceAccount}`
  );
}

/** The newest certificate that the node's ztunnel has for the workload's identity. */
function certificateOf(sources: StatusSources, record: PodRecord): WorkloadStatus['certificate'] {
  const identity = identityOf(sources, record);
  const newest = (sources.controlPlane?.certificates ?? [])
    .filter((certificate) => certificate.identity === identity && certificate.node === record.node)
    .sort((a, b) => Date.parse(b.notAfter) - Date.parse(a.notAfter))[0];
  return newest === undefined ? null : { serial: newest.serial, notAfter: newest.notAfter };
}

function stateOf(sources: StatusSources, uid: string, node: string): EnrolmentState {
  return enrolmentState(uid, sources.enrolment.get(node) ?? { wanted: undefined, done: undefined });
}

/** Processes that do not run are problems as well: what they did stays in force, what is new is not seen. */
function processProblems(sources: StatusSources): readonly StatusProblem[] {
  return sources.processes.flatMap(({ name, state }) => {
    if (state.kind === 'running' || name.startsWith('waypoint/')) return [];
    const message = state.kind === 'stopped' ? 'is stopped' : state.how;
    const effect = name.startsWith('ztunnel/')
      ? 'connections of its workloads are refused'
      : 'what was configured last stays in force';
    return [{ object: name, position: '', path: '', message, severity: 'error', effect }];
  });
}

function processReport(sources: StatusSources, name: string): ProcessReport | undefined {
  return sources.processes.find((process) => process.name === name);
}

function pidOf(process: ProcessReport | undefined): number | null {
  return process?.state.kind === 'running' ? process.state.pid : null;
}
