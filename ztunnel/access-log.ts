/** Response flags, the same in log, metric and admin: fact sheet ambient-wire.md, section 8. */
export type ResponseFlags =
  | '-'
  | 'DENY'
  | 'CONNECT'
  | 'TLS_FAILURE'
  | 'H2_HANDSHAKE_FAILURE'
  | 'NETWORK_POLICY'
  | 'IDENTITY_ERROR'
  | 'CERT_REVOKED';

/**
 * One end of a connection as far as it is known. Identity as `spiffe://…`, only when it is proven: by mTLS, or on one node by
 * the pod's own listener and a certificate that stands the same checks.
 */
export interface Peer {
  /** `ip:port`. */
  readonly address: string;
  readonly workload?: PeerWorkload;
  readonly identity?: string;
}

/** The labels of a workload that logs and metrics use. */
export interface PeerWorkload {
  readonly name: string;
  readonly namespace: string;
  readonly workloadName: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly cluster: string;
  readonly region: string;
  readonly zone: string;
}

/**
 * What there is to say about a connection, once when it opens, while it lives (`progress`, for metrics only, at most
 * once a second) and once when it closes. One that changes hands `left` here and has `joined` there, which is for metrics only,
 * too. Bytes are what has come since the last record of the same connection.
 */
export interface AccessRecord {
  readonly event: 'opened' | 'progress' | 'left' | 'joined' | 'closed' | 'failed';
  readonly atMs: number;
  readonly direction: 'inbound' | 'outbound';
  readonly source: Peer;
  /** SPIFFE ID of the waypoint that asked for the source. */
  readonly waypoint?: string;
  readonly destination: Peer;
  /** The CONNECT authority. */
  readonly hboneAddress?: string;
  readonly service?: { readonly hostname: string; readonly name: string; readonly namespace: string };
  /** The service that the destination counts it for, where the caller has addressed none. */
  readonly impliedService?: NonNullable<AccessRecord['service']>;
  /** `same_node`: between two pods of this node, inside the process; this record stands for both ends. */
  readonly security: 'mutual_tls' | 'same_node' | 'unknown';
  /** Client to server, since the last record. */
  readonly receivedBytes: number;
  /** Server to client, since the last record. */
  readonly sentBytes: number;
  /** Totals, in the last record. */
  readonly totalReceivedBytes: number;
  readonly totalSentBytes: number;
  readonly durationMs: number;
  /** With `closed`: there was no record of its opening, this one stands for both. */
  readonly includesOpening?: true;
  readonly flags: ResponseFlags;
  readonly error?: string;
  /** 128 random bits, hexadecimal: the same at both ends of a tunnel between two of our ztunnels. */
  readonly connectionId?: string;
  /** `namespace/name` of the policy that decided, and the verdict's reason. */
  readonly policy?: string;
  readonly reason?: string;
  /** What policies in dry run would have done, those that would have done something: `shop/p would deny`, by commas. */
  readonly dryRun?: string;
}
