import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import http, { type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import type { Logger } from 'pino';
import { closeDescriptor } from '../capture/in-pod-sockets.ts';
import { hasCode } from '../capture/native.ts';
import { openProcess } from './descriptors.ts';
import { type Offer, parseOffer } from './offer.ts';
import { type ReceiverOptions, receiveConnections } from './receive.ts';
import type { OfferedSockets } from './take.ts';

/** The ztunnel that this one replaces. */
export interface Predecessor extends Disposable {
  /**
   * Runs `work` with the sockets of a pod that can be had from it: none when it does not serve the pod, is gone, does not
   * answer, or is of a kind that knows no hand-over. What that was is logged once.
   */
  readonly withSockets: <T>(
    uid: string,
    netns: string,
    work: (offered: OfferedSockets | undefined) => Promise<T>,
  ) => Promise<T>;
  /** Asks it for its connections, which come when it retires. Never rejects: what is wrong is logged. */
  readonly receive: (options: Omit<ReceiverOptions, 'logger'>) => Promise<void>;
  /** Notes why sockets of a pod were left. */
  readonly left: (uid: string, reasons: readonly string[]) => void;
}

/** Opens a file as a place only: also a socket, and what the path means later does not matter (open(2)). */
const O_PATH_CLOEXEC = 0o12000000;
/** Below what a node agent waits for the answer to a pod. */
const ANSWER_MS = 3_000;
const ANSWER_BYTES = 1 << 20;

/**
 * Knows the predecessor by the Unix socket on which it takes orders. The path is followed once, here: it may be a link that
 * leads elsewhere, or this ztunnel's own socket, by the time that the first pod comes.
 */
export function openPredecessor(path: string, logger: Logger): Predecessor {
  const place = openPlace(path, logger);
  let isGone = place === undefined;
  const giveUp = (error: unknown): undefined => {
    isGone = true;
    const reason = error instanceof Error ? error.message : String(error);
    // That it ends is what it is there for.
    if (hasCode(error, 'ECONNREFUSED')) logger.info({ path }, 'predecessor is gone, opening own sockets');
    else logger.warn({ path, reason }, 'predecessor hands nothing over, opening own sockets beside its');
  };
  const ask = async (uid: string, netns: string): Promise<OfferedSockets | undefined> => {
    if (isGone || place === undefined) return undefined;
    try {
      const offer = await askFor(`/proc/self/fd/${place}`, uid);
      if (offer === undefined || offer.netns !== netns) return undefined;
      return { pidfd: openProcess(offer.pid), sockets: offer.sockets };
    } catch (error) {
      return giveUp(error);
    }
  };
  let receiver: Disposable | undefined;
  return {
    receive: async (options) => {
      if (place === undefined) {
        options.onEnd();
        return;
      }
      try {
        receiver = await receiveConnections(`/proc/self/fd/${place}`, { ...options, logger });
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        logger.warn({ path, reason }, 'predecessor hands no connections over, they end with it');
        options.onEnd();
      }
    },
    withSockets: async (uid, netns, work) => {
      const offered = await ask(uid, netns);
      try {
        return await work(offered);
      } finally {
        if (offered !== undefined) closeDescriptor(offered.pidfd);
      }
    },
    left: (uid, reasons) => {
      if (reasons.length > 0) logger.warn({ uid, reasons }, 'sockets of the predecessor left');
    },
    [Symbol.dispose]: () => {
      isGone = true;
      receiver?.[Symbol.dispose]();
      if (place !== undefined) closeSync(place);
    },
  };
}

function openPlace(path: string, logger: Logger): number | undefined {
  try {
    return openSync(path, O_PATH_CLOEXEC);
  } catch (error) {
    logger.warn({ path, reason: String(error) }, 'no predecessor is there, opening own sockets');
    return undefined;
  }
}

/** Its offer; undefined when it does not serve the pod. @throws Error when it does not answer, or not as one that knows */
async function askFor(socketPath: string, uid: string): Promise<Offer | undefined> {
  const path = `/hand-over?pod=${encodeURIComponent(uid)}`;
  const signal = AbortSignal.timeout(ANSWER_MS);
  const request = http.request({ socketPath, path, method: 'POST', agent: false, signal });
  request.on('error', () => undefined); // also after the answer has begun, which then ends with the error
  request.end();
  const [response] = (await once(request, 'response', { signal })) as [IncomingMessage];
  const body = await bounded(response);
  if (response.statusCode === 204) return undefined;
  if (response.statusCode !== 200) throw new Error(`it answered ${response.statusCode}: ${body.trim()}`);
  return parseOffer(body);
}

async function bounded(response: IncomingMessage): Promise<string> {
  let bytes = 0;
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES) response.destroy(new Error(`its answer is longer than ${ANSWER_BYTES} bytes`));
  });
  return text(response);
}
