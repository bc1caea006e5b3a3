/**
 * Specs of the Gateway API's routes and of our TrafficPolicy, with the API's defaults filled in, but for `parentRef`s, which
 * status has to repeat as they are written. What is not of the API's grammar does not get here; values that are of it and that
 * we do not support are kept as `unsupported`, so that the route is refused with a condition.
 * Source: kubernetes-sigs/gateway-api v1.6.1, `apis/v1`.
 */

/** Milliseconds. Of GEP-2257 text; 0 means off. */
export type DurationMs = number;

export interface ParentRef {
  /** `gateway.networking.k8s.io` when not written; empty for the core group. */
  readonly group: string;
  /** `Gateway` when not written. */
  readonly kind: string;
  readonly name: string;
  /** The route's own when not written. */
  readonly namespace: string;
  readonly port?: number;
  readonly sectionName?: string;
  /** Exactly as it is written, for status. */
  readonly written: Readonly<Record<string, unknown>>;
}

export interface HttpHeader {
  readonly name: string;
  readonly value: string;
}

export type ValueMatch =
  | { readonly kind: 'exact'; readonly value: string }
  | { readonly kind: 'regex'; readonly value: string };

/** A part that the API has, or may have one day, and we do not: the whole route is refused with UnsupportedValue. */
export interface Unsupported {
  readonly kind: 'unsupported';
  /** `type "Foo" is not supported; …` */
  readonly reason: string;
  /** `spec.rules[0].matches[0].path.type`. */
  readonly path: string;
}

export interface HttpMatch {
  /**
   * But for regular expressions with its escapes as they are in a request's canonical path. Undefined only where its type, or its
   * regular expression, is not supported: then it matches more than what was meant, and the route is refused.
   */
  readonly path: { readonly kind: 'exact' | 'prefix' | 'regex'; readonly value: string } | undefined;
  /** Names lower case; of several of a name only the first is kept. */
  readonly headers: readonly { readonly name: string; readonly match: ValueMatch }[];
  readonly queryParams: readonly { readonly name: string; readonly match: ValueMatch }[];
  readonly method?: string;
}

export interface HeaderFilter {
  readonly set: readonly HttpHeader[];
  readonly add: readonly HttpHeader[];
  readonly remove: readonly string[];
}

export type PathModifier =
  | { readonly kind: 'full'; readonly value: string }
  | { readonly kind: 'prefix'; readonly value: string };

export interface BackendRef {
  /** Empty for the core group, which is the default. */
  readonly group: string;
  /** `Service` when not written. */
  readonly kind: string;
  readonly name: string;
  /** The route's own when not written. */
  readonly namespace: string;
  readonly port?: number;
  /** 1 when not written. */
  readonly weight: number;
  /** Of HTTPRoute and GRPCRoute. */
  readonly filters: readonly RouteFilter[];
}

export type RouteFilter =
  | ({ readonly kind: 'request-headers' } & HeaderFilter)
  | ({ readonly kind: 'response-headers' } & HeaderFilter)
  | {
      readonly kind: 'redirect';
      readonly scheme?: 'http' | 'https';
      readonly hostname?: string;
      readonly path?: PathModifier;
      readonly port?: number;
      /** 302 when not written. */
      readonly statusCode: 301 | 302 | 303 | 307 | 308;
    }
  | { readonly kind: 'rewrite'; readonly hostname?: string; readonly path?: PathModifier }
  | {
      readonly kind: 'mirror';
      readonly backend: BackendRef;
      /** Share of requests; numerator over denominator. */
      readonly numerator: number;
      readonly denominator: number;
    }
  | {
      readonly kind: 'cors';
      readonly allowOrigins: readonly string[];
      readonly allowCredentials: boolean;
      readonly allowMethods: readonly string[];
      readonly allowHeaders: readonly string[];
      readonly exposeHeaders: readonly string[];
      /** Seconds; 5 when not written. */
      readonly maxAge: number;
    }
  | Unsupported;

export interface SessionPersistence {
  readonly kind: 'cookie' | 'header';
  /** Of the cookie or header; a name of ours when not written. */
  readonly name: string;
  readonly path?: string;
  readonly lifetime: 'session' | 'permanent';
  readonly idleTimeoutMs?: DurationMs;
  readonly absoluteTimeoutMs?: DurationMs;
}

