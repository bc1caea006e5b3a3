import type { PathModifier, RouteFilter, SessionPersistence, Unsupported } from './route-objects.ts';
import { shown } from './schema-parts.ts';
import type {
  WrittenCors,
  WrittenFilter,
  WrittenHeaderFilter,
  WrittenMirror,
  WrittenPath,
  WrittenRedirect,
  WrittenRewrite,
} from './schema-route-filters.ts';
import { notSupported, type ReportUnsupported, toBackendRef } from './schema-route-parts.ts';
import type { WrittenSession } from './schema-session.ts';

/** Where a filter stands: its path, the namespace of its route, and which types are known there. */
export interface FilterPlace {
  readonly path: string;
  readonly namespace: string;
  readonly types: readonly string[];
}

/** Filter types of a rule of an HTTPRoute. */
export const HTTP_FILTERS: readonly string[] = [
  'RequestHeaderModifier',
  'ResponseHeaderModifier',
  'RequestMirror',
  'RequestRedirect',
  'URLRewrite',
  'CORS',
];

/** Filter types of a rule of a GRPCRoute. */
export const GRPC_FILTERS: readonly string[] = [
  'RequestHeaderModifier',
  'ResponseHeaderModifier',
  'RequestMirror',
];

/** Filter types of a single backend: what Envoy has for one of several clusters. */
export const BACKEND_FILTERS: readonly string[] = ['RequestHeaderModifier', 'ResponseHeaderModifier'];

/** Filters in their order; one that is not supported stays in its place, and says so. */
export function toFilters(written: readonly WrittenFilter[], place: FilterPlace): readonly RouteFilter[] {
  return written.map((filter, index) => toFilter(filter, { ...place, path: `${place.path}[${index}]` }));
}

function toFilter(written: WrittenFilter, place: FilterPlace): RouteFilter {
  if (!place.types.includes(written.type))
    return unsupported(`${place.path}.type`, notSupported('filter type', written.type, place.types));
  const { requestHeaderModifier, responseHeaderModifier, requestMirror, requestRedirect } = written;
  if (requestHeaderModifier !== undefined)
    return toHeaderFilter('request-headers', requestHeaderModifier, `${place.path}.requestHeaderModifier`);
  if (responseHeaderModifier !== undefined)
    return toHeaderFilter('response-headers', responseHeaderModifier, `${place.path}.responseHeaderModifier`);
  if (requestMirror !== undefined) return toMirror(requestMirror, place.namespace);
  if (requestRedirect !== undefined) return toRedirect(requestRedirect, `${place.path}.requestRedirect`);
  if (written.urlRewrite !== undefined) return toRewrite(written.urlRewrite, `${place.path}.urlRewrite`);
  if (written.cors !== undefined) return toCors(written.cors, `${place.path}.cors`);
  return unsupported(place.path, `filter type ${shown(written.type)} has no field of its name`);
}

function unsupported(path: string, reason: string): Unsupported {
  return { kind: 'unsupported', path, reason };
}

