import type { HeaderList } from '../exchange.ts';
import type { CorsPolicy } from '../model.ts';
import { joinedValue } from './headers.ts';
import { textMatches } from './match.ts';

/** What CORS has to do with a request. */
export type CorsDecision =
  /** Nothing: it is not from a page of another origin, or of one that has no leave. */
  | { readonly kind: 'none' }
  /** These headers go onto the answer, in the place of those that are there. */
  | { readonly kind: 'actual'; readonly headers: HeaderList }
  /** Is answered 200 with these, and goes no further. */
  | { readonly kind: 'preflight'; readonly headers: HeaderList };

const NONE: CorsDecision = { kind: 'none' };

/**
 * As Envoy's filter has it (two origins are not one of them): an origin with leave is repeated in the answer, also for `*`; a preflight (OPTIONS with
 * `access-control-request-method`) of one without leave goes to the backend, unless the policy says otherwise.
 */
export function decideCors(
  policy: CorsPolicy | undefined,
  request: { readonly method: string; readonly headers: HeaderList },
): CorsDecision {
  if (policy === undefined) return NONE;
  const origin = joinedValue(request.headers, 'origin') ?? '';
  if (origin === '') return NONE;
  const isAllowed = policy.allowOrigins.some(
    (allowed) => (allowed.kind === 'exact' && allowed.value === '*') || textMatches(allowed, origin),
  );
  const wanted = joinedValue(request.headers, 'access-control-request-method') ?? '';
  if (request.method !== 'OPTIONS' || wanted === '')
    return isAllowed ? { kind: 'actual', headers: [...leave(policy, origin), ...exposed(policy)] } : NONE;
  if (!isAllowed) return policy.forwardsUnknownPreflights ? NONE : { kind: 'preflight', headers: [] };
  const headers = joinedValue(request.headers, 'access-control-request-headers') ?? '';
  return {
    kind: 'preflight',
    headers: [
      ...leave(policy, origin),
      ...field('access-control-allow-methods', policy.allowMethods === '*' ? wanted : policy.allowMethods),
      ...allowedHeaders(policy, headers),
      ...field('access-control-max-age', policy.maxAge),
      ...exposed(policy),
    ],
  };
}

function leave(policy: CorsPolicy, origin: string): HeaderList {
  return [
    'access-control-allow-origin',
    origin,
    ...field('access-control-allow-credentials', policy.allowCredentials ? 'true' : ''),
  ];
}

/** For `*` those that are wanted, though it be none. */
function allowedHeaders({ allowHeaders }: CorsPolicy, wanted: string): HeaderList {
  return allowHeaders === '*'
    ? ['access-control-allow-headers', wanted]
    : field('access-control-allow-headers', allowHeaders);
}

function exposed(policy: CorsPolicy): HeaderList {
  return field('access-control-expose-headers', policy.exposeHeaders);
}

function field(name: string, value: string): HeaderList {
  return value === '' ? [] : [name, value];
}
