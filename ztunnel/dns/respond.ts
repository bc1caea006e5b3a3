import type { Logger } from 'pino';
import type { Ip } from '#api/address.ts';
import type { Forwarder } from './forward.ts';
import { type DnsQuery, payloadLimit, readQuery } from './query.ts';
import type { NameAnswer } from './resolve.ts';
import { encodeAnswer, encodeError, encodeFormatError, RCODE, relayResponse } from './response.ts';

/** A question of a client, decoded as far as a resolver needs it. */
export interface ClientQuestion {
  readonly name: string;
  readonly type: 'A' | 'AAAA' | 'other';
  readonly clientIp: Ip;
}

/** One query and what came of it. */
export interface QueryReport {
  readonly name: string;
  /** `A`, `AAAA`, …, `other`. */
  readonly type: string;
  readonly protocol: 'udp' | 'tcp';
  readonly clientIp: Ip;
  readonly outcome: 'answered' | 'forwarded' | 'forward-failed' | 'unknown-client' | 'not-implemented';
  readonly durationMs: number;
  readonly error?: string;
}

/** What a client is told. */
export type ClientAnswer = NameAnswer | { readonly kind: 'unknown-client' };

/** Who answers. */
export interface Responder {
  /** Answers from the tables, when it is known who asks; `unknown-client` becomes SERVFAIL. */
  readonly resolve: (question: ClientQuestion) => ClientAnswer | Promise<ClientAnswer>;
  readonly forwarder: Forwarder;
  readonly logger: Logger;
  readonly onQuery?: (report: QueryReport) => void;
}

/** Seconds that our own answers may be kept. */
const TTL_SECONDS = 30;
const TCP_PAYLOAD = 65535;

/** The response to one message; undefined for what deserves none. */
export async function respond(
  options: Responder,
  message: Buffer,
  protocol: 'udp' | 'tcp',
  clientIp: Ip,
): Promise<Buffer | undefined> {
  const incoming = readQuery(message);
  switch (incoming.kind) {
    case 'ignored':
      return undefined;
    case 'malformed':
      return encodeFormatError(message);
    case 'query': {
      const startedMs = performance.now();
      const { query } = incoming;
      const { response, outcome, error } = await answer(options, query, protocol, clientIp);
      options.onQuery?.({
        name: query.name,
        type: query.type,
        protocol,
        clientIp,
        outcome,
        durationMs: performance.now() - startedMs,
        ...(error === undefined ? {} : { error }),
      });
      return response;
    }
  }
}

interface Outcome {
  readonly response: Buffer;
  readonly outcome: QueryReport['outcome'];
  readonly error?: string;
}

async function answer(
  options: Responder,
  query: DnsQuery,
  protocol: 'udp' | 'tcp',
  clientIp: Ip,
): Promise<Outcome> {
  if (!query.isStandard) return { response: encodeError(query, RCODE.NOTIMP), outcome: 'not-implemented' };
  const limit = protocol === 'tcp' ? TCP_PAYLOAD : payloadLimit(query);
  const type = query.type === 'A' || query.type === 'AAAA' ? query.type : 'other';
  const found = await options.resolve({ name: query.name, type, clientIp });
  switch (found.kind) {
    case 'unknown-client':
      return { response: encodeError(query, RCODE.SERVFAIL), outcome: 'unknown-client' };
    case 'found': {
      const { addresses, alias } = found;
      const records = { addresses, ttlSeconds: TTL_SECONDS, ...(alias === undefined ? {} : { alias }) };
      return { response: encodeAnswer(query, records, limit), outcome: 'answered' };
    }
    case 'no-such-name':
      return { response: encodeError(query, RCODE.NXDOMAIN), outcome: 'answered' };
    case 'forward':
      return forward(options, query, protocol, limit);
  }
}

async function forward(
  { forwarder, logger }: Responder,
  query: DnsQuery,
  protocol: 'udp' | 'tcp',
  limit: number,
): Promise<Outcome> {
  try {
    const response = relayResponse(query, await forwarder.forward(query, protocol), limit);
    return { response, outcome: 'forwarded' };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    logger.debug({ name: query.name, error: text }, 'dns forwarding failed');
    return { response: encodeError(query, RCODE.SERVFAIL), outcome: 'forward-failed', error: text };
  }
}
