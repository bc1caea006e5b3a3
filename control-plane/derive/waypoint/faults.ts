import { packAny } from '#api/envoy/any.ts';
import { HTTPFaultSchema } from '#api/envoy/gen/envoy/extensions/filters/http/fault/v3/fault_pb.ts';
import { FractionalPercent_DenominatorType } from '#api/envoy/gen/envoy/type/v3/percent_pb.ts';
import type { FaultMetadata } from '#api/envoy/metadata.ts';
import type { ObjectKey } from '../../source/objects.ts';
import type { Fault } from '../../source/route-objects.ts';
import { duration, type Fields } from './messages.ts';
import type { FilterSettings } from './route-extensions.ts';
import { headerMatch } from './route-match.ts';

/** The faults of a route, in the order in which they are tried. */
export interface RouteFaults {
  readonly metadata: readonly FaultMetadata[];
  /** What Envoy's own filter can say of them. */
  readonly settings: FilterSettings;
}

/** A fault that has not ended. */
export interface ActiveFault {
  readonly fault: Fault;
  readonly key: string;
  /** `TrafficPolicy pay/chaos`. */
  readonly policy: ObjectKey;
  /** Milliseconds since the epoch. */
  readonly expiresAtMs: number;
}

/** None. */
export const NO_FAULTS: RouteFaults = { metadata: [], settings: {} };

/** How a route says its faults: one by Envoy's filter where that can say all of it; more, or others, by our metadata. */
export function writeFaults(active: readonly ActiveFault[]): RouteFaults {
  const [first] = active;
  if (first === undefined) return NO_FAULTS;
  if (active.length === 1 && fitsFilter(first.fault))
    return {
      metadata: [{ ...named(first), in_filter: true }],
      settings: { 'envoy.filters.http.fault': packAny(HTTPFaultSchema, filterFields(first.fault)) },
    };
  return {
    metadata: active.map((one) => ({ ...named(one), in_filter: false, ...ownFields(one.fault) })),
    settings: {},
  };
}

const MILLION = 1e6;

/**
 * Envoy's filter comes before the first attempt, knows no callers and no jitter, and throws its dice for a delay, an abort and a
 * rate each by itself.
 */
function fitsFilter({ where, match, delay, abort, responseRateKbps, percent }: Fault): boolean {
  const { serviceAccounts, namespaces } = match;
  const parts = [delay, abort, responseRateKbps].filter((part) => part !== undefined).length;
  return (
    where === 'downstream' &&
    serviceAccounts.length === 0 &&
    namespaces.length === 0 &&
    (delay === undefined || (delay.jitterMs === 0 && delay.fixedMs > 0)) &&
    (parts === 1 || percent === 100) &&
    Number.isInteger(toMillionths(percent))
  );
}

function filterFields({
  match,
  delay,
  abort,
  responseRateKbps,
  percent,
  maxConcurrent,
}: Fault): Fields<typeof HTTPFaultSchema> {
  const percentage = {
    numerator: toMillionths(percent),
    denominator: FractionalPercent_DenominatorType.MILLION,
  };
  return {
    headers: match.headers.map((header) => headerMatch(header.name, header.match)),
    ...(delay && {
      delay: { faultDelaySecifier: { case: 'fixedDelay', value: duration(delay.fixedMs) }, percentage },
    }),
    ...(abort && {
      abort: {
        errorType:
          'httpStatus' in abort
            ? { case: 'httpStatus', value: abort.httpStatus }
            : { case: 'grpcStatus', value: abort.grpcStatus },
        percentage,
      },
    }),
    ...(responseRateKbps !== undefined && {
      responseRateLimit: {
        limitType: { case: 'fixedLimit', value: { limitKbps: BigInt(responseRateKbps) } },
        percentage,
      },
    }),
    ...(maxConcurrent !== undefined && { maxActiveFaults: maxConcurrent }),
  };
}

/** Of percent; the rounding takes away what binary fractions add: 0.07 × 10⁴ is 700.0000000000001. */
function toMillionths(percent: number): number {
  return Number(((percent * MILLION) / 100).toFixed(6));
}

function named({ fault, policy, expiresAtMs }: ActiveFault): Omit<FaultMetadata, 'in_filter'> {
  return { name: fault.name, policy, expires_at_ms: expiresAtMs, where: fault.where };
}

function ownFields({
  match,
  delay,
  abort,
  responseRateKbps,
  percent,
  maxConcurrent,
}: Fault): Partial<FaultMetadata> {
  const { headers, serviceAccounts, namespaces } = match;
  return {
    percent,
    ...(headers.length > 0 && {
      headers: headers.map((header) => ({
        name: header.name,
        ...(header.match.kind === 'exact' ? { exact: header.match.value } : { regex: header.match.value }),
      })),
    }),
    ...(serviceAccounts.length > 0 && { from_service_accounts: serviceAccounts }),
    ...(namespaces.length > 0 && { from_namespaces: namespaces }),
    ...(delay && { delay_ms: delay.fixedMs, ...(delay.jitterMs > 0 && { delay_jitter_ms: delay.jitterMs }) }),
    ...(abort &&
      ('httpStatus' in abort
        ? { abort_http_status: abort.httpStatus }
        : { abort_grpc_status: abort.grpcStatus })),
    ...(responseRateKbps !== undefined && { response_kbps: responseRateKbps }),
    ...(maxConcurrent !== undefined && { max_concurrent: maxConcurrent }),
  };
}
