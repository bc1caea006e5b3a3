import type {
  HeaderMatcherSchema,
  QueryParameterMatcherSchema,
  RouteMatchSchema,
} from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import type { StringMatcherSchema } from '#api/envoy/gen/envoy/type/matcher/v3/string_pb.ts';
import type { GrpcMatch, HttpMatch, ValueMatch } from '../../source/route-objects.ts';
import type { Fields } from './messages.ts';

/** Which requests a route is for. */
export type MatchFields = Fields<typeof RouteMatchSchema>;

/** Everything. */
export const MATCH_ALL: MatchFields = { pathSpecifier: { case: 'prefix', value: '/' } };

/** The match of an HTTPRoute. A prefix counts by segments, with or without a final slash. */
export function httpMatch({ path, headers, queryParams, method }: HttpMatch): MatchFields {
  return {
    pathSpecifier: pathMatch(path),
    headers: [
      ...(method === undefined ? [] : [headerMatch(':method', { kind: 'exact', value: method })]),
      ...headers.map(({ name, match }) => headerMatch(name, match)),
    ],
    queryParameters: queryParams.map(
      ({ name, match }): Fields<typeof QueryParameterMatcherSchema> => ({
        name,
        queryParameterMatchSpecifier: { case: 'stringMatch', value: textMatch(match) },
      }),
    ),
  };
}

/** The match of a GRPCRoute: the path of a call is `/package.Service/Method`. */
export function grpcMatch({ method, headers }: GrpcMatch): MatchFields {
  return {
    pathSpecifier: callMatch(method),
    headers: headers.map(({ name, match }) => headerMatch(name, match)),
  };
}

/** How a header has to be. */
export function headerMatch(name: string, match: ValueMatch): Fields<typeof HeaderMatcherSchema> {
  return { name, headerMatchSpecifier: { case: 'stringMatch', value: textMatch(match) } };
}

/** The prefix without final slashes: empty for the one of everything. */
export function barePrefix(value: string): string {
  return value.replace(/\/+$/, '');
}

/** Text for a regular expression of RE2 that stands for itself. */
export function quoteRegex(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

function pathMatch(path: HttpMatch['path']): NonNullable<MatchFields['pathSpecifier']> {
  switch (path?.kind) {
    case 'exact':
      return { case: 'path', value: path.value };
    case 'regex':
      return { case: 'safeRegex', value: { regex: path.value } };
    case 'prefix':
      return prefixMatch(barePrefix(path.value));
    case undefined:
      return prefixMatch('');
  }
}

function prefixMatch(prefix: string): NonNullable<MatchFields['pathSpecifier']> {
  return prefix === '' ? { case: 'prefix', value: '/' } : { case: 'pathSeparatedPrefix', value: prefix };
}

function callMatch(call: GrpcMatch['method']): NonNullable<MatchFields['pathSpecifier']> {
  if (call === undefined || (call.service === undefined && call.method === undefined)) return prefixMatch('');
  const { kind, service, method } = call;
  if (kind === 'exact' && service !== undefined)
    return method === undefined
      ? prefixMatch(`/${service}`)
      : { case: 'path', value: `/${service}/${method}` };
  const part = (text: string | undefined): string =>
    text === undefined ? '[^/]+' : kind === 'exact' ? quoteRegex(text) : `(?:${text})`;
  return { case: 'safeRegex', value: { regex: `/${part(service)}/${part(method)}` } };
}

function textMatch(match: ValueMatch): Fields<typeof StringMatcherSchema> {
  return match.kind === 'exact'
    ? { matchPattern: { case: 'exact', value: match.value } }
    : { matchPattern: { case: 'safeRegex', value: { regex: match.value } } };
}
