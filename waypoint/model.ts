import type { HostPort } from '#api/address.ts';
import type { FaultMetadata } from '#api/envoy/metadata.ts';
import type { Identity } from '#certs/identity.ts';

/**
 * What a waypoint has been told, compiled: `config/` makes it of Envoy's resources, everything else only reads it. Nothing here
 * is changed once made; an update replaces what it touches.
 */
export interface WaypointConfig {
  readonly frontends: FrontendIndex;
  readonly routes: ReadonlyMap<string, RouteTable>;
  readonly clusters: ReadonlyMap<string, Cluster>;
}

/** Finds who is asked for. */
export interface FrontendIndex {
  /**
   * By the authority of a CONNECT (address or host name, and port) and the caller's namespace: that of its namespace (consumer
   * routes) before that of all.
   */
  readonly find: (host: string, port: number, callerNamespace: string | undefined) => Frontend | undefined;
  /** The newest of a Listener's name: looked up for each request of a tunnel that may be old. */
  readonly named: (name: string) => Frontend | undefined;
  readonly all: () => Iterable<Frontend>;
}

/** A port of a service (or a workload), as callers of one namespace or of all see it: a Listener. */
export interface Frontend {
  /** Name of the Listener. */
  readonly name: string;
  /** `namespace/hostname`. */
  readonly service: string;
  readonly port: number;
  readonly consumerNamespace?: string;
  /** Names of Authorization resources that each request, or TCP connection, has to pass. */
  readonly authorizations: readonly string[];
  /** Why every request is refused. */
  readonly refuse?: string;
  /** What runs inside the tunnel. `detect`: HTTP/1, HTTP/2 or else TCP, by the first bytes. */
  readonly protocol: 'http1' | 'http2' | 'http' | 'tcp' | 'tls' | 'detect';
  /** Name of the RouteTable of requests. */
  readonly routeTable?: string;
  /** For what is not HTTP: the first whose names fit the ClientHello; one without names takes all. */
  readonly tcp: readonly TcpRoute[];
}

export interface TcpRoute {
  readonly serverNames: readonly string[];
  readonly backends: readonly WeightedBackend[];
  readonly origin: Origin;
}

/** Where something was written. */
export interface Origin {
  /** `HTTPRoute pay/ledger`; empty for what a service does without a route. */
  readonly object: string;
  readonly rule: number;
  readonly ruleName?: string;
}

/** A RouteConfiguration. */
export interface RouteTable {
  readonly name: string;
  /** The first that matches counts. */
  readonly routes: readonly Route[];
}

export interface Route {
  /** For logs: `HTTPRoute pay/ledger rule 0 match 1`. */
  readonly name: string;
  readonly origin: Origin;
  readonly match: RequestMatch;
  readonly action: ForwardAction | RedirectAction | DirectResponse;
  readonly requestHeaders: HeaderMutations;
  readonly responseHeaders: HeaderMutations;
  readonly cors?: CorsPolicy;
  readonly faults: readonly Fault[];
}

/** A regular expression of a user: linear time (re2js). */
export interface Pattern {
  readonly source: string;
  /** Whether all of the text fits. */
  readonly matches: (text: string) => boolean;
  /** Replaces every place that fits, as Envoy does; `\1` stands for what a group took, `\0` for all of it, `\\` for a backslash. */
  readonly replace: (text: string, substitution: string) => string;
}

export type TextMatch =
  | { readonly kind: 'exact'; readonly value: string }
  | { readonly kind: 'regex'; readonly pattern: Pattern };

export interface RequestMatch {
  readonly path:
    | { readonly kind: 'exact'; readonly value: string }
    /** By `/`-separated segments; without a final slash; empty: everything. */
    | { readonly kind: 'prefix'; readonly value: string }
    | { readonly kind: 'regex'; readonly pattern: Pattern };
  readonly method?: string;
  /** Names lower case. */
  readonly headers: readonly { readonly name: string; readonly match: TextMatch }[];
  readonly query: readonly { readonly name: string; readonly match: TextMatch }[];
}

export interface HeaderMutations {
  /** Replace all of a name, or add. Names lower case. */
  readonly set: readonly (readonly [name: string, value: string])[];
  readonly add: readonly (readonly [name: string, value: string])[];
  readonly remove: readonly string[];
}

export interface ForwardAction {
  readonly kind: 'forward';
  /** At least one; the sum of the weights is above 0. */
  readonly backends: readonly WeightedBackend[];
  readonly hostRewrite?: string;
  readonly pathRewrite?:
    | { readonly kind: 'prefix'; readonly value: string }
    | { readonly kind: 'regex'; readonly pattern: Pattern; readonly substitution: string };
  readonly mirrors: readonly Mirror[];
  /** Of the whole request, retries included, in ms; 0: none. */
  readonly timeoutMs: number;
  readonly retry: RetryPolicy;
  readonly session?: SessionPersistence;
  /** Key of ring-hash balancing, the first that is there. */
  readonly hashOn: readonly HashSource[];
}

