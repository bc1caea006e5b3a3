import type { Fault, RequestMatch, Route, TextMatch, WaypointConfig } from '#waypoint/model.ts';
import { type MatchableRequest, matchRoute } from '#waypoint/route/match.ts';

/** Every part left out: fits every request. */
const ANYTHING: RequestMatch = { path: { kind: 'prefix', value: '' }, headers: [], query: [] };

/** What a route wants of a request: `path /v2/*, method GET, header x-version: v2`. */
export function formatMatch({ path, method, headers, query }: RequestMatch): string {
  const parts = [
    ...(path.kind === 'prefix' && path.value === '' ? [] : [`path ${formatPath(path)}`]),
    ...(method === undefined ? [] : [`method ${method}`]),
    ...headers.map(({ name, match }) => `header ${name}: ${formatText(match)}`),
    ...query.map(({ name, match }) => `query ${name}=${formatText(match)}`),
  ];
  return parts.join(', ') || 'every request';
}

/** The first part of a route's match that does not fit the request, by the function that matches. */
export function whyNoMatch(route: Route, request: MatchableRequest): string {
  const fits = (part: Partial<RequestMatch>): boolean =>
    matchRoute({ name: '', routes: [{ ...route, match: { ...ANYTHING, ...part } }] }, request) !== undefined;
  const { path, method, headers, query } = route.match;
  if (!fits({ path })) return `the path is not ${formatPath(path)}`;
  if (method !== undefined && !fits({ method })) return `the method is not ${method}`;
  const header = headers.find((one) => !fits({ headers: [one] }));
  if (header !== undefined) return `header ${header.name} is not ${formatText(header.match)}`;
  const parameter = query.find((one) => !fits({ query: [one] }));
  if (parameter !== undefined)
    return `query parameter ${parameter.name} is not ${formatText(parameter.match)}`;
  return 'a route before it fits';
}

/** `delays 2000 ms, aborts with 503`. */
export function describeFault(fault: Fault): string {
  const jitter = fault.delay_jitter_ms === undefined ? '' : ` and up to ${fault.delay_jitter_ms} ms more`;
  return [
    ...(fault.delay_ms === undefined ? [] : [`delays ${fault.delay_ms} ms${jitter}`]),
    ...(fault.abort_http_status === undefined ? [] : [`aborts with ${fault.abort_http_status}`]),
    ...(fault.abort_grpc_status === undefined ? [] : [`aborts with gRPC status ${fault.abort_grpc_status}`]),
    ...(fault.response_kbps === undefined ? [] : [`lets ${fault.response_kbps} KiB a second through`]),
  ].join(', ');
}

/** Of a cluster, as people know it. */
export function backendName({ clusters }: WaypointConfig, cluster: string): string {
  const known = clusters.get(cluster);
  if (known !== undefined) return known.backend;
  const [kind, , , index] = cluster.split('|');
  return kind === 'invalid' ? `invalid (backend ${index})` : cluster;
}

function formatPath(path: RequestMatch['path']): string {
  if (path.kind === 'exact') return path.value;
  return path.kind === 'prefix' ? `${path.value}/*` : `~ ${path.pattern.source}`;
}

function formatText(match: TextMatch): string {
  return match.kind === 'exact' ? match.value : `~ ${match.pattern.source}`;
}
