import type { HeaderList, RequestHead } from '../exchange.ts';

/** What a request came as, or why it is no request that anybody may see. */
export type HeadCheck =
  | { readonly kind: 'request'; readonly head: RequestHead; readonly hasBody: boolean }
  | HeadRefusal;

/** The answer to what is not well formed. */
export interface HeadRefusal {
  readonly kind: 'refused';
  readonly status: 400 | 403 | 426 | 431 | 501;
  /** For people, and the log. */
  readonly reason: string;
}

/** An HTTP/1 head as its parser gives it. */
export interface ParsedHead {
  readonly method: string;
  /** The request target, as it came. */
  readonly target: string;
  /** 0 or 1. */
  readonly minorVersion: number;
  /** Name and value alternating, as they came. */
  readonly rawHeaders: readonly string[];
}

/** Headers that one request may have, as Envoy limits them. */
export const MAX_HEADERS = 100;

/** RFC 9110, 7.6.1, and what older clients send. `te` is looked at by itself. */
const CONNECTION_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
]);

/** Fields that must not come after the body: RFC 9110, 6.5.1. */
const NOT_IN_TRAILERS: ReadonlySet<string> = new Set([
  ...CONNECTION_HEADERS,
  'authorization',
  'content-encoding',
  'content-length',
  'content-range',
  'content-type',
  'cookie',
  'expect',
  'host',
  'set-cookie',
  'trailer',
  'x-forwarded-client-cert',
]);

const ABSOLUTE_FORM = /^https?:\/\/([^/?#]*)(.*)$/is;
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]+)(?::\d{1,5})?$/;
const MAX_AUTHORITY = 261;

/**
 * Reads a head that the HTTP/1 parser, in its strict mode, has taken: it has refused a length beside chunks, bare line
 * ends, folded lines and odd characters.
 */
export function readHttp1Head({ method, target, minorVersion, rawHeaders }: ParsedHead): HeadCheck {
  if (minorVersion !== 1) return refused(426, 'HTTP/1.0 is not served; use HTTP/1.1');
  if (rawHeaders.length > 2 * MAX_HEADERS) return refused(431, `more than ${MAX_HEADERS} headers`);
  const facts = sortHeaders(rawHeaders);
  if (typeof facts === 'string') return refused(400, facts);
  const { host, transferEncoding, contentLength } = facts;
  if (host === undefined) return refused(400, 'no Host');
  if (transferEncoding !== undefined && transferEncoding.toLowerCase() !== 'chunked')
    return refused(501, `transfer-encoding ${JSON.stringify(transferEncoding)} is not known`);
  const place = placeOf(method, target, host);
  if (typeof place === 'string') return refused(400, place);
  const hasBody =
    transferEncoding !== undefined || (contentLength !== undefined && !/^0+$/.test(contentLength));
  const upgrade = facts.wantsUpgrade ? facts.upgrade?.trim().toLowerCase() : undefined;
  if (upgrade !== undefined && upgrade !== 'websocket' && upgrade !== 'h2c')
    return refused(403, `no upgrade to ${JSON.stringify(upgrade)}`);
  const isWebSocket = upgrade === 'websocket';
  if (isWebSocket && (hasBody || method !== 'GET')) return refused(400, 'not a request for a WebSocket');
  return {
    kind: 'request',
    hasBody,
    head: {
      method,
      ...place,
      headers: facts.headers,
      protocol: 'HTTP/1.1',
      ...(isWebSocket && { upgrade: 'websocket' }),
    },
  };
}

/** Reads a head that the HTTP/2 library has taken. @param rawHeaders pseudo headers included */
export function readHttp2Head(rawHeaders: readonly string[], endsStream: boolean): HeadCheck {
  if (rawHeaders.length > 2 * (MAX_HEADERS + 5)) return refused(431, `more than ${MAX_HEADERS} headers`);
  const pseudo = new Map<string, string>();
  const rest: string[] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    const value = rawHeaders[at + 1] ?? '';
    if (name.startsWith(':')) pseudo.set(name, value);
    else rest.push(name, value);
  }
  const facts = sortHeaders(rest);
  if (typeof facts === 'string') return refused(400, facts);
  const method = pseudo.get(':method') ?? '';
  const protocol = pseudo.get(':protocol')?.toLowerCase();
  if (method === 'CONNECT' && protocol !== 'websocket')
    return refused(403, protocol === undefined ? 'no CONNECT inside a tunnel' : `no upgrade to ${protocol}`);
  const authority = pseudo.get(':authority') ?? facts.host;
  if (authority === undefined) return refused(400, 'no :authority');
  if (facts.host !== undefined && facts.host.toLowerCase() !== authority.toLowerCase())
    return refused(400, 'Host differs from :authority');
  const place = placeOf(method, pseudo.get(':path') ?? '', authority);
  if (typeof place === 'string') return refused(400, place);
  const head = { ...place, headers: joinCookies(facts.headers), protocol: 'HTTP/2' as const };
  // An extended CONNECT (RFC 8441) is HTTP/2's way to say GET and Upgrade.
  return protocol === undefined
    ? { kind: 'request', head: { method, ...head }, hasBody: !endsStream }
    : { kind: 'request', head: { method: 'GET', ...head, upgrade: protocol }, hasBody: false };
}

