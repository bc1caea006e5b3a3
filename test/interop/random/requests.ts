import fc from 'fast-check';
import { type Case, type Field, type RawStream, type Request, request } from '../case.ts';
import { fieldsNear, pathNear } from './near.ts';
import type { WrittenMatch, WrittenRoute, WrittenRule } from './routes.ts';

const { boolean, constant, constantFrom, oneof, record } = fc;

const OTHER_HEADERS: fc.Arbitrary<Field> = fc.tuple(
  constantFrom(
    'x-a',
    'X-A',
    'x-b',
    'x-from-app',
    'user-agent',
    'cookie',
    'accept',
    'x_under',
    'via',
    'vary',
    'x-forwarded-for',
    'x-forwarded-proto',
    'authorization',
    'x-request-id',
    'cache-control',
    'referer',
    'if-none-match',
    'range',
    'accept-encoding',
    'content-type',
    'content-language',
  ),
  constantFrom(
    '1',
    '',
    'one',
    'a,b',
    'a=1; b=2',
    'x'.repeat(500),
    'https',
    'trailers',
    '*',
    'ü',
    'a\tb',
    ',',
    '"',
  ),
);
const OTHER_PARAMS: fc.Arbitrary<Field> = fc.tuple(
  constantFrom('q', 'Q', 'x', '', 'q%2er', 'q[]', '%', '/../x', 'a;q'),
  constantFrom('1', '', 'one', '%31', '+', 'a/b', '?', '%2F', '#'.slice(1), "'", '%zz', 'a=b'),
);

function queryOf(fields: readonly Field[], bare: boolean): string {
  if (fields.length === 0) return bare ? '?' : '';
  return `?${fields.map(([name, value]) => (value === '' && bare ? name : `${name}=${encoded(value)}`)).join('&')}`;
}

/** What a line of HTTP has no room for is encoded; the rest is sent as it is. */
function encoded(value: string): string {
  return value.replaceAll(/[ "#<>\t]/g, (character) => encodeURIComponent(character));
}

const HOSTS = [
  'shop.example',
  'SHOP.example',
  'shop.example:80',
  'shop.example:8080',
  'shop.example:443',
  '[fd00::1]',
  '[fd00::1]:8080',
  '10.0.0.1',
  'shop.example.',
];

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE', 'PROPFIND', 'get'];

const ORIGINS = [
  ...[
    'https://www.example.com',
    'http://www.example.com:8080',
    'https://a.b.example.com',
    'https://example.com',
    'https://WWW.example.com',
  ],
  ...[
    'http://www.example.com',
    'https://app-1.example.com',
    'https://evil.com/.example.com',
    'null',
    '',
    'https://www.example.com.evil',
    'http://localhost:3000',
    'HTTPS://UP.example',
    'https://up.example',
    'chrome-extension://abc',
    '*',
    'https://www.example.com https://two.example',
    'https://x:99',
  ],
];

const CORS_FIELDS: fc.Arbitrary<readonly Field[]> = record(
  {
    origin: constantFrom(...ORIGINS),
    'access-control-request-method': constantFrom('GET', 'PUT', 'DELETE', 'get', '', 'X'),
    'access-control-request-headers': constantFrom('x-a', 'X-B, x-a', 'content-type', '', 'x-secret'),
    'access-control-request-private-network': constant('true'),
  },
  { requiredKeys: ['origin'] },
).map((fields) => Object.entries(fields));

/** None that ends a connection of HTTP/2, as others share it. */
const SCRIPTS = [
  '503',
  '500',
  '404',
  '204',
  '304',
  '503,200',
  '500,502,200',
  'reset,200',
  'trailers',
  'hints',
  'bytes:0',
  'bytes:70000',
  'half-reset',
  'raw:until-close',
  'raw:garbage',
  'raw:status-204-with-body',
  'header:x-a=app',
  'header:x-envoy-attempt-count=9',
  'header:access-control-allow-origin=https://app.example',
  'header:vary=origin',
  'header:location=/there',
  'header:retry-after=0+503',
  '301',
  '401',
  '429,200',
  '418,404,200',
  'slow:20',
  'slow:2000,200',
];

const BODIES: fc.Arbitrary<Partial<Pick<Request, 'body' | 'chunked'>>> = oneof(
  constant({}),
  constantFrom('', 'abc', '{"a":1}').map((body) => ({ body })),
  constant({ body: 'in chunks', chunked: true }),
  constant({ body: 'x'.repeat(12_000) }),
);

/** A request near one of the rules of a service, on one of its ports. */
export function requestNear(
  service: string,
  routes: readonly WrittenRoute[],
  mirrors: readonly string[],
): fc.Arbitrary<Case> {
  const rules = routes.flatMap(({ rules: own }) => own);
  return constantFrom(...rules).chain((rule) =>
    constantFrom(...rule.matches).chain((match) => nearMatch(service, rule, match, mirrors)),
  );
}

function nearMatch(
  service: string,
  rule: WrittenRule,
  match: WrittenMatch,
  mirrors: readonly string[],
): fc.Arbitrary<Case> {
  const hasCors = rule.filters.some(({ type }) => type === 'CORS');
  const wanted = match.method ?? 'GET';
  const method = oneof(
    { weight: 6, arbitrary: constant(wanted) },
    { weight: 2, arbitrary: constantFrom(...METHODS) },
    { weight: hasCors ? 4 : 0, arbitrary: constant('OPTIONS') },
  );
  return record({
    port: constantFrom('', '', ':8080'),
    method,
    path: pathNear(match),
    query: fieldsNear(match.queryParams ?? [], OTHER_PARAMS),
    bare: boolean(),
    fields: fieldsNear(match.headers ?? [], OTHER_HEADERS),
    cors: hasCors
      ? oneof(CORS_FIELDS, CORS_FIELDS, constant([]))
      : oneof({ weight: 9, arbitrary: constant([]) }, { weight: 1, arbitrary: CORS_FIELDS }),
    host: oneof(constant(undefined), constantFrom(...HOSTS)),
    protocol: constantFrom('http1' as const, 'http1' as const, 'http2' as const),
    body: BODIES,
    script: oneof(
      { weight: 3, arbitrary: constant(undefined) },
      { weight: 2, arbitrary: constantFrom(...SCRIPTS) },
    ),
  }).map(({ port, path, query, bare, fields, cors, host, protocol, body, script, ...rest }): Case => {
    const target = `${path}${queryOf(query, bare)}`;
    const headers = [...fields, ...cors].filter(([name]) => name.toLowerCase() !== 'host');
    const hasBody = !['GET', 'HEAD', 'TRACE', 'OPTIONS', 'get'].includes(rest.method);
    return {
      name: `${rest.method} ${target.length > 300 ? `${target.slice(0, 300)}…` : target}`,
      to: `${service}${port}`,
      send: onWire(
        request(rest.method, target, {
          headers,
          protocol,
          host: host ?? `${service}.interop.svc.cluster.local`,
          ...(hasBody && body),
        }),
      ),
      ...(script !== undefined && { script }),
      expect: { mirrors },
    };
  });
}

/** In HTTP/2 as frames: a client would refuse what is repeated. */
function onWire(send: Request): Request | RawStream {
  const { method, path, host = '', headers, protocol, body } = send;
  if (protocol === 'http1') return send;
  const fields = headers.map(([name, value]): Field => [name.toLowerCase(), value]);
  const pseudo: readonly Field[] = [
    [':method', method],
    [':scheme', 'http'],
    [':authority', host],
    [':path', path],
  ];
  return { fields: [...pseudo, ...fields], ...(body !== undefined && { body }) };
}
