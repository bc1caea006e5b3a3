import type { HostPort } from '#api/address.ts';
import type { Service } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { CONNECTION_ID_HEADER, formatBaggage, formatForwarded, newTraceparent } from './hbone/headers.ts';
import type { Field } from './hbone/hpack-tables.ts';

/** What a CONNECT tells about a connection. */
export interface TunnelRequest {
  readonly authority: string;
  readonly source: Workload;
  /** The application's socket. */
  readonly client: HostPort;
  readonly service: Pick<Service, 'hostname'> | undefined;
  readonly connectionId: string;
}

/** Headers of a CONNECT, as a stock client sends them, and the connection's ID: fact sheet ambient-wire.md, 1.3. */
export function connectFields(request: TunnelRequest): readonly Field[] {
  return [
    [':method', 'CONNECT'],
    [':authority', request.authority],
    ['baggage', formatBaggage(request.source)],
    ['forwarded', formatForwarded(request.client, request.service?.hostname)],
    ['traceparent', newTraceparent()],
    [CONNECTION_ID_HEADER, request.connectionId],
  ];
}
