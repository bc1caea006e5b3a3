import type { Ip } from './address.ts';

/**
 * How a workload is reached: `HBONE` through port 15008 of its address, `NONE` by plain TCP.
 * (`LEGACY_ISTIO_MTLS` is never sent to a ztunnel and rejected when received.)
 */
export type TunnelProtocol = 'NONE' | 'HBONE';

/** What kind of object a workload came from; telemetry only. */
export type WorkloadType = 'DEPLOYMENT' | 'CRONJOB' | 'POD' | 'JOB';

/** A service port and the port of the workload behind it; target 0: named port, resolved workload by workload. */
export interface PortMapping {
  readonly servicePort: number;
  readonly targetPort: number;
}

/** Address of a waypoint or gateway. */
export interface GatewayAddress {
  readonly destination:
    | { readonly kind: 'hostname'; readonly namespace: string; readonly hostname: string }
    | { readonly kind: 'address'; readonly network: string; readonly ip: Ip };
  /** Port of its HBONE listener: 15008 for a waypoint. */
  readonly hboneMtlsPort: number;
}

/** Where a workload runs. Empty text: not known. */
export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

/** How the application behind a workload's ztunnel wants its connections (a sandwiched waypoint). */
export interface ApplicationTunnel {
  readonly protocol: 'NONE' | 'PROXY';
  /** 0: keep the port. */
  readonly port: number;
}

/**
 * One running instance with addresses and an identity: `istio.workload.Workload` with its defaults filled in.
 * Plain data: it crosses threads by structured clone.
 */
export interface Workload {
  readonly kind: 'workload';
  /** Primary key and xDS resource name: `<cluster>//Pod/<namespace>/<name>` for a pod. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly Ip[];
  /** Resolved when used, if there is no address. Empty: none. */
  readonly hostname: string;
  readonly network: string;
  readonly tunnelProtocol: TunnelProtocol;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly waypoint?: GatewayAddress;
  readonly networkGateway?: GatewayAddress;
  readonly node: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly workloadType: WorkloadType;
  readonly workloadName: string;
  /** The workload terminates HBONE itself. */
  readonly nativeTunnel: boolean;
  readonly applicationTunnel?: ApplicationTunnel;
  /** Services it belongs to, by `namespace/hostname`, with its own port mapping. */
  readonly services: ReadonlyMap<string, readonly PortMapping[]>;
  /** Names (`namespace/name`) of the WORKLOAD_SELECTOR policies that apply. */
  readonly authorizationPolicies: readonly string[];
  readonly status: 'HEALTHY' | 'UNHEALTHY';
  readonly clusterId: string;
  readonly locality: Locality;
  readonly networkMode: 'STANDARD' | 'HOST_NETWORK';
  /** Weight in load balancing; 1 when not said. */
  readonly capacity: number;
  /** How its connections with other pods of its node are carried; absent: as the ztunnel sees fit. */
  readonly sameNode?: 'tunnel';
  /** Its bytes may go past the ztunnel, to and from other pods of its node that say so, too; absent: no. */
  readonly splice?: true;
}
