import type { HeaderList } from '../exchange.ts';
import { firstValue } from './headers.ts';

const TYPE = 'application/grpc';

/** Whether a request (or response) is gRPC, by its content-type: `application/grpc`, or that with `+` and a format. */
export function isGrpc(headers: HeaderList): boolean {
  const type = firstValue(headers, 'content-type');
  if (type === undefined || !type.startsWith(TYPE)) return false;
  const next = type[TYPE.length];
  return next === undefined || next === '+';
}

const STATUSES: ReadonlyMap<number, number> = new Map([
  [400, 13],
  [401, 16],
  [403, 7],
  [404, 12],
  [429, 14],
  [502, 14],
  [503, 14],
  [504, 14],
]);

/**
 * What a gRPC client is told instead of an HTTP status that we decided; UNKNOWN (2) for all that has no counterpart.
 * Source: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
 */
export function grpcStatusOf(httpStatus: number): number {
  return STATUSES.get(httpStatus) ?? 2;
}