/** Headers that say how a message is sent, and those by which the mesh tells who calls: not a route's to change. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'content-length',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);
const OWN_REQUEST_HEADERS: ReadonlySet<string> = new Set(['host', 'x-forwarded-client-cert']);

function isOwnHeader(name: string): boolean {
  const key = name.toLowerCase();
  return OWN_HEADERS.has(key) || OWN_REQUEST_HEADERS.has(key);
}

function toHeaderFilter(
  kind: 'request-headers' | 'response-headers',
  { set, add, remove }: WrittenHeaderFilter,
  path: string,
): RouteFilter {
  const names: readonly (readonly [field: string, name: string])[] = [
    ...set.map(({ name }, index) => [`set[${index}].name`, name] as const),
    ...add.map(({ name }, index) => [`add[${index}].name`, name] as const),
    ...remove.map((name, index) => [`remove[${index}]`, name] as const),
  ];
  for (const [field, name] of names) {
    const key = name.toLowerCase();
    const isOwn = OWN_HEADERS.has(key) || (kind === 'request-headers' && OWN_REQUEST_HEADERS.has(key));
    const remedy = key === 'host' ? '; write a URLRewrite filter with hostname' : '';
    if (isOwn) return unsupported(`${path}.${field}`, `header ${shown(name)} cannot be changed${remedy}`);
  }
  return { kind, set, add, remove };
}

function toMirror({ backendRef, percent, fraction }: WrittenMirror, namespace: string): RouteFilter {
  const { numerator, denominator } = fraction ?? { numerator: percent ?? 100, denominator: 100 };
  return { kind: 'mirror', backend: toBackendRef(backendRef, namespace, []), numerator, denominator };
}

type StatusCode = Extract<RouteFilter, { readonly kind: 'redirect' }>['statusCode'];
const STATUS_CODES: readonly StatusCode[] = [301, 302, 303, 307, 308];

function toRedirect(written: WrittenRedirect, path: string): RouteFilter {
  const { scheme, path: modifier, statusCode: code, hostname, port } = written;
  const statusCode = STATUS_CODES.find((one) => one === code);
  if (statusCode === undefined)
    return unsupported(
      `${path}.statusCode`,
      notSupported('status code', String(code), STATUS_CODES.map(String)),
    );
  if (scheme !== undefined && scheme !== 'http' && scheme !== 'https')
    return unsupported(`${path}.scheme`, notSupported('scheme', scheme, ['http', 'https']));
  const changed = modifier && toPathModifier(modifier, `${path}.path`);
  if (changed?.kind === 'unsupported') return changed;
  return {
    kind: 'redirect',
    statusCode,
    ...(scheme !== undefined && { scheme }),
    ...(hostname !== undefined && { hostname }),
    ...(port !== undefined && { port }),
    ...(changed && { path: changed }),
  };
}

function toRewrite({ hostname, path: modifier }: WrittenRewrite, path: string): RouteFilter {
  const changed = modifier && toPathModifier(modifier, `${path}.path`);
  if (changed?.kind === 'unsupported') return changed;
  return { kind: 'rewrite', ...(hostname !== undefined && { hostname }), ...(changed && { path: changed }) };
}

function toPathModifier(
  { type, replaceFullPath, replacePrefixMatch }: WrittenPath,
  path: string,
): PathModifier | Unsupported {
  if (replaceFullPath !== undefined) return { kind: 'full', value: replaceFullPath };
  if (replacePrefixMatch !== undefined) return { kind: 'prefix', value: replacePrefixMatch };
  return unsupported(`${path}.type`, notSupported('type', type, ['ReplaceFullPath', 'ReplacePrefixMatch']));
}

const CORS_METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH', '*'];

function toCors(cors: WrittenCors, path: string): RouteFilter {
  const odd = cors.allowMethods.findIndex((method) => !CORS_METHODS.includes(method));
  if (odd < 0) return { kind: 'cors', ...cors };
  const method = cors.allowMethods[odd] ?? '';
  return unsupported(`${path}.allowMethods[${odd}]`, notSupported('method', method, CORS_METHODS));
}

/** With a name of ours where none is written; undefined and reported where it is of an unknown type. */
export function toSessionPersistence(
  written: WrittenSession,
  path: string,
  report: ReportUnsupported,
): SessionPersistence | undefined {
  const { type, sessionName, absoluteTimeout, idleTimeout } = written;
  const cookie = written.cookie ?? written.cookieConfig;
  if (type !== 'Cookie' && type !== 'Header') {
    report(`${path}.type`, notSupported('type', type, ['Cookie', 'Header']));
    return undefined;
  }
  const lifetime = cookie?.lifetimeType ?? 'Session';
  if (lifetime !== 'Session' && lifetime !== 'Permanent') {
    const field = written.cookie === undefined ? 'cookieConfig' : 'cookie';
    const reason = notSupported('lifetimeType', lifetime, ['Session', 'Permanent']);
    report(`${path}.${field}.lifetimeType`, reason);
    return undefined;
  }
  const isCookie = type === 'Cookie';
  const own = isCookie ? 'tulle-session' : 'x-tulle-session';
  const name = (isCookie ? cookie?.name : written.header?.name) ?? sessionName ?? own;
  if (!isCookie && isOwnHeader(name)) {
    const field = written.header === undefined ? 'sessionName' : 'header.name';
    report(`${path}.${field}`, `header ${shown(name)} cannot hold a session; name another one`);
    return undefined;
  }
  return {
    kind: isCookie ? 'cookie' : 'header',
    name,
    lifetime: lifetime === 'Permanent' ? 'permanent' : 'session',
    ...(cookie?.path !== undefined && { path: cookie.path }),
    ...(idleTimeout !== undefined && { idleTimeoutMs: idleTimeout }),
    ...(absoluteTimeout !== undefined && { absoluteTimeoutMs: absoluteTimeout }),
  };
}
