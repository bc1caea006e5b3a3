import type { Downstream } from '../exchange.ts';
import type { RequestRecord, ResponseFlag } from '../request-record.ts';

/** A request that was answered before anybody saw it. */
export interface RefusedRequest {
  readonly status: number;
  readonly details: string;
  readonly flags: readonly ResponseFlag[];
  readonly protocol: RequestRecord['protocol'];
  /** As far as they could be read. */
  readonly method?: string;
  readonly target?: string;
  readonly authority?: string;
}

/** What the log and the metrics get of it. */
export function refusalRecord(
  { caller, frontend, authority }: Downstream,
  refused: RefusedRequest,
): RequestRecord {
  const { status, details, flags, protocol } = refused;
  return {
    startMs: Date.now(),
    durationMs: 0,
    caller,
    frontend,
    destination: `${authority.ip}:${authority.port}`,
    protocol,
    request: {
      method: refused.method ?? '',
      authority: refused.authority ?? '',
      path: refused.target ?? '',
      id: '',
      userAgent: '',
      traceparent: caller.traceparent ?? '',
      isGrpc: false,
    },
    status,
    flags,
    details,
    bytesReceived: 0,
    bytesSent: 0,
    route: '',
    origin: undefined,
    cluster: '',
    backend: '',
    endpoint: undefined,
    attempts: 0,
    upstreamMs: undefined,
    faults: [],
  };
}
