import { type HostPort, parseIp } from '#api/address.ts';
import type { Identity } from '#certs/identity.ts';
import { parseAuthority } from '#ztunnel/hbone/authority.ts';
import { CONNECTION_ID_HEADER, fieldOf, parseBaggage, parseConnectionId } from '#ztunnel/hbone/headers.ts';
import type { Field } from '#ztunnel/hbone/hpack-tables.ts';
import type { Caller } from '../exchange.ts';
import type { Frontend, FrontendIndex } from '../model.ts';

/** What a CONNECT asks for, or why it is refused. */
export type TunnelDecision =
  | { readonly kind: 'accepted'; readonly authority: HostPort; readonly frontend: Frontend }
  | {
      readonly kind: 'refused';
      readonly status: '400' | '404';
      readonly authority: string;
      readonly reason: string;
    };

const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** Finds the frontend of a CONNECT: by its authority, as the caller's namespace sees it. Its Host header counts for nothing. */
export function decideTunnel(
  frontends: FrontendIndex,
  fields: readonly Field[],
  caller: Identity,
): TunnelDecision {
  const method = fieldOf(fields, ':method');
  const text = fieldOf(fields, ':authority') ?? '';
  const refused = (status: '400' | '404', reason: string): TunnelDecision => ({
    kind: 'refused',
    status,
    authority: text,
    reason,
  });
  if (method !== 'CONNECT') return refused('400', `expected CONNECT, got ${method ?? 'no method'}`);
  const parsed = parseAuthority(text);
  if (parsed === undefined) return refused('400', `no address or name with a port: ${JSON.stringify(text)}`);
  const authority: HostPort =
    parsed.kind === 'address'
      ? { ip: parseIp(parsed.address.ip), port: parsed.address.port }
      : { ip: parsed.hostname, port: parsed.port };
  const frontend = frontends.find(authority.ip, authority.port, caller.namespace);
  return frontend === undefined
    ? refused('404', `nothing is served here for ${text}`)
    : { kind: 'accepted', authority, frontend };
}

/** Who calls. What it says of itself counts only where it stays in the namespace that it has proven to be of. */
export function callerOf(identity: Identity, address: HostPort, fields: readonly Field[]): Caller {
  const baggage = parseBaggage(fieldOf(fields, 'baggage') ?? '');
  const traceparent = fieldOf(fields, 'traceparent');
  return {
    identity,
    address,
    baggage: baggage.namespace === identity.namespace ? baggage : {},
    traceparent: traceparent !== undefined && TRACEPARENT.test(traceparent) ? traceparent : undefined,
    connectionId: parseConnectionId(fieldOf(fields, CONNECTION_ID_HEADER)),
  };
}
