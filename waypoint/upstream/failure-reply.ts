import type { ResponseFlag } from '../request-record.ts';
import type { AttemptOutcome } from '../route/retry.ts';
import type { AttemptFailure } from './attempt.ts';
import type { LocalReply } from './local-reply.ts';

/** What an application's failure is to the caller: status, text and flag are those of a stock Envoy, but for a denial. */
interface FailureReply {
  readonly reply: LocalReply;
  readonly flag: ResponseFlag;
}

/** The answer where a try has failed before its own answer began. */
export function replyToFailure({ kind }: AttemptFailure, wasRetried: boolean): FailureReply {
  const { status, flag, reason } = REPLIES[kind];
  const which = wasRetried ? 'retried and the latest reset reason' : 'reset reason';
  const body =
    kind === 'denied'
      ? reason
      : `upstream connect error or disconnect/reset before headers. ${which}: ${reason}`;
  const headers = kind === 'overflow' ? ['x-envoy-overloaded', 'true'] : [];
  return { reply: { status, body, headers }, flag };
}

/** The flag where an answer that had begun is not complete. */
export function flagOfFailure({ kind }: AttemptFailure): ResponseFlag {
  return REPLIES[kind].flag;
}

/** What a failure is for retries. */
export function outcomeOf({ kind }: AttemptFailure): AttemptOutcome {
  switch (kind) {
    case 'connect':
    case 'connect-timeout':
    case 'refused':
      return { kind: 'connect-failure' };
    case 'stale':
      return { kind: 'stale' };
    case 'reset':
    case 'closed':
    case 'protocol':
      return { kind: 'reset' };
    case 'denied':
      return { kind: 'denied' };
    case 'overflow':
      return { kind: 'no-endpoint' };
  }
}

type Row = { readonly status: number; readonly flag: ResponseFlag; readonly reason: string };

const REPLIES: Readonly<Record<AttemptFailure['kind'], Row>> = {
  connect: { status: 503, flag: 'UF', reason: 'remote connection failure' },
  'connect-timeout': { status: 503, flag: 'UF', reason: 'connection timeout' },
  denied: { status: 403, flag: 'UAEX', reason: 'denied by policy at the destination' },
  refused: { status: 503, flag: 'UR', reason: 'remote refused stream reset' },
  reset: { status: 503, flag: 'UR', reason: 'remote reset' },
  closed: { status: 503, flag: 'UC', reason: 'connection termination' },
  stale: { status: 503, flag: 'UC', reason: 'connection termination' },
  protocol: { status: 502, flag: 'UPE', reason: 'protocol error' },
  overflow: { status: 503, flag: 'UO', reason: 'overflow' },
};

/** No endpoint is healthy. */
export const NO_ENDPOINT: LocalReply = { status: 503, body: 'no healthy upstream' };
/** There is no memory for it. */
export const OVERLOADED: LocalReply = {
  status: 503,
  body: 'overloaded',
  headers: ['x-envoy-local-overloaded', 'true'],
};
/** The request, or its last try, took too long. */
export const TIMED_OUT: LocalReply = { status: 504, body: 'upstream request timeout' };
