import type { Socket } from 'node:net';
import { formatHostPort, type HostPort, type Ip } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import type { AccessRecord } from './access-log.ts';
import type { Connections } from './connections.ts';
import type { HandOverPort } from './hand-over/port.ts';
import { canonicalIp } from './hbone/authority.ts';
import type { FairShare } from './hbone/fair-share.ts';
import type { Pool, PoolTarget } from './hbone/pool.ts';
import type { KernelSplice } from './kernel-splice.ts';
import type { LimitedSockets } from './limited-sockets.ts';
import type { PodLimits } from './limits.ts';
import type { PodIndex } from './pod-index.ts';
import type { PodSockets } from './pod-sockets.ts';
import type { Shedding } from './shedding.ts';
import type { TableWaits } from './table-waits.ts';
import type { MutableTables } from './tables/tables.ts';
import type { Turnstile } from './turnstile.ts';
import type { PodInfo, WorkerConfig } from './worker-messages.ts';
import type { WorkerSvids } from './worker-svids.ts';

/** A pod whose connections are carried. */
export interface ServedPod {
  readonly info: PodInfo;
  /** No other has it, not even one that comes back under the same uid. */
  readonly id: string;
  readonly sockets: LimitedSockets;
  /** What it has of this thread's time. */
  readonly share: FairShare;
  /** Where connections that are made wait for their turn: to the pod's applications, and from it. */
  readonly dials: { readonly inbound: Turnstile; readonly outbound: Turnstile };
}

/** A session of the pool starts in its caller's pod. */
export interface PodTarget extends PoolTarget {
  readonly sockets: PodSockets;
}

/** What every connection of a worker has to do with. One per byte worker; nothing in it is shared with other threads. */
export interface DataPath {
  readonly config: WorkerConfig;
  readonly tables: MutableTables;
  readonly waits: TableWaits;
  readonly svids: WorkerSvids;
  readonly pool: Pool<PodTarget>;
  readonly connections: Connections;
  readonly pods: PodIndex;
  readonly kernelSplice: KernelSplice;
  readonly handOver: HandOverPort;
  readonly limits: PodLimits;
  readonly shedding: Shedding;
  readonly record: (record: AccessRecord) => void;
  /** The addresses of a hostname outside the mesh; none when it has none, or nobody answers. Never rejects. */
  readonly resolveHostname: (hostname: string) => Promise<readonly Ip[]>;
}

/** How long a connection waits for what the control plane has not said yet: fact sheet ambient-wire.md, 1.6 and 3.1. */
export const CONFIGURATION_WAIT_MS: 5_000 = 5_000;
/** How long a new connection waits for a policy that its destination names. */
export const POLICY_WAIT_MS: 2_000 = 2_000;
/** For a connection to an application or a hop. */
export const CONNECT_TIMEOUT_MS: 10_000 = 10_000;

/** The workload that a pod is; waited for, since ZDS may be faster than xDS. Undefined when it does not come. */
export function workloadOf({ config, waits }: DataPath, { info }: ServedPod): Promise<Workload | undefined> {
  return waits.until(
    (tables) => tables.workloadByName(info.name, info.namespace, info.serviceAccount, config.node),
    CONFIGURATION_WAIT_MS,
  );
}

/** The far end of an accepted socket; undefined when it is gone already. */
export function remoteOf({ remoteAddress, remotePort }: Socket): HostPort | undefined {
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  return { ip: canonicalIp(remoteAddress), port: remotePort };
}

/** The near end of an accepted socket; undefined when it is gone already. */
export function localOf({ localAddress, localPort }: Socket): HostPort | undefined {
  if (localAddress === undefined || localPort === undefined) return undefined;
  return { ip: canonicalIp(localAddress), port: localPort };
}

/** Where a captured connection was going; its listener's own address when it was not captured. */
export function destinationOf({ sockets }: ServedPod, socket: Socket): HostPort | undefined {
  return sockets.originalDestination(socket) ?? localOf(socket);
}

/** An address alone, as one end of a connection in its record. */
export function unknownPeer(address: HostPort): { readonly address: string } {
  return { address: formatHostPort(address) };
}
