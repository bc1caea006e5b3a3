/**
 * What Envoy has no field for, in `metadata.filter_metadata["tulle.dev"]` of its resources. The one list of keys; docs/api.md
 * has it as a table.
 */
export const METADATA_NAMESPACE = 'tulle.dev';

/** Of a Listener: where it stands in the mesh. */
export interface ListenerMetadata {
  /** `namespace/hostname` of the service; of a workload: its uid. */
  readonly service: string;
  /** Addresses (and names) which, with the port, are the authority of CONNECTs that it serves. */
  readonly addresses: readonly string[];
  /** 0: every port, for a workload. */
  readonly port: number;
  /** It serves only callers of this namespace, and comes before one without: consumer routes. */
  readonly consumer_namespace?: string;
  /** Names of `istio.security.Authorization` resources that are enforced for each of its requests. */
  readonly authorizations?: readonly string[];
  /** Why every request is refused with 403: something that applies here and cannot be enforced. */
  readonly refuse?: string;
}

/** Of a Route (or a filter chain with a TCP proxy): where it comes from. */
export interface RouteMetadata {
  /** `HTTPRoute pay/ledger`; absent for what a service does without routes. */
  readonly object?: string;
  /** Of the rule, from 0. */
  readonly rule?: number;
  readonly rule_name?: string;
  readonly faults?: readonly FaultMetadata[];
  /** Of a rule with a `retry` stanza. Without it a route has only the safe retry. */
  readonly retry?: 'explicit';
  /** Of a session that lasts: ends it when it was idle or exists for so long. */
  readonly session_idle_ms?: number;
  readonly session_absolute_ms?: number;
}

/** One fault of a TrafficPolicy, in the order in which they are tried. */
export interface FaultMetadata {
  readonly name: string;
  /** `TrafficPolicy pay/chaos`. */
  readonly policy: string;
  /** Milliseconds since the epoch; from then on it is not injected, whatever the control plane says. */
  readonly expires_at_ms: number;
  /** `downstream`: once for a request, before the first attempt. `upstream`: for each attempt, so that retries see it. */
  readonly where: 'downstream' | 'upstream';
  /**
   * True: what and how often is in the route's own `envoy.filters.http.fault`, which says it all but the above. False: in the
   * fields below, as Envoy's filter cannot say it.
   */
  readonly in_filter: boolean;
  /** 0 to 100, also fractions. */
  readonly percent?: number;
  readonly headers?: readonly { readonly name: string; readonly exact?: string; readonly regex?: string }[];
  /** Callers, `namespace/serviceAccount`; empty or absent: all. */
  readonly from_service_accounts?: readonly string[];
  readonly from_namespaces?: readonly string[];
  readonly delay_ms?: number;
  /** Added to the delay, at random up to so much. */
  readonly delay_jitter_ms?: number;
  readonly abort_http_status?: number;
  readonly abort_grpc_status?: number;
  /** Limit on the rate of the response. */
  readonly response_kbps?: number;
  /** Requests that may be under this fault at a time. */
  readonly max_concurrent?: number;
}

/** Of a Cluster. */
export interface ClusterMetadata {
  /** `namespace/name:port`, as `status` shows it. */
  readonly backend: string;
  /** `namespace/hostname`. */
  readonly service: string;
}

/** Of an LbEndpoint: the workload behind it. */
export interface EndpointMetadata {
  /** How its pod is reached: through the ztunnel before it, or as it is. */
  readonly tunnel: 'HBONE' | 'NONE';
  /** SPIFFE ID that the far end has to prove. */
  readonly identity: string;
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly workload?: string;
  readonly workload_type?: string;
  readonly canonical_name?: string;
  readonly canonical_revision?: string;
  readonly cluster?: string;
  readonly node?: string;
}
