import type { Socket } from 'node:net';
import { hasCode } from './capture/native.ts';
import { type Turnstile, TurnstileError } from './turnstile.ts';

/** A TCP connection that did not come about. */
export class DialError extends Error {
  override readonly name = 'DialError';
  /** TURN: others were before it for all of that time. */
  readonly code: 'TIMEOUT' | 'FAILED' | 'TURN';

  constructor(message: string, code: DialError['code'], cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

/** What to destroy a socket with that is still connecting, so that whoever waits for it is told. */
export const GIVEN_UP: DialError = new DialError('connection given up', 'FAILED');

/**
 * Waits for its turn, and then until a socket is connected. When its source port turned out to be taken for this very destination, dials
 * once more.
 * @param dial makes a socket that is connecting
 * @throws DialError
 */
export async function dialled(dial: () => Socket, timeoutMs: number, turns?: Turnstile): Promise<Socket> {
  if (turns === undefined) return dialNow(dial, timeoutMs);
  try {
    return await turns.run(() => dialNow(dial, timeoutMs), timeoutMs);
  } catch (error) {
    if (!(error instanceof TurnstileError)) throw error;
    throw turnError(error);
  }
}

async function dialNow(dial: () => Socket, timeoutMs: number): Promise<Socket> {
  try {
    return await connected(dial(), timeoutMs);
  } catch (error) {
    if (!hasCode(error, 'EADDRNOTAVAIL')) throw dialError(error);
  }
  try {
    return await connected(dial(), timeoutMs);
  } catch (error) {
    throw dialError(error);
  }
}

function connected(socket: Socket, timeoutMs: number): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const timer = setTimeout(() => {
    socket.destroy(new DialError('connection failed: deadline has elapsed', 'TIMEOUT'));
  }, timeoutMs);
  socket.once('error', reject);
  socket.once('connect', () => {
    clearTimeout(timer);
    socket.off('error', reject);
    resolve(socket);
  });
  socket.once('close', () => {
    clearTimeout(timer);
    reject(GIVEN_UP);
  });
  return promise;
}

function turnError(cause: TurnstileError): DialError {
  const why = `connection failed: too many connections of the pod are being made: ${cause.message}`;
  return new DialError(why, 'TURN', cause);
}

/** Words of a stock ztunnel, for those who search logs for them. */
function dialError(cause: unknown): DialError {
  if (cause instanceof DialError) return cause;
  const why = hasCode(cause, 'ECONNREFUSED') ? 'Connection refused (os error 111)' : messageOf(cause);
  return new DialError(`connection failed: ${why}`, 'FAILED', cause);
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
