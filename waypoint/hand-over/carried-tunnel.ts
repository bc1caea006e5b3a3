import { z } from 'zod';
import { type HostPort, isIp } from '#api/address.ts';
import { formatIdentity, type Identity, IdentityError, parseIdentity } from '#certs/identity.ts';
import type { Field } from '#ztunnel/hbone/hpack-tables.ts';
import type { Caller } from '../exchange.ts';
import type { RequestRecord } from '../request-record.ts';
import type { LegState } from './lasting-leg.ts';

/** How an application's end of a tunnel was asked for, and is again. */
export interface TunnelWay {
  readonly hop: HostPort;
  /** The server has to be it. */
  readonly identity: Identity;
  readonly timeoutMs: number;
  /** Of its CONNECT. */
  readonly fields: readonly Field[];
}

/** What is told of a connection whose bytes are copied between two tunnels. */
export interface CarriedRelay {
  /** ID of the upstream tunnel. */
  readonly id: string;
  readonly way: TunnelWay;
  readonly upstream: LegState;
  /** As it would be if it were over; its frontend is looked up afresh. */
  readonly record: Omit<RequestRecord, 'frontend'>;
}

/** What a tunnel is used for: nothing yet, HTTP/1.1 between two requests, or a connection that is copied. */
export type CarriedUse =
  | { readonly kind: 'fresh' | 'http1' }
  | { readonly kind: 'relay'; readonly relay: CarriedRelay };

/** A tunnel of a caller on its way to another process. */
export interface CarriedTunnel {
  readonly id: string;
  readonly claimant: string;
  readonly caller: Caller;
  readonly authority: HostPort;
  /** Name of its frontend. */
  readonly frontend: string;
  readonly downstream: LegState;
  readonly use: CarriedUse;
}

/** Thrown for what is no carried tunnel. */
export class CarriedTunnelError extends Error {
  override readonly name = 'CarriedTunnelError';
}

/** As a value for JSON. */
export function formatCarriedTunnel(tunnel: CarriedTunnel): object {
  const { use } = tunnel;
  const relay = use.kind === 'relay' ? use.relay : undefined;
  return {
    ...tunnel,
    caller: { ...tunnel.caller, identity: formatIdentity(tunnel.caller.identity) },
    downstream: formatState(tunnel.downstream),
    use: relay === undefined ? use : { kind: 'relay', relay: formatRelay(relay) },
  };
}

function formatRelay(relay: CarriedRelay): object {
  const { way, upstream, record } = relay;
  return {
    ...relay,
    way: { ...way, identity: formatIdentity(way.identity) },
    upstream: formatState(upstream),
    record: { ...record, caller: undefined },
  };
}

function formatState({ early, pending, ...ends }: LegState): object {
  return { early: early.toString('base64'), pending: pending.toString('base64'), ...ends };
}

const bytes = z.base64().transform((text) => Buffer.from(text, 'base64'));
const state = z.object({
  early: bytes,
  pending: bytes,
  hasEnded: z.boolean(),
  isEnding: z.boolean().default(false),
});
const identity = z.string().transform((text, { addIssue }) => {
  try {
    return parseIdentity(text);
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error;
    addIssue(error.message);
    return z.NEVER;
  }
});
const hostPort = z.object({ ip: z.string(), port: z.number().int().min(0).max(65_535) });
const id = z.string().regex(/^[0-9a-f]{32}$/);
const relay = z.object({
  id,
  way: z.object({
    hop: hostPort.refine(({ ip }) => isIp(ip)),
    identity,
    timeoutMs: z.number().positive(),
    fields: z.array(z.tuple([z.string(), z.string()])),
  }),
  upstream: state,
  // Of a process of the same make; it is only told on.
  record: z.custom<Omit<RequestRecord, 'frontend' | 'caller'>>(
    (value) => typeof value === 'object' && value !== null && 'startMs' in value && 'flags' in value,
  ),
});
const CARRIED = z.object({
  id,
  claimant: z.string(),
  caller: z.object({
    identity,
    address: hostPort,
    baggage: z.custom<Caller['baggage']>((value) => typeof value === 'object' && value !== null),
    traceparent: z.string().optional(),
    connectionId: z.string().optional(),
  }),
  authority: hostPort,
  frontend: z.string(),
  downstream: state,
  use: z.union([
    z.object({ kind: z.enum(['fresh', 'http1']) }),
    z.object({ kind: z.literal('relay'), relay }),
  ]),
});

/** @param value parsed JSON @throws CarriedTunnelError naming the field that is wrong */
export function parseCarriedTunnel(value: unknown): CarriedTunnel {
  const parsed = CARRIED.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new CarriedTunnelError(`not a carried tunnel: ${issue?.path.join('.')}: ${issue?.message}`);
  }
  const { data } = parsed;
  const { traceparent, connectionId } = data.caller;
  const caller: Caller = { ...data.caller, traceparent, connectionId };
  const { use } = data;
  if (use.kind !== 'relay') return { ...data, caller, use };
  const record = { ...use.relay.record, caller };
  return { ...data, caller, use: { kind: 'relay', relay: { ...use.relay, record } } };
}