export type HashSource =
  | { readonly kind: 'header' | 'cookie' | 'query'; readonly name: string }
  | { readonly kind: 'source' };

/** A cluster's share. A cluster that is not there answers 500 for its share; one without endpoints 503. */
export interface WeightedBackend {
  readonly cluster: string;
  readonly weight: number;
  readonly requestHeaders: HeaderMutations;
  readonly responseHeaders: HeaderMutations;
}

export interface Mirror {
  readonly cluster: string;
  /** 0 to 1. */
  readonly share: number;
}

export interface RetryPolicy {
  /** Tries after the first. */
  readonly attempts: number;
  /** What is tried again. */
  readonly on: {
    /** Nothing was sent: no connection, refused stream. Safe for every request. */
    readonly connectFailure: boolean;
    /** Lost before an answer, or too slow (per try). Only what is safe to repeat. */
    readonly reset: boolean;
    readonly statusCodes: readonly number[];
  };
  /** Of one try, in ms; 0: none. */
  readonly perTryTimeoutMs: number;
  /** Least pause before a retry, in ms, as a route's `backoff` wants it; 0: none, up to 25 ms at random, growing. */
  readonly backoffMs: number;
  /** Most, in ms. */
  readonly maxBackoffMs: number;
}

export interface SessionPersistence {
  readonly kind: 'cookie' | 'header';
  readonly name: string;
  readonly path: string;
  /** Seconds; 0: until the client ends. */
  readonly ttlSeconds: number;
  readonly idleMs?: number;
  readonly absoluteMs?: number;
}

export interface RedirectAction {
  readonly kind: 'redirect';
  readonly status: number;
  readonly scheme?: 'http' | 'https';
  readonly host?: string;
  readonly port?: number;
  readonly path?:
    | { readonly kind: 'full'; readonly value: string }
    | { readonly kind: 'prefix'; readonly value: string }
    | { readonly kind: 'regex'; readonly pattern: Pattern; readonly substitution: string };
}

export interface DirectResponse {
  readonly kind: 'direct';
  readonly status: number;
  readonly body: string;
}

export interface CorsPolicy {
  readonly allowOrigins: readonly TextMatch[];
  readonly allowCredentials: boolean;
  /** As they go into the headers. */
  readonly allowMethods: string;
  readonly allowHeaders: string;
  readonly exposeHeaders: string;
  readonly maxAge: string;
  /** A preflight of an origin that is not allowed: goes to the backend, or is answered 200 without leave. */
  readonly forwardsUnknownPreflights: boolean;
}

/** A fault, with its patterns compiled. What Envoy's filter says is filled in. */
export interface Fault extends Omit<FaultMetadata, 'headers' | 'in_filter'> {
  readonly headers: readonly { readonly name: string; readonly match: TextMatch }[];
  readonly percent: number;
}

/** Where requests go: a Service's port, or a part of a route's backends. */
export interface Cluster {
  readonly name: string;
  /** `namespace/name:port`. */
  readonly backend: string;
  /** `namespace/hostname`. */
  readonly service: string;
  readonly protocol: 'http1' | 'http2' | 'as-downstream';
  readonly balancing: 'least-request' | 'round-robin' | 'ring-hash';
  readonly connectTimeoutMs: number;
  /** Share of requests in flight that may be retries, in percent, and how many may be in any case. */
  readonly retryBudget: { readonly percent: number; readonly minConcurrent: number };
  /** TLS to the application itself, inside the tunnel. */
  readonly tls?: BackendTls;
  readonly endpoints: readonly Endpoint[];
}

export interface BackendTls {
  readonly serverName: string;
  /** The application's certificate has to name one of these. */
  readonly subjectAltNames: readonly { readonly kind: 'dns' | 'uri'; readonly value: string }[];
  /** PEM. */
  readonly roots: string;
}

export interface Endpoint {
  /** Of the application. Port 0: that of the CONNECT. */
  readonly address: HostPort;
  /** Draining ones get no new requests, but for sessions that last. */
  readonly health: 'healthy' | 'draining' | 'unhealthy';
  readonly weight: number;
  readonly tunnel: 'HBONE' | 'NONE';
  readonly identity: Identity | undefined;
  /** For logs and metrics. */
  readonly workload: {
    readonly uid: string;
    readonly name: string;
    readonly namespace: string;
    readonly workload?: string;
    readonly workloadType?: string;
    readonly canonicalName?: string;
    readonly canonicalRevision?: string;
    readonly cluster?: string;
    readonly node?: string;
  };
}
