import type { Caller } from './exchange.ts';
import type { Endpoint, Frontend, Origin } from './model.ts';

/**
 * Why an answer is what it is, in Envoy's words: https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
 */
export type ResponseFlag =
  | 'DC'
  | 'DI'
  | 'DPE'
  | 'FI'
  | 'IH'
  | 'LR'
  | 'NC'
  | 'NR'
  | 'OM'
  | 'RL'
  | 'SI'
  | 'UAEX'
  | 'UC'
  | 'UF'
  | 'UH'
  | 'UMSDR'
  | 'UO'
  | 'UPE'
  | 'UR'
  | 'URX'
  | 'UT'
  | 'DT';

/** Why a try that failed was the last, though the route retries what it came to. */
export type RetrySkipped =
  | 'not-safe-to-repeat'
  /** Too large to be kept. */
  | 'body-not-kept'
  | 'attempts-exhausted'
  | 'over-budget'
  | 'deadline';

/** What there is to say of one request (or TCP connection) when it is over: the access log, the metrics and status use this. */
export interface RequestRecord {
  /** Milliseconds since the epoch. */
  readonly startMs: number;
  readonly durationMs: number;
  readonly caller: Caller;
  readonly frontend: Frontend;
  /** What the caller dialled. */
  readonly destination: string;
  readonly protocol: 'HTTP/1.0' | 'HTTP/1.1' | 'HTTP/2' | 'TCP';
  /** Absent for TCP. */
  readonly request?: {
    readonly method: string;
    readonly authority: string;
    /** The canonical path with its query. */
    readonly path: string;
    readonly id: string;
    readonly userAgent: string;
    readonly traceparent: string;
    readonly isGrpc: boolean;
  };
  /** 0 when there was none. */
  readonly status: number;
  /** Of trailers or, when there are none, of headers. */
  readonly grpcStatus?: number;
  readonly flags: readonly ResponseFlag[];
  /** In words, for what the waypoint itself decided: `no route matches`, `AuthorizationPolicy pay/p denies`. */
  readonly details: string;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /** `HTTPRoute pay/ledger rule 0 match 1`; empty without. */
  readonly route: string;
  readonly origin: Origin | undefined;
  /** Name of the cluster, and its `namespace/name:port`. */
  readonly cluster: string;
  readonly backend: string;
  readonly endpoint: Endpoint | undefined;
  /** Tries that were made upstream. */
  readonly attempts: number;
  /** From the last try's start to its answer's head, in ms. */
  readonly upstreamMs: number | undefined;
  /** Names of the faults that were injected. */
  readonly faults: readonly string[];
  readonly retrySkipped?: RetrySkipped;
}
