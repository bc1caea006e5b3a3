import type { ControlPlaneStatus, StatusWorkload } from '#control-plane/status.ts';
import { type EnrolmentState, enrolmentState, type NodeEnrolment } from './enrolment.ts';
import type { FabricNode } from './fabric.ts';
import type { PodRecord } from './inventory.ts';
import { formatWorkloadRef } from './names.ts';
import type { PodDescription } from './pods.ts';

/** `workloads[]` of the status. */
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
  /** Why it is not in the mesh yet, where it should be; null where it is, and where it should not. */
  readonly pending: string | null;
  /** Since when it waits for that, RFC 3339. */
  readonly pendingSince: string | null;
  readonly capture: string | null;
  /** Why it is not captured by eBPF; null where it is, and outside the mesh. */
  readonly captureReason: string | null;
  /** How often the kernel refused something of it since it was captured, by reason. */
  readonly refused: Readonly<Record<string, number>>;
  readonly labels: Readonly<Record<string, string>>;
  /** Beside NET_BIND_SERVICE. */
  readonly capabilities: readonly string[];
  readonly certificate: { readonly serial: string; readonly notAfter: string } | null;
  readonly services: readonly string[];
  readonly waypoint: string | null;
}

/** What the status of workloads is made of. */
export interface WorkloadSources {
  readonly nodes: readonly FabricNode[];
  readonly pods: readonly PodDescription[];
  /** By node. */
  readonly enrolment: ReadonlyMap<string, NodeEnrolment>;
  /** The last one that could be had; absent before the first. */
  readonly controlPlane: ControlPlaneStatus | undefined;
  /** Since when workloads wait to be in the mesh, by uid; milliseconds since the epoch. */
  readonly waitingSince: ReadonlyMap<string, number>;
  /** Why the control plane has not seen those that it has not seen. */
  readonly whyUnseen: string;
}

/** All workloads of this machine, and those that run elsewhere, sorted. */
export function workloadStatuses(sources: WorkloadSources): readonly WorkloadStatus[] {
  const local = sources.pods.map((pod) => localWorkload(sources, pod));
  const known = new Set(local.map(formatWorkloadRef));
  const elsewhere = (sources.controlPlane?.workloads ?? [])
    .filter((workload) => !known.has(formatWorkloadRef(workload)))
    .filter(({ node }) => !sources.nodes.some(({ name }) => name === node))
    .map((workload) => remoteWorkload(workload));
  return [...local, ...elsewhere].sort((a, b) => (formatWorkloadRef(a) < formatWorkloadRef(b) ? -1 : 1));
}

function localWorkload(sources: WorkloadSources, pod: PodDescription): WorkloadStatus {
  const { record } = pod;
  const report = reportOf(sources, record);
  const state = stateOf(sources, record.uid, record.node);
  const isHeld = state.kind === 'enrolled' || record.waypoint !== undefined;
  const certificate = isHeld ? certificateOf(sources, record) : null;
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
    ...waitOf(sources, record, state),
    capture: state.kind === 'enrolled' ? state.capture : null,
    captureReason: (state.kind === 'enrolled' ? state.captureReason : undefined) ?? null,
    refused: state.kind === 'enrolled' ? state.refused : {},
    labels: record.labels,
    capabilities: record.capabilities.map((name) => name.toUpperCase()),
    certificate: certificate === null ? null : { serial: certificate.serial, notAfter: certificate.notAfter },
    services: report?.services ?? [],
    waypoint: report?.waypoint ?? null,
  };
}

/** What it waits for; a waypoint's replica for nothing. */
function waitOf(
  { waitingSince, whyUnseen }: WorkloadSources,
  { uid, waypoint }: PodRecord,
  state: EnrolmentState,
): Pick<WorkloadStatus, 'pending' | 'pendingSince'> {
  const isWaiting = waypoint === undefined && (state.kind === 'pending' || state.kind === 'unknown');
  if (!isWaiting) return { pending: null, pendingSince: null };
  const since = waitingSince.get(uid);
  return {
    pending: state.kind === 'pending' ? state.reason : whyUnseen,
    pendingSince: since === undefined ? null : new Date(since).toISOString(),
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
    pending: null,
    pendingSince: null,
    capture: null,
    captureReason: null,
    refused: {},
    labels: report.labels,
    capabilities: [],
    certificate: null,
    services: report.services,
    waypoint: report.waypoint,
  };
}

function reportOf(sources: WorkloadSources, record: PodRecord): StatusWorkload | undefined {
  return sources.controlPlane?.workloads.find(
    ({ namespace, name }) => namespace === record.namespace && name === record.name,
  );
}

function identityOf(sources: WorkloadSources, record: PodRecord): string {
  const trustDomain = sources.controlPlane?.trustDomain ?? 'cluster.local';
  return (
    reportOf(sources, record)?.identity ??
    `spiffe://${trustDomain}/ns/${record.namespace}/sa/${record.serviceAccount}`
  );
}

/** The newest certificate that the node's ztunnel, or the waypoint itself, has for the workload's identity. */
export function certificateOf(
  sources: WorkloadSources,
  record: PodRecord,
): (NonNullable<WorkloadStatus['certificate']> & { readonly identity: string }) | null {
  const identity = identityOf(sources, record);
  const holder =
    record.waypoint === undefined ? record.node : `waypoint/${record.namespace}/${record.waypoint}`;
  const newest = (sources.controlPlane?.certificates ?? [])
    .filter((certificate) => certificate.identity === identity && certificate.node === holder)
    .sort((a, b) => Date.parse(b.notAfter) - Date.parse(a.notAfter))[0];
  return newest === undefined ? null : { identity, serial: newest.serial, notAfter: newest.notAfter };
}

/** Where a workload stands. */
export function stateOf(sources: WorkloadSources, uid: string, node: string): EnrolmentState {
  return enrolmentState(uid, sources.enrolment.get(node) ?? { wanted: undefined, done: undefined });
}
