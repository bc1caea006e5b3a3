import fc from 'fast-check';

/** A filter of the Gateway API, as it is written. */
export type WrittenFilter = Readonly<Record<string, unknown>> & { readonly type: string };

const { constant, constantFrom, nat, option, record, uniqueArray } = fc;

/** Names that routes change, and requests and answers have: equal but for capitals, and some with a meaning. */
const HEADER_NAMES = [
  ...['x-a', 'X-A', 'x-b', 'X-New', 'x-from-app', 'X-From-App', 'x-drop', 'Set-Cookie', 'content-type'],
  ...['user-agent', 'cookie', 'accept', 'x-request-id', 'x-forwarded-for', 'x-forwarded-proto', 'vary'],
  ...['access-control-allow-origin', 'authorization', 'location', 'server', 'x_under', 'etag', 'via'],
  ...['date', 'traceparent', 'grpc-status'],
] as const;
const HEADER_VALUES = [
  ...[
    '1',
    'two',
    'a,b',
    'a, b',
    '100%',
    '%REQ(:path)%',
    '%%',
    '"quoted"',
    "it's",
    'ü',
    'a\tb',
    'a;b=c',
    '\\',
    '{}',
  ],
  ...['b'.repeat(300), 'trailers', '*', '0'],
] as const;

const header = record({ name: constantFrom(...HEADER_NAMES), value: constantFrom(...HEADER_VALUES) });
const headers = uniqueArray(header, { maxLength: 3, selector: ({ name }) => name.toLowerCase() });
const headerEdits = record({
  set: headers,
  add: headers,
  remove: uniqueArray(constantFrom(...HEADER_NAMES), { maxLength: 2 }),
});

const requestHeaders = headerEdits.map((edits) => ({
  type: 'RequestHeaderModifier',
  requestHeaderModifier: edits,
}));
const responseHeaders = headerEdits.map((edits) => ({
  type: 'ResponseHeaderModifier',
  responseHeaderModifier: edits,
}));

/** Changes of headers, on a rule or a backend. */
export const headerFilters: fc.Arbitrary<readonly WrittenFilter[]> = fc
  .tuple(option(requestHeaders, { freq: 2 }), option(responseHeaders, { freq: 2 }))
  .map((filters) => filters.filter((filter) => filter !== null));

const HOSTS = ['example.org', 'a.b.example.org', '1.example', 'localhost'] as const;
const PREFIXES = [
  '',
  '/',
  '/new',
  '/new/',
  '/new/x',
  '/a',
  '/a/b/',
  '/%20',
  '/n.w$1\\'.slice(0, 6),
  '/a;b=c',
] as const;
const FULL = ['/', '/whole', '/whole/', '/w/h%20o;l=e', '/$0$1', '/a.b*c'] as const;

const fullPath = constantFrom(...FULL).map((text) => ({ type: 'ReplaceFullPath', replaceFullPath: text }));
const prefixPath = constantFrom(...PREFIXES).map((text) => ({
  type: 'ReplacePrefixMatch',
  replacePrefixMatch: text,
}));

/** `hasPrefix`: the rule has one match, of a prefix. */
function pathEdit(hasPrefix: boolean): fc.Arbitrary<unknown> {
  return hasPrefix ? fc.oneof(prefixPath, prefixPath, fullPath) : fullPath;
}

/** Leaves away what is not there. */
function sparse<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<Partial<T>> {
  return record(model, { requiredKeys: [] }) as fc.Arbitrary<Partial<T>>;
}

/** A redirect. */
export function redirect(hasPrefix: boolean): fc.Arbitrary<WrittenFilter> {
  return sparse({
    scheme: constantFrom('http', 'https'),
    hostname: constantFrom(...HOSTS),
    path: pathEdit(hasPrefix),
    port: constantFrom(80, 443, 8080, 8443, 65535),
    statusCode: constantFrom(301, 302, 303, 307, 308),
  }).map((requestRedirect) => ({ type: 'RequestRedirect', requestRedirect }));
}

/** A rewrite. */
export function rewrite(hasPrefix: boolean): fc.Arbitrary<WrittenFilter> {
  return sparse({ hostname: constantFrom(...HOSTS), path: pathEdit(hasPrefix) }).map((urlRewrite) => ({
    type: 'URLRewrite',
    urlRewrite,
  }));
}

/** Origins that rules allow. */
const ALLOWED_ORIGINS = [
  ...[
    'https://www.example.com',
    'http://www.example.com:8080',
    'https://*.example.com',
    'http://*.example.com:8080',
  ],
  ...[
    'https://*',
    'https://app-*.example.com',
    'http://localhost:3000',
    'HTTPS://UP.example',
    'chrome-extension://abc',
  ],
] as const;

const words = (...all: readonly string[]): fc.Arbitrary<readonly string[]> =>
  fc.oneof(constant(['*']), uniqueArray(constantFrom(...all), { maxLength: 3 }));

/** CORS. */
export const cors: fc.Arbitrary<WrittenFilter> = record({
  allowOrigins: fc.oneof(
    { weight: 1, arbitrary: constant(['*']) },
    { weight: 4, arbitrary: uniqueArray(constantFrom(...ALLOWED_ORIGINS), { minLength: 1, maxLength: 3 }) },
  ),
  allowMethods: words('GET', 'POST', 'PUT', 'DELETE'),
  allowHeaders: words('x-a', 'X-B', 'content-type'),
  exposeHeaders: words('x-from-app', 'X-C'),
  maxAge: nat(86400).map((seconds) => seconds + 1),
  allowCredentials: fc.boolean(),
}).map((written) => ({ type: 'CORS', cors: written }));

/** Two mirrors. */
export const MIRRORS: readonly WrittenFilter[] = ['mirror-1', 'mirror-2'].map((name) => ({
  type: 'RequestMirror',
  requestMirror: { backendRef: { name, port: 80 } },
}));
