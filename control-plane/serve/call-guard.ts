import type { ServerHttp2Stream } from 'node:http2';
import {
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  status,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { type Budget, createBudget } from './caller-budget.ts';
import { type Authentication, type Caller, type CallerTokens, formatCaller } from './caller-tokens.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import { createRefusalLog } from './refusal-log.ts';

/** What one caller, on all of its connections, can make the server do. */
export interface CallLimits {
  /** Calls at a time. Default 128. */
  readonly maxCalls?: number;
  /** Calls at once, and each second after that. A node that starts asks for a certificate for each identity. Default 2000 and 100. */
  readonly calls?: { readonly most: number; readonly perSecond: number };
  /** Bytes of messages that have begun and not ended. Default 64 MiB. */
  readonly maxPartialBytes?: number;
  /** How long what was written may go unread until the call is reset, beside what it takes over a slow line. Default 120 000 ms. */
  readonly longestStallMs?: number;
  /** Bytes a second that a slow line carries: a message is unread until its last byte has gone, and some have 100 MiB. Default 128 KiB. */
  readonly slowestLine?: number;
}

/** The calls of one caller. */
interface CallerCalls {
  readonly open: Set<OpenCall>;
  readonly begun: Budget;
  partialBytes: number;
}

interface OpenCall {
  readonly name: string;
  readonly stream: ServerHttp2Stream;
  unread: number;
  stalledSinceMs: number;
}

/** Calls are refused without a token, and bounded with one. Disposing of it stops looking for stalls. */
export interface CallGuard extends Disposable {
  readonly interceptor: ServerInterceptor;
}

/**
 * Makes one: authenticates each call before any of its messages is read, and bounds what a caller can have going on, whatever
 * is asked for. What is asked for is for each service to judge.
 */
export function createCallGuard(options: {
  readonly tokens: CallerTokens;
  readonly connections: Pick<ConnectionGuard, 'accepted' | 'refused'>;
  readonly limits?: CallLimits;
  readonly logger: Logger;
}): CallGuard {
  const { tokens, connections, logger } = options;
  const { maxCalls = 128, longestStallMs = 120_000, slowestLine = 128 * 1024 } = options.limits ?? {};
  const { maxPartialBytes = 64 * 1024 * 1024, calls = { most: 2000, perSecond: 100 } } = options.limits ?? {};
  const refusals = createRefusalLog(logger);
  const callers = new Map<string, CallerCalls>();
  const callsOf = (name: string): CallerCalls => {
    const made = callers.get(name) ?? { open: new Set(), begun: createBudget(calls), partialBytes: 0 };
    callers.set(name, made);
    return made;
  };
  const refuse = (
    call: ServerInterceptingCallInterface,
    code: status,
    reason: string,
    method: string,
  ): void => {
    refusals.write({ peer: call.getPeer(), method, reason });
    call.sendStatus({ code, details: reason });
  };
  const admit = (caller: Authentication, call: ServerInterceptingCallInterface, method: string): boolean => {
    if (caller.kind === 'refused') {
      refuse(call, status.UNAUTHENTICATED, caller.reason, method);
      connections.refused(call.getPeer());
      return false;
    }
    const reason =
      connections.accepted(call.getPeer(), formatCaller(caller)) ?? reasonAgainst(caller, maxCalls);
    if (reason === undefined) return true;
    refuse(call, status.RESOURCE_EXHAUSTED, reason, method);
    return false;
  };
  const reasonAgainst = (caller: Caller, most: number): string | undefined => {
    const { open, begun } = callsOf(formatCaller(caller));
    begun.spend(1);
    if (begun.isSpent()) return `${formatCaller(caller)} makes too many calls a second`;
    return open.size >= most ? `${formatCaller(caller)} has ${open.size} calls open` : undefined;
  };
  const interceptor: ServerInterceptor = (method, call) => {
    const meter: { message?: () => void } = {};
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, pass) => {
            const caller = tokens.authenticate(metadata);
            if (!admit(caller, call, method.path) || caller.kind === 'refused') return;
            const name = formatCaller(caller);
            const ofCaller = callsOf(name);
            const stream = streamOf(call);
            meter.message = follow(ofCaller, name, stream, () => {
              if (ofCaller.partialBytes <= maxPartialBytes || stream.writableEnded) return;
              const reason = `${name} has begun messages of more than ${maxPartialBytes} bytes and ended none`;
              refuse(call, status.RESOURCE_EXHAUSTED, reason, method.path);
            });
            pass(metadata);
          },
          onReceiveMessage: (message, pass) => {
            meter.message?.();
            pass(message);
          },
        }),
    });
  };
  const watch = setInterval(
    () => {
      for (const { open } of callers.values())
        for (const each of open) if (isStalled(each, longestStallMs, slowestLine)) cut(each, logger);
    },
    Math.max(20, longestStallMs / 12),
  );
  watch.unref();
  return { interceptor, [Symbol.dispose]: () => clearInterval(watch) };
}

/** Counts what of a message has come until all of it has, which the returned function says. */
function follow(
  caller: CallerCalls,
  name: string,
  stream: ServerHttp2Stream,
  onBytes: () => void,
): () => void {
  const open = { name, stream, unread: 0, stalledSinceMs: performance.now() };
  caller.open.add(open);
  let partial = 0;
  const ended = (): void => {
    caller.partialBytes -= partial;
    partial = 0;
  };
  stream.on('data', (chunk: Buffer) => {
    partial += chunk.length;
    caller.partialBytes += chunk.length;
    onBytes();
  });
  stream.once('close', () => {
    caller.open.delete(open);
    ended();
  });
  return ended;
}

/** Notes how much waits to be read, and says whether that has been the same for too long. */
function isStalled(call: OpenCall, longestMs: number, slowestLine: number): boolean {
  const { writableLength } = call.stream;
  if (writableLength === 0 || writableLength !== call.unread) {
    call.unread = writableLength;
    call.stalledSinceMs = performance.now();
    return false;
  }
  return performance.now() - call.stalledSinceMs > longestMs + (writableLength / slowestLine) * 1000;
}

function cut({ name, stream, unread }: OpenCall, logger: Logger): void {
  logger.warn({ caller: name, unread }, 'client cut, as it does not read what it is sent');
  stream.session?.destroy();
}

/**
 * The HTTP/2 stream below a call, which grpc-js has as a private field, and gives no other access to.
 * @throws TypeError if a version of grpc-js has it elsewhere
 */
function streamOf(call: ServerInterceptingCallInterface): ServerHttp2Stream {
  const stream: unknown = Reflect.get(call, 'stream');
  if (typeof stream !== 'object' || stream === null || !('session' in stream))
    throw new TypeError('this version of grpc-js keeps the stream of a call elsewhere');
  return stream as ServerHttp2Stream; // Just looked at: nothing else has a session.
}