/** Trailers as they are passed on: names lower case, without what is read only in front of a body. */
export function readTrailers(rawTrailers: readonly string[]): HeaderList {
  const trailers: string[] = [];
  for (let at = 0; at < rawTrailers.length; at += 2) {
    const name = (rawTrailers[at] ?? '').toLowerCase();
    if (!name.startsWith(':') && !NOT_IN_TRAILERS.has(name)) trailers.push(name, rawTrailers[at + 1] ?? '');
  }
  return trailers;
}

interface SortedHeaders {
  readonly headers: readonly string[];
  host?: string;
  contentLength?: string;
  transferEncoding?: string;
  upgrade?: string;
  wantsUpgrade: boolean;
}

/** Headers of the request apart from those of the connection; or what is wrong with them. */
function sortHeaders(rawHeaders: readonly string[]): SortedHeaders | string {
  const headers: string[] = [];
  const sorted: SortedHeaders = { headers, wantsUpgrade: false };
  let named: ReadonlySet<string> | undefined;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] ?? '').toLowerCase();
    const value = rawHeaders[at + 1] ?? '';
    switch (name) {
      case 'host':
        if (sorted.host !== undefined) return 'more than one Host';
        sorted.host = value;
        continue;
      case 'connection':
        named = new Set([
          ...(named ?? []),
          ...value
            .toLowerCase()
            .split(',')
            .map((token) => token.trim()),
        ]);
        continue;
      case 'transfer-encoding':
        if (sorted.transferEncoding !== undefined) return 'more than one Transfer-Encoding';
        sorted.transferEncoding = value;
        continue;
      case 'upgrade':
        sorted.upgrade = value;
        continue;
      case 'te':
        if (/(?:^|,)\s*trailers\s*(?:,|$)/i.test(value)) headers.push(name, 'trailers');
        continue;
      case 'expect':
        // It is answered here, when somebody wants the body.
        if (value.toLowerCase() !== '100-continue') headers.push(name, value);
        continue;
      case 'content-length':
        sorted.contentLength = value;
    }
    if (!CONNECTION_HEADERS.has(name)) headers.push(name, value);
  }
  if (named === undefined) return sorted;
  sorted.wantsUpgrade = named.has('upgrade');
  return named.size === 1 && (named.has('keep-alive') || named.has('close'))
    ? sorted
    : { ...sorted, headers: withoutNamed(headers, named) };
}

/** What Connection names is not passed on; but a message keeps its length, and `te: trailers`, which has been seen to. */
function withoutNamed(headers: readonly string[], named: ReadonlySet<string>): readonly string[] {
  const kept: string[] = [];
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] ?? '';
    if (!named.has(name) || name === 'content-length' || name === 'te')
      kept.push(name, headers[at + 1] ?? '');
  }
  return kept;
}

type Place = Pick<RequestHead, 'target' | 'authority'>;

/** Path and authority of a target in any of its forms (RFC 9112, 3.2); or what is wrong with them. */
function placeOf(method: string, target: string, host: string): Place | string {
  const [, named, rest = ''] = target.startsWith('/') ? [] : (ABSOLUTE_FORM.exec(target) ?? []);
  const authority = named ?? host;
  if (authority.length > MAX_AUTHORITY || !AUTHORITY.test(authority))
    return `${named === undefined ? 'Host' : 'the target'} names no host`;
  if (!AUTHORITY.test(host) && host !== '') return 'Host names no host';
  if (named !== undefined) return { target: rest.startsWith('/') ? rest : `/${rest}`, authority };
  if (target.startsWith('/')) return { target, authority };
  if (target === '*' && method === 'OPTIONS') return { target, authority };
  return 'the target is no path';
}

/** Crumbs of cookies, which only HTTP/2 has, as the one line that they are (RFC 9113, 8.2.3). */
function joinCookies(headers: readonly string[]): readonly string[] {
  const first = headers.indexOf('cookie');
  if (first < 0 || headers.indexOf('cookie', first + 2) < 0) return headers;
  const crumbs: string[] = [];
  const rest: string[] = [];
  for (let at = 0; at < headers.length; at += 2) {
    const value = headers[at + 1] ?? '';
    if (headers[at] === 'cookie') crumbs.push(value);
    else rest.push(headers[at] ?? '', value);
  }
  return [...rest, 'cookie', crumbs.join('; ')];
}

function refused(status: HeadRefusal['status'], reason: string): HeadRefusal {
  return { kind: 'refused', status, reason };
}
