import type { ResponseFlag } from '../request-record.ts';
import type { RequestDecision } from '../route/decide-request.ts';
import type { ChosenFaults } from '../route/faults.ts';
import { mutateHeaders, withHeaders } from '../route/headers.ts';
import { httpStatusOf, type LocalReply } from './local-reply.ts';

/** An answer of the waypoint itself, and what the record says of it. */
export interface DecidedReply {
  readonly reply: LocalReply;
  readonly details: string;
  readonly flag?: ResponseFlag;
}

/** The answer to a request that is not forwarded. Statuses and texts are those of a stock Envoy. */
export function replyTo(decision: Exclude<RequestDecision, { readonly kind: 'forward' }>): DecidedReply {
  switch (decision.kind) {
    case 'bad-request':
    case 'not-ready':
      return { reply: { status: decision.status, body: '' }, details: decision.reason };
    case 'refused':
      return { reply: DENIED, details: decision.reason };
    case 'not-found':
      return { reply: { status: decision.status, body: '' }, details: 'no route matches', flag: 'NR' };
    case 'fault-abort':
      return { reply: abortReply(decision.abort), details: 'fault injected', flag: 'FI' };
    case 'cors-preflight': {
      const { status, headers } = decision;
      return { reply: { status, body: '', headers }, details: 'CORS preflight' };
    }
    case 'redirect': {
      const headers = mutateHeaders(['location', decision.location], [decision.route.responseHeaders]);
      return { reply: { status: decision.status, body: '', headers }, details: 'redirect' };
    }
    case 'direct': {
      const headers = mutateHeaders([], [decision.route.responseHeaders]);
      return { reply: { status: decision.status, body: decision.body, headers }, details: 'direct response' };
    }
    case 'no-cluster': {
      const { backend, route, corsHeaders } = decision;
      const changed = mutateHeaders([], [backend.responseHeaders, route.responseHeaders]);
      const headers = withHeaders(changed, corsHeaders);
      const details = `there is no cluster ${backend.cluster}`;
      return { reply: { status: decision.status, body: '', headers }, details, flag: 'NC' };
    }
  }
}

/** What a policy of the waypoint's own answers. */
export const DENIED: LocalReply = { status: 403, body: 'RBAC: access denied' };

/** What a fault answers. */
export function abortReply(abort: NonNullable<ChosenFaults['abort']>): LocalReply {
  const body = 'fault filter abort';
  if ('httpStatus' in abort) return { status: abort.httpStatus, body };
  return { status: httpStatusOf(abort.grpcStatus), body, grpcStatus: abort.grpcStatus };
}
