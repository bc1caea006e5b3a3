import type { HostPort } from '#api/address.ts';
import type { ResourceUpdate } from '#api/resource.ts';
import type { RevocationList } from '#certs/revoked.ts';
import type { Svid } from '#certs/svid.ts';
import type { AccessRecord } from './access-log.ts';
import type { CarriedConnection, CarriedKind, HandOverOutcome } from './hand-over/carried.ts';
import type { Claim } from './hand-over/parked.ts';
import type { OfferedSockets } from './hand-over/take.ts';
import type { MemoryBudget } from './hbone/memory-budget.ts';
import type { PodLimits } from './limits.ts';
import type { ShedReport } from './shedding.ts';

/** A pod as ZDS announced it. */
export interface PodInfo {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** What a byte worker is started with; it reads nothing else of the main thread's. */
export interface WorkerConfig {
  readonly index: number;
  readonly node: string;
  readonly network: string;
  readonly clusterId: string;
  readonly clusterDomain: string;
  /** What a connection does whose workload names a policy that is not there (after 2 s). */
  readonly missingPolicy: 'deny' | 'allow';
  /** Namespace from which connections that leave the mesh are dialled; absent: from the pod's own. */
  readonly egressNetnsFd?: number;
  /** Where capture by eBPF has its maps, and how many workers there are; absent: there is no such capture. */
  readonly bpf?: { readonly directory: string; readonly workers: number };
  /** Asked for the hostnames of workloads that have no address; from the egress namespace, else from the pod. */
  readonly nameServers?: readonly HostPort[];
  /** Prefixes that are dialled from the pod although an egress namespace is set: `10.244.0.0/16`. */
  readonly fabricCidrs: readonly string[];
  readonly originalSource: boolean;
  /** What the workers share for bytes that wait; default: each has one of its own. */
  readonly memory?: MemoryBudget;
  /** What one pod may have; default: what the descriptors of the process allow with one worker. */
  readonly limits?: PodLimits;
  readonly hbone: {
    readonly streamWindowBytes: number;
    readonly connectionWindowBytes: number;
    readonly frameBytes: number;
    readonly maxStreamsPerConnection: number;
    readonly poolIdleMs: number;
    readonly pingIntervalMs: number;
    readonly pingTimeoutMs: number;
  };
}

/** A message with descriptors, which are the worker's once it has said that it `has` the number: one that crashes before has not. */
interface Entrusted {
  readonly entrusted?: number;
}

/** Main thread to byte worker. Every `request` is answered by one `done` with the same number. */
export type ToWorker =
  | { readonly kind: 'tables'; readonly update: ResourceUpdate }
  | { readonly kind: 'svid'; readonly svid: Svid }
  | { readonly kind: 'forget-identity'; readonly identity: string }
  | { readonly kind: 'revoked'; readonly list: RevocationList }
  | {
      readonly kind: 'add-pod';
      readonly request: number;
      readonly pod: PodInfo;
      readonly netnsFd: number;
      /** Listening sockets of another process for this worker to share, instead of new ones on their ports. */
      readonly offered?: OfferedSockets;
    }
  /** Stop listening; connections go on until they end (`cut: false`) or are cut at once. */
  | { readonly kind: 'remove-pod'; readonly request: number; readonly uid: string; readonly cut: boolean }
  /**
   * Stop listening everywhere, GOAWAY; cut what is left at the deadline. With a successor (`handOver`), what it can take is
   * given up to it (`carried`), also what becomes a connection only now.
   */
  | {
      readonly kind: 'drain';
      readonly request: number;
      readonly deadlineMs: number;
      readonly handOver?: boolean;
    }
  /** What has come of a connection that was `carried`: taken by the successor, or the worker's again. */
  | ({ readonly kind: 'settled'; readonly id: string; readonly outcome: 'taken' | 'kept' } & Entrusted)
  /** A connection of another process's; it and its descriptors are the worker's from here on. */
  | ({ readonly kind: 'adopt'; readonly connection: CarriedConnection } & Entrusted)
  /** So many sockets of a pod wait at the main thread, by this worker's share: they count as its own. */
  | { readonly kind: 'parked'; readonly uid: string; readonly sockets: number }
  /** The answer to a `claim`. */
  | ({ readonly kind: 'claimed'; readonly claim: number; readonly answer: Claim } & Entrusted)
  /** Ask for the live connections, for admin. */
  | { readonly kind: 'list-connections'; readonly request: number };

/** Byte worker to main thread. */
export type FromWorker =
  | { readonly kind: 'ready' }
  /** Said before anything is done with what was `entrusted`. */
  | { readonly kind: 'has'; readonly entrusted: number }
  | { readonly kind: 'done'; readonly request: number; readonly error?: string; readonly value?: unknown }
  /** A connection needs an SVID that the worker lacks. */
  | { readonly kind: 'need-svid'; readonly identity: string }
  /** What was refused for want of something; at most once a second. */
  | { readonly kind: 'shed'; readonly reports: readonly ShedReport[] }
  /** Batched, at most every 50 ms. */
  | { readonly kind: 'records'; readonly records: readonly AccessRecord[] }
  /** For the successor: its descriptors are the main thread's until it is `settled`. */
  | { readonly kind: 'carried'; readonly connection: CarriedConnection }
  /** For whoever claims it, in this process: it and its descriptors are the main thread's from here on. */
  | { readonly kind: 'park'; readonly connection: CarriedConnection }
  /** A connection that was, or will be, parked; answered by one `claimed` with the same number. */
  | { readonly kind: 'claim'; readonly claim: number; readonly id: string; readonly claimant: string }
  /** What became of one that was adopted or claimed has been counted, if it was to be. */
  | { readonly kind: 'decided'; readonly id: string }
  /** What has become of a connection that a restart met. */
  | { readonly kind: 'hand-over'; readonly of: CarriedKind; readonly outcome: HandOverOutcome };

/** What `add-pod` is answered with. */
export interface OpenedListeners {
  /** Listening sockets, by their descriptors, which stay the worker's. */
  readonly descriptors: readonly number[];
  /** Why sockets that were offered have not been taken. */
  readonly left: readonly string[];
}