export interface Retry {
  readonly codes: readonly number[];
  /** Tries after the first; 1 when not written. */
  readonly attempts: number;
  readonly backoffMs?: DurationMs;
}

interface RuleBase {
  readonly name?: string;
  readonly backendRefs: readonly BackendRef[];
}

export interface HttpRule extends RuleBase {
  /** Never empty: without any written, one that matches all. */
  readonly matches: readonly HttpMatch[];
  readonly filters: readonly RouteFilter[];
  readonly timeouts: { readonly requestMs?: DurationMs; readonly backendRequestMs?: DurationMs };
  readonly retry?: Retry;
  readonly sessionPersistence?: SessionPersistence;
  /** Matches that hold something we do not support. */
  readonly unsupported: readonly Unsupported[];
}

export interface GrpcMatch {
  readonly method:
    | { readonly kind: 'exact' | 'regex'; readonly service?: string; readonly method?: string }
    | undefined;
  readonly headers: HttpMatch['headers'];
}

export interface GrpcRule extends RuleBase {
  readonly matches: readonly GrpcMatch[];
  readonly filters: readonly RouteFilter[];
  readonly sessionPersistence?: SessionPersistence;
  readonly unsupported: readonly Unsupported[];
}

interface RouteSpecBase {
  readonly parentRefs: readonly ParentRef[];
}

export interface HttpRouteSpec extends RouteSpecBase {
  /** Ignored for parents that are services. */
  readonly hostnames: readonly string[];
  readonly rules: readonly HttpRule[];
}

export interface GrpcRouteSpec extends RouteSpecBase {
  readonly hostnames: readonly string[];
  readonly rules: readonly GrpcRule[];
}

export interface TcpRouteSpec extends RouteSpecBase {
  readonly rules: readonly RuleBase[];
}

export interface TlsRouteSpec extends RouteSpecBase {
  /** Names in the ClientHello; `*.` may begin one. */
  readonly hostnames: readonly string[];
  readonly rules: readonly RuleBase[];
}

export interface ReferenceGrantSpec {
  readonly from: readonly { readonly group: string; readonly kind: string; readonly namespace: string }[];
  readonly to: readonly { readonly group: string; readonly kind: string; readonly name?: string }[];
}

export interface BackendTlsPolicySpec {
  readonly targetRefs: readonly {
    readonly group: string;
    readonly kind: string;
    readonly name: string;
    readonly sectionName?: string;
  }[];
  readonly validation: {
    /** ConfigMaps with `ca.crt`. */
    readonly caCertificateRefs: readonly {
      readonly group: string;
      readonly kind: string;
      readonly name: string;
    }[];
    readonly wellKnownCaCertificates?: string;
    readonly hostname: string;
    readonly subjectAltNames: readonly { readonly type: 'Hostname' | 'URI'; readonly value: string }[];
  };
}

/** `tulle.dev/v1alpha1`. Of the kind only `faults` is built; what is written beside it refuses the object. */
export interface TrafficPolicySpec {
  readonly targetRefs: readonly {
    readonly group: string;
    /** `Service`, `HTTPRoute`, `GRPCRoute` or `Gateway`. */
    readonly kind: string;
    readonly name: string;
    /** Name of a rule of the route. */
    readonly sectionName?: string;
  }[];
  readonly faults: readonly Fault[];
}

export interface Fault {
  readonly name: string;
  readonly match: {
    readonly headers: readonly { readonly name: string; readonly match: ValueMatch }[];
    /** `namespace/name`. Empty: callers of any. */
    readonly serviceAccounts: readonly string[];
    readonly namespaces: readonly string[];
  };
  readonly delay?: { readonly fixedMs: DurationMs; readonly jitterMs: DurationMs };
  readonly abort?: { readonly httpStatus: number } | { readonly grpcStatus: number };
  /** KiB a second. */
  readonly responseRateKbps?: number;
  /** 0 to 100. */
  readonly percent: number;
  readonly where: 'downstream' | 'upstream';
  readonly expiresAfterMs: DurationMs;
  readonly maxConcurrent?: number;
}
