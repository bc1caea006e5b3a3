import type { ForwardAction, RedirectAction, RequestMatch } from '../model.ts';

/**
 * The path with its part that matched replaced, as Envoy does it: of an exact or regex match that is all of it, of a prefix what
 * comes before the next slash. Always starts with a slash.
 */
export function rewritePath(
  rewrite: ForwardAction['pathRewrite'],
  match: RequestMatch,
  path: string,
): string {
  if (rewrite === undefined) return path;
  return withSlash(
    rewrite.kind === 'regex'
      ? rewrite.pattern.replace(path, rewrite.substitution)
      : replacePrefix(rewrite.value, match, path),
  );
}

/** The request that is sent elsewhere. */
export interface Redirected {
  /** As it was sent. */
  readonly authority: string;
  readonly path: string;
  /** From its question mark on, or empty. */
  readonly query: string;
  /** Of the service, which it was sent to. */
  readonly port: number;
}

const DEFAULT_PORTS: Readonly<Record<'http' | 'https', number>> = { http: 80, https: 443 };

/**
 * The Location of a redirect. Its port is the one that is given; without any, the service's where host and scheme stay, too, and
 * else none. One that a scheme has anyway is left out. The query stays, unless a full path brings its own.
 *
 * Envoy takes the port of `Host` where ours takes the service's, and writes well-known ports that are given, which the Gateway API
 * forbids.
 */
export function redirectLocation(action: RedirectAction, match: RequestMatch, request: Redirected): string {
  const path = redirectPath(action, match, request.path);
  const target = action.path?.kind === 'full' && path.includes('?') ? path : path + request.query;
  const host = action.host ?? hostOf(request.authority);
  if (host === '') return target;
  const scheme = action.scheme ?? 'http';
  const stays = action.host === undefined && action.scheme === undefined;
  const port = action.port ?? (stays ? request.port : 0);
  const isDefault = port === 0 || port === DEFAULT_PORTS[scheme];
  return `${scheme}://${host}${isDefault ? '' : `:${port}`}${target}`;
}

function redirectPath({ path: to }: RedirectAction, match: RequestMatch, path: string): string {
  if (to?.kind === 'full') return withSlash(to.value);
  return rewritePath(to, match, path);
}

function replacePrefix(value: string, { path: by }: RequestMatch, path: string): string {
  return by.kind === 'prefix' ? value + path.slice(by.value.length) : value;
}

function withSlash(path: string): string {
  return path.startsWith('/') ? path : `/${path}`;
}

/** Without the port. */
function hostOf(authority: string): string {
  if (authority.startsWith('[')) return authority.slice(0, authority.indexOf(']') + 1);
  const colon = authority.lastIndexOf(':');
  return colon < 0 ? authority : authority.slice(0, colon);
}
