import type { HeaderList } from '#waypoint/exchange.ts';
import type { Cluster, Fault, ForwardAction, Frontend } from '#waypoint/model.ts';

/** An HTTP request that a waypoint is asked about. */
export interface ExplainedRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly authority: string;
  /** Names lower case, name and value alternating. */
  readonly headers: HeaderList;
}

/** What a waypoint would do, decision by decision. */
export interface WaypointExplanation {
  /** `namespace/name` of its Gateway. */
  readonly waypoint: string;
  /** Null: it does not know what was dialled, and refuses. */
  readonly listener: {
    readonly name: string;
    readonly service: string;
    readonly port: number;
    /** Whose routes hold: the service's own, or those of the caller's namespace. */
    readonly routes: 'producer' | 'consumer';
    readonly protocol: Frontend['protocol'];
  } | null;
  /** Null for what is no HTTP. */
  readonly request: { readonly method: string; readonly path: string; readonly query: string } | null;
  /** Routes that come first and do not fit. */
  readonly passedOver: readonly { readonly route: string; readonly match: string; readonly why: string }[];
  readonly route: {
    readonly name: string;
    readonly object: string | null;
    /** Where its rule is written. */
    readonly position: string | null;
    readonly match: string;
  } | null;
  /** Faults that would be injected into such a request, each into its share. */
  readonly faults: readonly {
    readonly name: string;
    readonly policy: string;
    readonly percent: number;
    readonly does: string;
    readonly where: Fault['where'];
    readonly endsAt: string;
  }[];
  readonly action:
    | { readonly kind: 'refused'; readonly status: number; readonly reason: string }
    | { readonly kind: 'answered'; readonly status: number; readonly what: string }
    | ForwardExplanation;
}

/** A request (or connection) that goes on to a backend. */
export interface ForwardExplanation {
  readonly kind: 'forward';
  /** As they go upstream; null where nothing is rewritten. */
  readonly rewrite: { readonly target: string; readonly authority: string } | null;
  readonly timeoutMs: number;
  readonly retry: ForwardAction['retry'] | null;
  readonly mirrors: readonly { readonly backend: string; readonly share: number }[];
  readonly session: string | null;
  readonly backends: readonly BackendExplanation[];
}

export interface BackendExplanation {
  /** `namespace/name:port`. */
  readonly backend: string;
  readonly weight: number;
  /** 0 to 1; 1 for one that a session has chosen. */
  readonly share: number;
  readonly balancing: Cluster['balancing'] | null;
  /** What is answered instead of being sent; null: it is sent to one of the endpoints that are healthy. */
  readonly problem: string | null;
  readonly endpoints: readonly EndpointExplanation[];
}

export interface EndpointExplanation {
  readonly address: string;
  readonly workload: string;
  readonly health: 'healthy' | 'draining' | 'unhealthy';
  readonly tunnel: 'HBONE' | 'NONE';
  /** Null when no policy of the mesh is asked. */
  readonly verdict: EndpointVerdict | null;
}

/** Whether an endpoint lets the caller in. */
export interface EndpointVerdict {
  readonly kind: 'allow' | 'deny';
  readonly reason: string;
  readonly policy: string | null;
  readonly position: string | null;
}
