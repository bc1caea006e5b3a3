import { randomUUID } from 'node:crypto';
import { newTraceparent } from '#ztunnel/hbone/headers.ts';
import type { Caller, HeaderList, RequestHead } from '../exchange.ts';
import { textOf } from './target.ts';

/**
 * Headers that callers cannot set, in one list. What begins like this is the mesh's own, or tells a proxy what to do:
 *  - `x-forwarded-client-cert` says who calls, to applications that believe it; it is written anew;
 *  - `x-tulle-…` is ours: the caller of a CONNECT, the mark of a fault;
 *  - `x-envoy-…` are orders to Envoy (timeouts, retries, faults, the original path) and what it tells applications;
 *  - `x-forwarded-proto` is kept only where it names a scheme;
 *  - `expect` has been answered, or is between the client and the waypoint only.
 */
const OF_MESH = /^(x-forwarded-client-cert|x-tulle-.*|x-envoy-.*|expect)$/;
/** First letters of those, so that most names are passed over quickly. */
const MAY_BE_OF_MESH = new Set(['x', 'e']);

/** What is sent of a request's headers, and known of them. */
export interface PreparedHeaders {
  readonly headers: string[];
  readonly requestId: string;
  readonly traceparent: string;
  readonly userAgent: string;
}

/**
 * Headers of a request on its way to an application, before the route's own changes. `x-forwarded-for` stays as it came: inside the
 * mesh nobody but the application believes it, and the caller is known by name (a stock waypoint does the same).
 */
export function prepareHeaders(head: RequestHead, caller: Caller): PreparedHeaders {
  const headers: string[] = [];
  let requestId = '';
  let traceparent = '';
  let userAgent = '';
  let hasScheme = false;
  const traceState: string[] = [];
  for (let index = 0; index < head.headers.length; index += 2) {
    const name = head.headers[index] ?? '';
    const value = head.headers[index + 1] ?? '';
    if (MAY_BE_OF_MESH.has(name[0] ?? '') && OF_MESH.test(name)) continue;
    if (name === 'traceparent') {
      traceparent ||= value;
      continue;
    }
    if (name === 'tracestate') {
      traceState.push(name, value);
      continue;
    }
    if (name === 'x-request-id') requestId ||= value;
    else if (name === 'user-agent') userAgent ||= value;
    else if (name === 'x-forwarded-proto') {
      if (hasScheme || (value !== 'http' && value !== 'https')) continue;
      hasScheme = true;
    }
    headers.push(name, value);
  }
  if (requestId === '') {
    requestId = randomUUID();
    headers.push('x-request-id', requestId);
  }
  if (!hasScheme) headers.push('x-forwarded-proto', 'http');
  // Of another trace it says nothing.
  if (TRACEPARENT.test(traceparent)) headers.push(...traceState);
  traceparent = childOf(traceparent, caller.traceparent);
  headers.push('traceparent', traceparent);
  return { headers, requestId, traceparent, userAgent };
}

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})$/;

/** A span of the waypoint's own in the request's trace, or else the connection's, or else in a new one. W3C Trace Context, 3.2. */
function childOf(ofRequest: string, ofConnection: string | undefined): string {
  const [, traceId, flags] = TRACEPARENT.exec(ofRequest) ?? TRACEPARENT.exec(ofConnection ?? '') ?? [];
  const made = newTraceparent();
  if (traceId === undefined || flags === undefined) return made;
  return `00-${traceId}-${made.slice(36, 52)}-${flags}`;
}

/** Headers with the one that says who calls, whatever a route has done to it. */
export function withClientCert(headers: HeaderList, caller: Caller, self: string | undefined): string[] {
  const kept: string[] = [];
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index] ?? '';
    if (name !== CLIENT_CERT) kept.push(name, headers[index + 1] ?? '');
  }
  kept.push(CLIENT_CERT, formatClientCert(self, caller));
  return kept;
}

const CLIENT_CERT = 'x-forwarded-client-cert';

/** Envoy's format. Nothing needs quotes in a SPIFFE ID that has been parsed. */
function formatClientCert(self: string | undefined, caller: Caller): string {
  const uri = `URI=${textOf(caller.identity)}`;
  return self === undefined ? uri : `By=${self};${uri}`;
}
