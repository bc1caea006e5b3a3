import type { ObjectKey, Problem } from '../../source/objects.ts';
import type {
  BackendRef,
  GrpcMatch,
  GrpcRule,
  HttpMatch,
  HttpRule,
  RouteFilter,
} from '../../source/route-objects.ts';

/** Which routes hold for which port of which service, in order of precedence, and what their status says. */
export interface AttachedRoutes {
  readonly frontends: readonly AttachedFrontend[];
  readonly statuses: readonly RouteStatus[];
  readonly problems: readonly Problem[];
}

/** A port of a service that has routes, as callers of one namespace (consumer routes) or all others (producer routes) see it. */
export type AttachedFrontend = {
  /** `namespace/hostname`. */
  readonly service: string;
  readonly port: number;
  /** The namespace whose callers it is for; absent: all that have no frontend of their own. */
  readonly consumerNamespace?: string;
} & (
  | { readonly kind: 'http'; readonly entries: readonly HttpEntry[] }
  | { readonly kind: 'grpc'; readonly entries: readonly GrpcEntry[] }
  | { readonly kind: 'tls'; readonly entries: readonly TlsEntry[] }
  | { readonly kind: 'tcp'; readonly entries: readonly StreamEntry[] }
);

interface EntryBase {
  /** `HTTPRoute pay/ledger`. */
  readonly object: ObjectKey;
  readonly rule: number;
  readonly ruleName?: string;
  readonly backends: readonly ResolvedBackend[];
  /**
   * Why every request that it matches is answered 500: something in the route is not supported. What of a match could not be
   * read is left away, so that it matches more than what was meant.
   */
  readonly refused?: string;
}

/** One match of one rule: what is listed first counts. */
export interface HttpEntry extends EntryBase {
  readonly match: HttpMatch;
  readonly matchIndex: number;
  readonly spec: HttpRule;
  /** By index in `spec.filters`, for mirrors. */
  readonly mirrors: ReadonlyMap<number, ResolvedBackend>;
}

export interface GrpcEntry extends EntryBase {
  readonly match: GrpcMatch;
  readonly matchIndex: number;
  readonly spec: GrpcRule;
  readonly mirrors: ReadonlyMap<number, ResolvedBackend>;
}

/** Of a TCPRoute: there is only ever one, the oldest. */
export interface StreamEntry extends EntryBase {}

/** One name of a TLSRoute; the most specific come first, and none is there twice. */
export interface TlsEntry extends EntryBase {
  /** One name, where `*.` may begin it; empty: all. */
  readonly hostnames: readonly string[];
}

export interface ResolvedBackend {
  readonly ref: BackendRef;
  readonly weight: number;
  readonly filters: readonly RouteFilter[];
  /** `invalid`: its share of the requests is answered 500, its share of the connections refused. */
  readonly target:
    | { readonly kind: 'service'; readonly service: string; readonly port: number }
    | {
        readonly kind: 'invalid';
        readonly reason: 'InvalidKind' | 'BackendNotFound' | 'RefNotPermitted' | 'UnsupportedProtocol';
        readonly message: string;
      };
}

/** As the Gateway API has it: one entry for each parentRef, which is repeated as it was written. */
export interface RouteStatus {
  readonly object: ObjectKey;
  readonly parents: readonly {
    readonly parentRef: Readonly<Record<string, unknown>>;
    readonly controllerName: 'tulle.dev/waypoint';
    readonly conditions: readonly RouteCondition[];
  }[];
}

export interface RouteCondition {
  readonly type: 'Accepted' | 'ResolvedRefs' | 'PartiallyInvalid';
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
  /** Of the object, 1 where it has none: files have no generations. */
  readonly observedGeneration: number;
}
