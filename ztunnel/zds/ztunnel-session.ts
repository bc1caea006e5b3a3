import { faultOf, type PacketConnection } from './connection.ts';
import {
  decodeAck,
  decodeHello,
  encodeRequest,
  type WorkloadRequest,
  ZDS_VERSION,
  ZdsError,
} from './messages.ts';

/** Node agent's side of one connected ztunnel that has said hello. */
export interface ZtunnelSession {
  /**
   * Sends a request, after those before it have been answered, and waits for the answer.
   * @throws ZdsError `refused` with the ztunnel's words, `timeout`, `closed`; after the last two the session is over
   */
  readonly request: (request: WorkloadRequest, descriptor?: number) => Promise<void>;
  /** Resolves with the reason when the session is over: the ztunnel left, broke the protocol or did not answer. */
  readonly ended: Promise<ZdsError>;
  readonly close: (reason: ZdsError) => void;
}

/**
 * Waits for the ztunnel's hello and opens a session on the connection, which it owns from then on; otherwise the
 * connection is closed.
 * @param answerMs how long the hello, and each answer, may take
 * @throws ZdsError `timeout`, `malformed`, `protocol`, `closed`
 */
export async function openSession(connection: PacketConnection, answerMs: number): Promise<ZtunnelSession> {
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    connection.close();
  }, answerMs);
  try {
    const packet = await connection.receive();
    if (late) throw new ZdsError(`no hello within ${answerMs} ms`, { code: 'timeout' });
    if (packet === undefined) throw new ZdsError('it left before its hello', { code: 'closed' });
    const fault = faultOf(packet, 0);
    if (fault !== undefined) throw new ZdsError(`bad hello: ${fault}`, { code: 'protocol' });
    const version = decodeHello(packet.bytes);
    if (version !== ZDS_VERSION) {
      const message = `the ztunnel speaks ZDS version ${version}, the node agent ${ZDS_VERSION}`;
      throw new ZdsError(message, { code: 'protocol' });
    }
    return startSession(connection, answerMs);
  } catch (error) {
    connection.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

interface Pending {
  readonly resolve: () => void;
  readonly reject: (error: ZdsError) => void;
}

function startSession(connection: PacketConnection, answerMs: number): ZtunnelSession {
  const { promise: ended, resolve: resolveEnded } = Promise.withResolvers<ZdsError>();
  let over: ZdsError | undefined;
  let pending: Pending | undefined;
  let queue: Promise<void> = Promise.resolve();

  const close = (reason: ZdsError): void => {
    if (over !== undefined) return;
    over = reason;
    connection.close();
    pending?.reject(reason);
    resolveEnded(reason);
  };
  const exchange = async (request: WorkloadRequest, descriptor?: number): Promise<void> => {
    if (over !== undefined) throw over;
    const answer = Promise.withResolvers<void>();
    pending = answer;
    const timer = setTimeout(() => {
      close(new ZdsError(`no answer to ${request.kind} within ${answerMs} ms`, { code: 'timeout' }));
    }, answerMs);
    try {
      connection.send(encodeRequest(request), descriptor);
      await answer.promise;
    } finally {
      clearTimeout(timer);
      pending = undefined;
    }
  };
  const readAnswers = async (): Promise<void> => {
    for (;;) {
      const packet = await connection.receive();
      if (packet === undefined) throw new ZdsError('the ztunnel left', { code: 'closed' });
      const fault = faultOf(packet, 0) ?? (pending === undefined ? 'nothing was asked' : undefined);
      if (fault !== undefined) throw new ZdsError(`bad answer: ${fault}`, { code: 'protocol' });
      const { error } = decodeAck(packet.bytes);
      if (error === '') pending?.resolve();
      else pending?.reject(new ZdsError(error, { code: 'refused' }));
    }
  };
  readAnswers().catch((error: unknown) => close(asZdsError(error)));

  return {
    request: (request, descriptor) => {
      const result = queue.then(() => exchange(request, descriptor));
      queue = result.catch(() => undefined);
      return result;
    },
    ended,
    close,
  };
}

function asZdsError(error: unknown): ZdsError {
  if (error instanceof ZdsError) return error;
  return new ZdsError('the connection broke', { code: 'closed', cause: error });
}
