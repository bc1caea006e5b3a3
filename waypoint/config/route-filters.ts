import type { Any } from '@bufbuild/protobuf/wkt';
import {
  CorsPolicySchema,
  type CorsPolicy as EnvoyCors,
} from '#api/envoy/gen/envoy/extensions/filters/http/cors/v3/cors_pb.ts';
import {
  type HTTPFault,
  HTTPFaultSchema,
} from '#api/envoy/gen/envoy/extensions/filters/http/fault/v3/fault_pb.ts';
import { StatefulSessionPerRouteSchema } from '#api/envoy/gen/envoy/extensions/filters/http/stateful_session/v3/stateful_session_pb.ts';
import { CookieBasedSessionStateSchema } from '#api/envoy/gen/envoy/extensions/http/stateful_session/cookie/v3/cookie_pb.ts';
import { HeaderBasedSessionStateSchema } from '#api/envoy/gen/envoy/extensions/http/stateful_session/header/v3/header_pb.ts';
import type { RouteMetadata } from '#api/envoy/metadata.ts';
import type { CorsPolicy, SessionPersistence } from '../model.ts';
import { refuse } from './config-error.ts';
import { decodeAny, holds, toMs, toPercent, typeOf } from './decode.ts';
import { headerName } from './header-mutations.ts';
import { compileTextMatch } from './pattern.ts';

/** What a route tells the filters before the router. */
export interface RouteFilters {
  readonly cors?: CorsPolicy;
  readonly fault?: HTTPFault;
  readonly session?: SessionPersistence;
}

/** @throws ConfigError */
export function routeFilters(configs: Readonly<Record<string, Any>>, metadata: RouteMetadata): RouteFilters {
  let filters: RouteFilters = {};
  for (const [name, any] of Object.entries(configs)) {
    if (holds(any, CorsPolicySchema)) {
      const cors = compileCors(decodeAny(CorsPolicySchema, any));
      if (cors !== undefined) filters = { ...filters, cors };
    } else if (holds(any, HTTPFaultSchema)) filters = { ...filters, fault: decodeAny(HTTPFaultSchema, any) };
    else if (holds(any, StatefulSessionPerRouteSchema)) {
      const session = compileSession(any, metadata);
      if (session !== undefined) filters = { ...filters, session };
    } else refuse(`settings for filter ${name} (${typeOf(any)}) are not known`);
  }
  return filters;
}

function compileCors(cors: EnvoyCors): CorsPolicy | undefined {
  const enabled = cors.filterEnabled;
  const percent = enabled === undefined ? 100 : toPercent(enabled.defaultValue);
  if (percent === 0) return undefined;
  if (percent < 100) refuse('CORS for a share of the requests is not supported');
  return {
    allowOrigins: cors.allowOriginStringMatch.map((origin) => compileTextMatch(origin, 'allow_origin')),
    allowCredentials: cors.allowCredentials ?? false,
    allowMethods: cors.allowMethods,
    allowHeaders: cors.allowHeaders,
    exposeHeaders: cors.exposeHeaders,
    maxAge: cors.maxAge,
    forwardsUnknownPreflights: cors.forwardNotMatchingPreflights ?? true,
  };
}

function compileSession(any: Any, metadata: RouteMetadata): SessionPersistence | undefined {
  const { override } = decodeAny(StatefulSessionPerRouteSchema, any);
  if (override.case !== 'statefulSession') return undefined;
  const state = override.value.sessionState?.typedConfig;
  const times = {
    ...(metadata.session_idle_ms === undefined ? {} : { idleMs: metadata.session_idle_ms }),
    ...(metadata.session_absolute_ms === undefined ? {} : { absoluteMs: metadata.session_absolute_ms }),
  };
  if (holds(state, HeaderBasedSessionStateSchema)) {
    const { name } = decodeAny(HeaderBasedSessionStateSchema, state);
    return { kind: 'header', name: headerName(name), path: '', ttlSeconds: 0, ...times };
  }
  if (!holds(state, CookieBasedSessionStateSchema))
    return refuse(`session state ${typeOf(state)} is not known`);
  const { cookie } = decodeAny(CookieBasedSessionStateSchema, state);
  const name = cookie?.name ?? '';
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) refuse(`${JSON.stringify(name)} is no name of a cookie`);
  if (/[;\s]/.test(cookie?.path ?? '')) refuse(`path ${cookie?.path} of a cookie is none`);
  const ttl = cookie?.ttl === undefined ? 0 : Math.ceil(toMs(cookie.ttl) / 1000);
  return { kind: 'cookie', name, path: cookie?.path ?? '', ttlSeconds: ttl, ...times };
}
