import type { Caller, HeaderList } from '../exchange.ts';
import type { Fault } from '../model.ts';
import { headerMatches } from './match.ts';

/** What is done to a request, or to one attempt: the delay first, then the abort. */
export interface ChosenFaults {
  /** Of those below; for log, metric and response header. */
  readonly names: readonly string[];
  readonly delayMs: number;
  readonly abort?: { readonly httpStatus: number } | { readonly grpcStatus: number };
  /** KiB a second, of the response's body. */
  readonly responseKbps?: number;
  /** To be counted as long as the request is under them, for `max_concurrent`. */
  readonly faults: readonly Fault[];
}

/** What faults are chosen by. */
export interface FaultInput {
  readonly where: Fault['where'];
  readonly headers: HeaderList;
  readonly authority: string;
  readonly caller: Pick<Caller, 'identity'>;
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
  /** Random, from 0 up to 1. */
  readonly draw: () => number;
  /** How many requests are under a fault now. */
  readonly active: (fault: Fault) => number;
}

/** Of most requests. */
export const NO_FAULTS: ChosenFaults = { names: [], delayMs: 0, faults: [] };

/**
 * Each fault that has not ended and fits is drawn by itself. Delays add up; of several aborts the first counts, of several
 * rates the lowest.
 */
export function chooseFaults(faults: readonly Fault[], input: FaultInput): ChosenFaults {
  if (faults.length === 0) return NO_FAULTS;
  const drawn = faults.filter((fault) => applies(fault, input) && input.draw() * 100 < fault.percent);
  if (drawn.length === 0) return NO_FAULTS;
  let delayMs = 0;
  let abort: ChosenFaults['abort'];
  let responseKbps: number | undefined;
  for (const fault of drawn) {
    delayMs +=
      (fault.delay_ms ?? 0) + (fault.delay_jitter_ms ?? 0) * (fault.delay_jitter_ms ? input.draw() : 0);
    if (fault.abort_http_status !== undefined) abort ??= { httpStatus: fault.abort_http_status };
    if (fault.abort_grpc_status !== undefined) abort ??= { grpcStatus: fault.abort_grpc_status };
    if (fault.response_kbps !== undefined)
      responseKbps = Math.min(responseKbps ?? Number.POSITIVE_INFINITY, fault.response_kbps);
  }
  return {
    names: [...new Set(drawn.map((fault) => fault.name))],
    delayMs,
    ...(abort === undefined ? {} : { abort }),
    ...(responseKbps === undefined ? {} : { responseKbps }),
    faults: drawn,
  };
}

function applies(fault: Fault, input: FaultInput): boolean {
  return (
    fault.where === input.where &&
    input.nowMs < fault.expires_at_ms &&
    isCaller(fault, input.caller) &&
    fault.headers.every(({ name, match }) => headerMatches(input, name, match)) &&
    (fault.max_concurrent === undefined || input.active(fault) < fault.max_concurrent)
  );
}

/** A list that is not empty has to name the caller; of two lists both. */
function isCaller(fault: Fault, { identity }: FaultInput['caller']): boolean {
  const { from_service_accounts: accounts = [], from_namespaces: namespaces = [] } = fault;
  if (accounts.length > 0 && !accounts.includes(`${identity.namespace}/${identity.serviceAccount}`))
    return false;
  return namespaces.length === 0 || namespaces.includes(identity.namespace);
}
