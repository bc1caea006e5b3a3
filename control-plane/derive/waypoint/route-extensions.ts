import type { Any } from '@bufbuild/protobuf/wkt';
import { packAny } from '#api/envoy/any.ts';
import { CorsPolicySchema } from '#api/envoy/gen/envoy/extensions/filters/http/cors/v3/cors_pb.ts';
import { StatefulSessionPerRouteSchema } from '#api/envoy/gen/envoy/extensions/filters/http/stateful_session/v3/stateful_session_pb.ts';
import { CookieBasedSessionStateSchema } from '#api/envoy/gen/envoy/extensions/http/stateful_session/cookie/v3/cookie_pb.ts';
import { HeaderBasedSessionStateSchema } from '#api/envoy/gen/envoy/extensions/http/stateful_session/header/v3/header_pb.ts';
import type { StringMatcherSchema } from '#api/envoy/gen/envoy/type/matcher/v3/string_pb.ts';
import type { RouteMetadata } from '#api/envoy/metadata.ts';
import type { RouteFilter, SessionPersistence } from '../../source/route-objects.ts';
import { duration, type Fields } from './messages.ts';
import { quoteRegex } from './route-match.ts';

/** What a route tells Envoy's filters, by their names. */
export type FilterSettings = Readonly<Record<string, Any>>;

type CorsFilter = Extract<RouteFilter, { kind: 'cors' }>;

/** Of a CORS filter. Its origins may have `*` for anything in a host. */
export function corsSettings(filter: CorsFilter): FilterSettings {
  return {
    'envoy.filters.http.cors': packAny(CorsPolicySchema, {
      allowOriginStringMatch: filter.allowOrigins.map(originMatch),
      allowMethods: filter.allowMethods.join(','),
      allowHeaders: filter.allowHeaders.join(','),
      exposeHeaders: filter.exposeHeaders.join(','),
      maxAge: String(filter.maxAge),
      allowCredentials: filter.allowCredentials,
      forwardNotMatchingPreflights: false,
    }),
  };
}

/** Of sessions that stay with a backend. */
export function sessionSettings(session: SessionPersistence): FilterSettings {
  const state =
    session.kind === 'header'
      ? {
          name: 'envoy.http.stateful_session.header',
          typedConfig: packAny(HeaderBasedSessionStateSchema, { name: session.name }),
        }
      : { name: 'envoy.http.stateful_session.cookie', typedConfig: cookieState(session) };
  return {
    'envoy.filters.http.stateful_session': packAny(StatefulSessionPerRouteSchema, {
      override: { case: 'statefulSession', value: { sessionState: state } },
    }),
  };
}

/** What Envoy has no field for: when such a session ends. */
export function sessionMetadata({
  idleTimeoutMs = 0,
  absoluteTimeoutMs = 0,
}: SessionPersistence): RouteMetadata {
  return {
    ...(idleTimeoutMs > 0 && { session_idle_ms: idleTimeoutMs }),
    ...(absoluteTimeoutMs > 0 && { session_absolute_ms: absoluteTimeoutMs }),
  };
}

/** A permanent cookie lasts as long as the session may; the API wants an absolute timeout with it. */
function cookieState({ name, path, lifetime, absoluteTimeoutMs = 0 }: SessionPersistence): Any {
  const ttlMs = lifetime === 'permanent' ? absoluteTimeoutMs : 0;
  return packAny(CookieBasedSessionStateSchema, {
    cookie: { name, path: path ?? '/', ...(ttlMs > 0 && { ttl: duration(ttlMs) }) },
  });
}

function originMatch(origin: string): Fields<typeof StringMatcherSchema> {
  if (!origin.includes('*')) return { matchPattern: { case: 'exact', value: origin } };
  const regex = origin === '*' ? '.*' : origin.split('*').map(quoteRegex).join('[^/]+');
  return { matchPattern: { case: 'safeRegex', value: { regex } } };
}
