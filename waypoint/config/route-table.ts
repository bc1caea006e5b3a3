import {
  type DirectResponseAction,
  type RedirectAction as EnvoyRedirect,
  type Route as EnvoyRoute,
  RedirectAction_RedirectResponseCode as RedirectCode,
  type RouteMatch,
} from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import { RouteConfigurationSchema } from '#api/envoy/gen/envoy/config/route/v3/route_pb.ts';
import type { DirectResponse, RedirectAction, RequestMatch, Route, RouteTable, TextMatch } from '../model.ts';
import { canonicalPath } from '../route/canonical-path.ts';
import { ConfigError, refuse } from './config-error.ts';
import { decodeMessage } from './decode.ts';
import { compileFaults } from './faults.ts';
import { compileForward } from './forward-action.ts';
import { compileMutations } from './header-mutations.ts';
import { headerText } from './header-text.ts';
import { originOf, routeMetadata } from './metadata.ts';
import { compilePrefix, compileRegexRewrite } from './path-rewrite.ts';
import { compilePattern, compileTextMatch } from './pattern.ts';
import { routeFilters } from './route-filters.ts';

/** @throws ConfigError naming the route */
export function compileRouteTable(bytes: Uint8Array): RouteTable {
  const table = decodeMessage(RouteConfigurationSchema, bytes);
  const [host, ...more] = table.virtualHosts;
  if (host === undefined || more.length > 0 || host.domains.length !== 1 || host.domains[0] !== '*')
    refuse('it has to have one virtual host, for the domain "*"');
  return {
    name: table.name,
    routes: host.routes.map((route, index) => {
      try {
        return compileRoute(route);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        return refuse(`route ${route.name === '' ? index : JSON.stringify(route.name)}: ${error.message}`);
      }
    }),
  };
}

function compileRoute(route: EnvoyRoute): Route {
  const metadata = routeMetadata(route.metadata);
  const filters = routeFilters(route.typedPerFilterConfig, metadata);
  const match = compileMatch(route.match ?? refuse('it has no match'));
  return {
    name: route.name,
    origin: originOf(metadata),
    match,
    action: compileAction(route, match, filters.session),
    requestHeaders: compileMutations(route.requestHeadersToAdd, route.requestHeadersToRemove),
    responseHeaders: compileMutations(route.responseHeadersToAdd, route.responseHeadersToRemove),
    ...(filters.cors === undefined ? {} : { cors: filters.cors }),
    faults: compileFaults(metadata, filters.fault),
  };
}

function compileAction(
  route: EnvoyRoute,
  match: RequestMatch,
  session: ReturnType<typeof routeFilters>['session'],
): Route['action'] {
  const { action } = route;
  switch (action.case) {
    case 'route':
      return compileForward(action.value, match, session);
    case 'redirect':
      return compileRedirect(action.value, match);
    case 'directResponse':
      return compileDirect(action.value);
    default:
      return refuse(`action ${action.case ?? 'none'} is not supported`);
  }
}

function compileMatch(match: RouteMatch): RequestMatch {
  let method: string | undefined;
  const headers: { readonly name: string; readonly match: TextMatch }[] = [];
  for (const header of match.headers) {
    const text = headerText(header);
    if (!header.name.startsWith(':')) headers.push({ name: header.name.toLowerCase(), match: text });
    else if (header.name === ':method' && text.kind === 'exact') method = text.value;
    else refuse(`a match on ${header.name} is not supported`);
  }
  return {
    path: pathMatch(match),
    ...(method === undefined ? {} : { method }),
    headers,
    query: match.queryParameters.map(({ name, queryParameterMatchSpecifier: by }) => {
      if (by.case !== 'stringMatch')
        return refuse(`match type ${by.case ?? 'none'} of query ${name} is not supported`);
      return { name, match: compileTextMatch(by.value, `query ${name}`) };
    }),
  };
}

function pathMatch({ pathSpecifier: path }: RouteMatch): RequestMatch['path'] {
  switch (path.case) {
    case 'path':
      return { kind: 'exact', value: canonical(path.value) };
    case 'pathSeparatedPrefix':
      return { kind: 'prefix', value: withoutSlash(canonical(path.value)) };
    case 'prefix':
      if (path.value !== '/')
        refuse(`prefix ${path.value} is not supported: only "/", and path_separated_prefix`);
      return { kind: 'prefix', value: '' };
    case 'safeRegex':
      return { kind: 'regex', pattern: compilePattern(path.value.regex) };
    default:
      return refuse(`match type ${path.case ?? 'none'} of the path is not supported`);
  }
}

/** As requests' paths come, so that one that is written another way matches all the same. */
function canonical(path: string): string {
  const found = canonicalPath(path);
  return found.kind === 'ok' && found.query === '' ? found.path : path;
}

function withoutSlash(prefix: string): string {
  return prefix.endsWith('/') ? prefix.slice(0, -1) : prefix;
}

const REDIRECT_STATUS: ReadonlyMap<number, number> = new Map([
  [RedirectCode.MOVED_PERMANENTLY, 301],
  [RedirectCode.FOUND, 302],
  [RedirectCode.SEE_OTHER, 303],
  [RedirectCode.TEMPORARY_REDIRECT, 307],
  [RedirectCode.PERMANENT_REDIRECT, 308],
]);

function compileRedirect(redirect: EnvoyRedirect, match: RequestMatch): RedirectAction {
  const status =
    REDIRECT_STATUS.get(redirect.responseCode) ??
    refuse(`response_code ${redirect.responseCode} is not known`);
  const scheme = redirectScheme(redirect);
  const path = redirectPath(redirect, match);
  return {
    kind: 'redirect',
    status,
    ...(scheme === undefined ? {} : { scheme }),
    ...(redirect.hostRedirect === '' ? {} : { host: redirect.hostRedirect }),
    ...(redirect.portRedirect === 0 ? {} : { port: redirect.portRedirect }),
    ...(path === undefined ? {} : { path }),
  };
}

function redirectScheme({ schemeRewriteSpecifier: scheme }: EnvoyRedirect): RedirectAction['scheme'] {
  if (scheme.case === undefined) return undefined;
  if (scheme.case === 'httpsRedirect') return scheme.value ? 'https' : undefined;
  if (scheme.value === 'http' || scheme.value === 'https') return scheme.value;
  return refuse(`scheme_redirect ${scheme.value} is not supported`);
}

function redirectPath(
  { pathRewriteSpecifier: path }: EnvoyRedirect,
  match: RequestMatch,
): RedirectAction['path'] {
  switch (path.case) {
    case 'pathRedirect':
      return { kind: 'full', value: path.value };
    case 'prefixRewrite':
      return compilePrefix(path.value, match);
    case 'regexRewrite':
      return compileRegexRewrite(path.value);
    default:
      return undefined;
  }
}

function compileDirect({ status, body }: DirectResponseAction): DirectResponse {
  if (status < 200 || status > 599) refuse(`status ${status} of a direct response is none`);
  const source = body?.specifier;
  if (source?.case === undefined) return { kind: 'direct', status, body: '' };
  if (source.case === 'inlineString') return { kind: 'direct', status, body: source.value };
  if (source.case === 'inlineBytes')
    return { kind: 'direct', status, body: new TextDecoder().decode(source.value) };
  return refuse(`a direct response's body from ${source.case} is not supported`);
}
