import type { Ip } from '#api/address.ts';
import type { Authorization } from '#api/policy.ts';
import type { ResourceUpdate } from '#api/resource.ts';
import type { Service } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';

/** A workload behind a service, with the port mapping that it announced for that service. */
export interface Endpoint {
  readonly workload: Workload;
  /** Service port to target port; a port that is missing here follows the service's own mapping. */
  readonly ports: ReadonlyMap<number, number>;
}

/**
 * What the node believes: the same structure in the main thread (DNS, admin, identities) and, by deltas, in every byte
 * worker. Looking up never waits and never throws; every look-up by address is for one network.
 */
export interface Tables {
  readonly workloadByUid: (uid: string) => Workload | undefined;
  /** A pod wins over others of the same address, HBONE over TCP; HOST_NETWORK workloads are never found by address. */
  readonly workloadByIp: (network: string, ip: Ip) => Workload | undefined;
  /** By name, namespace and service account, on that node (any node if `node` is empty): how ZDS names a pod. */
  readonly workloadByName: (
    name: string,
    namespace: string,
    serviceAccount: string,
    node: string,
  ) => Workload | undefined;
  /** The best service of a VIP for a client of that namespace: fact sheet ambient-wire.md, 3.3. */
  readonly serviceByVip: (network: string, ip: Ip, clientNamespace: string) => Service | undefined;
  /** Exact hostname, lower case; same order of preference. */
  readonly serviceByHostname: (hostname: string, clientNamespace: string) => Service | undefined;
  /** All services of that hostname, lower case, by key: for those that choose by more than the client's namespace. */
  readonly servicesByHostname: (hostname: string) => readonly Service[];
  readonly serviceByKey: (key: string) => Service | undefined;
  /** Endpoints that may be chosen: healthy ones, or all where the service says ALLOW_ALL. */
  readonly endpointsOf: (service: Service) => readonly Endpoint[];
  readonly policyByKey: (key: string) => Authorization | undefined;
  /** NAMESPACE policies of that namespace and GLOBAL policies. */
  readonly policiesOfNamespace: (namespace: string) => readonly Authorization[];
  readonly workloads: () => Iterable<Workload>;
  readonly services: () => Iterable<Service>;
  readonly policies: () => Iterable<Authorization>;
  /** Whether each type has been answered at least once. */
  readonly synced: (what: 'addresses' | 'authorizations') => boolean;
  /** Counts up with every applied update. */
  readonly version: () => number;
}

/** The one writer's side. */
export interface MutableTables extends Tables {
  /** Applies updates, then removals; an object replaces its previous version whole. Already validated by the codec. */
  readonly apply: (update: ResourceUpdate) => void;
}
