import type { HTTPFault } from '#api/envoy/gen/envoy/extensions/filters/http/fault/v3/fault_pb.ts';
import type { FaultMetadata, RouteMetadata } from '#api/envoy/metadata.ts';
import type { Fault, TextMatch } from '../model.ts';
import { refuse } from './config-error.ts';
import { toMs, toPercent } from './decode.ts';
import { headerName } from './header-mutations.ts';
import { headerText } from './header-text.ts';
import { compilePattern } from './pattern.ts';

/** A fault of a control plane that is not ours: nothing says who wrote it, or when it ends. */
const UNNAMED: FaultMetadata = {
  name: 'fault',
  policy: '',
  expires_at_ms: Number.POSITIVE_INFINITY,
  where: 'downstream',
  in_filter: true,
};

/**
 * The faults of a route, in the order in which they are tried. What Envoy's filter says of one stands in the place that its
 * metadata has; a delay and an abort of one filter are drawn each by itself, as Envoy does.
 * @throws ConfigError
 */
export function compileFaults(metadata: RouteMetadata, filter: HTTPFault | undefined): readonly Fault[] {
  const described = metadata.faults ?? [];
  const inFilter = described.filter((fault) => fault.in_filter);
  if (filter === undefined && inFilter.length > 0)
    refuse(`fault ${inFilter[0]?.name}: its filter's settings are missing`);
  if (inFilter.length > 1) refuse(`fault ${inFilter[1]?.name}: a route's filter can say one fault`);
  const all = filter === undefined || inFilter.length > 0 ? described : [UNNAMED, ...described];
  return all.flatMap((fault) =>
    fault.in_filter && filter !== undefined ? ofFilter(fault, filter) : [ofMetadata(fault)],
  );
}

function ofMetadata({ headers, in_filter: _, ...fault }: FaultMetadata): Fault {
  if (fault.percent === undefined) return refuse(`fault ${fault.name}: it has no percent`);
  if (fault.abort_http_status !== undefined && fault.abort_grpc_status !== undefined)
    refuse(`fault ${fault.name}: it has two statuses`);
  return {
    ...fault,
    percent: fault.percent,
    headers: (headers ?? []).map(({ name, exact, regex }) => ({
      name: headerName(name),
      match:
        textMatch(exact, regex) ?? refuse(`fault ${fault.name}: header ${name} has to be exact or regex`),
    })),
  };
}

function textMatch(exact: string | undefined, regex: string | undefined): TextMatch | undefined {
  if (exact !== undefined) return regex === undefined ? { kind: 'exact', value: exact } : undefined;
  return regex === undefined ? undefined : { kind: 'regex', pattern: compilePattern(regex) };
}

function ofFilter(metadata: FaultMetadata, filter: HTTPFault): readonly Fault[] {
  const { headers: _, in_filter: __, ...known } = metadata;
  const base = {
    ...known,
    headers: filter.headers.map((header) => ({ name: headerName(header.name), match: headerText(header) })),
    ...(filter.maxActiveFaults === undefined ? {} : { max_concurrent: filter.maxActiveFaults }),
  };
  const { delay, abort, responseRateLimit: rate } = filter;
  const faults: Fault[] = [];
  if (rate?.limitType.case === 'fixedLimit')
    faults.push({
      ...base,
      percent: toPercent(rate.percentage),
      response_kbps: Number(rate.limitType.value.limitKbps),
    });
  if (delay?.faultDelaySecifier.case === 'fixedDelay')
    faults.push({
      ...base,
      percent: toPercent(delay.percentage),
      delay_ms: toMs(delay.faultDelaySecifier.value),
    });
  if (abort?.errorType.case === 'httpStatus')
    faults.push({ ...base, percent: toPercent(abort.percentage), abort_http_status: abort.errorType.value });
  if (abort?.errorType.case === 'grpcStatus')
    faults.push({ ...base, percent: toPercent(abort.percentage), abort_grpc_status: abort.errorType.value });
  return faults;
}
