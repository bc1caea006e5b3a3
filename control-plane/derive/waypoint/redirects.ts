import {
  RedirectAction_RedirectResponseCode as Code,
  type RedirectActionSchema,
} from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import type { HttpMatch, RouteFilter } from '../../source/route-objects.ts';
import type { Fields } from './messages.ts';
import { editPath } from './path-edits.ts';

type RedirectFilter = Extract<RouteFilter, { kind: 'redirect' }>;
type RedirectFields = Fields<typeof RedirectActionSchema>;

const CODES: Readonly<Record<RedirectFilter['statusCode'], Code>> = {
  301: Code.MOVED_PERMANENTLY,
  302: Code.FOUND,
  303: Code.SEE_OTHER,
  307: Code.TEMPORARY_REDIRECT,
  308: Code.PERMANENT_REDIRECT,
};
const WELL_KNOWN: Readonly<Record<'http' | 'https', number>> = { http: 80, https: 443 };

/** Where a caller is sent to; undefined when its path cannot be made of what was matched. `port` is the service's. */
export function redirectAction(
  filter: RedirectFilter,
  path: HttpMatch['path'],
  port: number,
): RedirectFields | undefined {
  const location = redirectPath(filter, path);
  if (location === undefined) return undefined;
  return {
    responseCode: CODES[filter.statusCode],
    ...(filter.scheme !== undefined && {
      schemeRewriteSpecifier: { case: 'schemeRedirect', value: filter.scheme },
    }),
    ...(filter.hostname !== undefined && { hostRedirect: filter.hostname }),
    portRedirect: redirectPort(filter, port),
    ...location,
  };
}

/**
 * Its own, else the scheme's, else the service's. 0: none is written, which is how a well-known one is to look; where the
 * caller's `Host` may bring another along, it is written all the same.
 */
function redirectPort({ port, scheme, hostname }: RedirectFilter, servicePort: number): number {
  const wanted = port ?? (scheme === undefined ? servicePort : WELL_KNOWN[scheme]);
  const isWellKnown = wanted === WELL_KNOWN[scheme ?? 'http'];
  const mayBringAnother = hostname === undefined && servicePort !== WELL_KNOWN.http;
  return isWellKnown && !mayBringAnother ? 0 : wanted;
}

function redirectPath(
  filter: RedirectFilter,
  path: HttpMatch['path'],
): Pick<RedirectFields, 'pathRewriteSpecifier'> | undefined {
  if (filter.path === undefined) return {};
  if (filter.path.kind === 'full')
    return { pathRewriteSpecifier: { case: 'pathRedirect', value: filter.path.value } };
  const edit = editPath(path, filter.path);
  switch (edit.kind) {
    case 'none':
      return {};
    case 'prefix':
      return { pathRewriteSpecifier: { case: 'prefixRewrite', value: edit.value } };
    case 'regex':
      return { pathRewriteSpecifier: { case: 'regexRewrite', value: edit.value } };
    case 'impossible':
      return undefined;
  }
}
