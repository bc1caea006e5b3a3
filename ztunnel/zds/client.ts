import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { warmThreadPool } from '../capture/in-pod-sockets.ts';
import type { PodInfo } from '../worker-messages.ts';
import { faultOf, openConnection, type PacketConnection } from './connection.ts';
import { decodeRequest, encodeAck, encodeHello, type WorkloadRequest, ZdsError } from './messages.ts';
import { createServedPods, type PodHandler, type ServedPods } from './pods.ts';
import { connectTo, type Packet } from './seqpacket.ts';

export interface ZdsClientOptions extends PodHandler {
  /** Path of the node agent's socket. */
  readonly path: string;
  /** The node agent has named every pod, and each has been tried: at first and after each reconnect. */
  readonly onSnapshot: () => void;
  /** Pods that cannot be served so far and are tried again: after every message that was served, and every retry. */
  readonly onPending?: (pods: readonly PodInfo[]) => void;
  /** The node agent is gone; pods stay as they are. */
  readonly onDisconnect?: () => void;
  readonly signal: AbortSignal;
  readonly logger: Logger;
}

/** How often pods are tried again whose listeners could not be opened. */
const RETRY_MS = 5_000;
const FIRST_RECONNECT_MS = 20;
const LAST_RECONNECT_MS = 15_000;

/**
 * The ztunnel's end of ZDS: connects to the node agent, and again whenever it is gone (after 20 ms, doubling up to 15 s),
 * and has pods served as it says. Resolves when the signal aborts; pods are left as they are then.
 */
export async function connectZds(options: ZdsClientOptions): Promise<void> {
  const { signal } = options;
  await warmThreadPool();
  const pods = createServedPods(options);
  const retries = setInterval(() => void retryPending(pods, options), RETRY_MS);
  let waitMs = FIRST_RECONNECT_MS;
  while (!signal.aborted) {
    const synced = await runConnection(options, pods);
    waitMs = synced ? FIRST_RECONNECT_MS : Math.min(waitMs * 2, LAST_RECONNECT_MS);
    await delay(waitMs, undefined, { signal }).catch(() => undefined);
  }
  clearInterval(retries);
}

/** One connection from hello to its end; whether it came as far as the snapshot's end. */
async function runConnection(options: ZdsClientOptions, pods: ServedPods): Promise<boolean> {
  const { logger, signal, path } = options;
  let connection: PacketConnection | undefined;
  let synced = false;
  const onSnapshot = (): void => {
    synced = true;
    options.onSnapshot();
  };
  try {
    connection = openConnection(connectTo(path));
    signal.addEventListener('abort', connection.close);
    connection.send(encodeHello());
    logger.info({ path }, 'connected to the node agent');
    await serveRequests(connection, pods, onSnapshot, options.onPending);
    if (!signal.aborted) logger.warn({ path }, 'the node agent is gone, pods stay as they are');
  } catch (error) {
    logger.warn({ path, error: String(error) }, 'no use of the node agent, trying again');
  } finally {
    if (connection !== undefined) signal.removeEventListener('abort', connection.close);
    connection?.close();
    if (synced) options.onDisconnect?.();
  }
  return synced;
}

/** Answers requests until the end. @throws ZdsError when one breaks the protocol; it has been answered with the error */
async function serveRequests(
  connection: PacketConnection,
  pods: ServedPods,
  onSnapshot: () => void,
  onPending: ZdsClientOptions['onPending'],
): Promise<void> {
  /** Pods that the snapshot has named so far; undefined when it is complete. */
  let named: Set<string> | undefined = new Set<string>();
  for (;;) {
    const packet = await connection.receive();
    if (packet === undefined) return;
    try {
      const request = readRequest(packet);
      const error = await handle(request, packet, pods, named);
      onPending?.(pods.pendingPods());
      connection.send(encodeAck({ error }));
      if (request.kind !== 'snapshot-sent') continue;
      named = undefined;
      onSnapshot();
    } catch (error) {
      if (error instanceof ZdsError && error.code !== 'closed')
        connection.send(encodeAck({ error: error.message }));
      throw error;
    }
  }
}

function readRequest(packet: Packet): WorkloadRequest {
  const request = decodeOrFault(packet);
  const fault = faultOf(packet, request instanceof ZdsError ? 0 : request.kind === 'add' ? 1 : 0);
  if (request instanceof ZdsError) throw request;
  if (fault !== undefined) throw new ZdsError(`bad ${request.kind} message: ${fault}`, { code: 'protocol' });
  return request;
}

function decodeOrFault(packet: Packet): WorkloadRequest | ZdsError {
  try {
    return decodeRequest(packet.bytes);
  } catch (error) {
    if (error instanceof ZdsError) return error;
    throw error;
  }
}

/** Does what is asked; the text of the answer's error, empty when there is none. */
async function handle(
  request: WorkloadRequest,
  packet: Packet,
  pods: ServedPods,
  named: Set<string> | undefined,
): Promise<string> {
  switch (request.kind) {
    case 'add':
      named?.add(request.pod.uid);
      return await outcome(pods.add(request.pod, packet.descriptors[0] ?? -1));
    case 'keep':
      if (named === undefined) throw new ZdsError('keep after the snapshot', { code: 'protocol' });
      named.add(request.uid);
      return '';
    case 'del':
      named?.delete(request.uid);
      return named === undefined ? await outcome(pods.delete(request.uid)) : '';
    case 'snapshot-sent':
      if (named === undefined) throw new ZdsError('a second snapshot', { code: 'protocol' });
      return await outcome(pods.deleteAllBut(named));
  }
}

async function outcome(work: Promise<void>): Promise<string> {
  try {
    await work;
    return '';
  } catch (error) {
    return (error instanceof Error && error.message) || String(error);
  }
}

async function retryPending(pods: ServedPods, { logger, onPending }: ZdsClientOptions): Promise<void> {
  if (pods.pending() === 0) return;
  for (const [uid, error] of await pods.retry()) {
    logger.warn({ uid, error: String(error) }, 'a pod still cannot be served');
  }
  onPending?.(pods.pendingPods());
}
