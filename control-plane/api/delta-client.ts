import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, connectivityState, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { type ControlPlaneAddress, openChannel, parseControlPlaneAddress } from './channel.ts';
import { type AdsStream, DeltaStream, ProtocolError } from './delta-stream.ts';
import { DELTA_METHOD } from './discovery.ts';
import { type DeltaResource, HeldVersions, type RejectedResource } from './held-versions.ts';
import type { NodeDescription } from './node-description.ts';

/** Why a stream ended: never connected, failed, closed by a server that goes away, ended in order. */
export type TerminationReason = 'ConnectionError' | 'Error' | 'Reconnect' | 'Complete';

/** How the subscription is. */
export type SubscriptionState =
  | { readonly kind: 'connecting' }
  /** The server answered. */
  | { readonly kind: 'connected' }
  | {
      readonly kind: 'disconnected';
      readonly reason: TerminationReason;
      readonly message: string;
      readonly retryInMs: number;
    };

/** Counts for metrics. */
export interface SubscriptionMetrics<T extends string = string> {
  /** A response came, of that many bytes. */
  readonly onMessage: (type: T, bytes: number) => void;
  readonly onTermination: (reason: TerminationReason) => void;
}

/** Where a control plane is, how it is known, and who calls. */
export interface ControlPlaneOptions<T extends string> {
  /** `https://HOST:PORT` */
  readonly address: string;
  /** Roots that the server's certificate has to come from, PEM; asked for at every connect. */
  readonly rootsPem: () => string | Promise<string>;
  /** A further name that the server may prove instead of the host in the address. */
  readonly alternativeName?: string;
  /** Request metadata: `authorization: Bearer …`, `clusterid`; asked for at every connect. */
  readonly headers: () => Promise<Readonly<Record<string, string>>> | Readonly<Record<string, string>>;
  readonly node: NodeDescription;
  readonly onState?: (state: SubscriptionState) => void;
  readonly metrics?: SubscriptionMetrics<T>;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** What one response says of one type: updates are applied before removals. */
export interface DeltaUpdate<T extends string> {
  readonly type: T;
  readonly updated: readonly DeltaResource[];
  /** Names of resources that are gone, or are not wanted any more. */
  readonly removed: readonly string[];
}

/** What is subscribed to, and who takes it. */
export interface DeltaSubscription<T extends string> {
  /** In the order of the first requests. `everything`: whatever there is; `names`: those of {@link interest}. */
  readonly types: readonly { readonly type: T; readonly wants: 'everything' | 'names' }[];
  /** The names wanted now, by type; asked at every connect and after every update. */
  readonly interest?: () => ReadonlyMap<T, ReadonlySet<string>>;
  /**
   * Takes what changed; also called, with nothing in it, for an empty answer. Gives back what it does not take: these are
   * rejected by name, and their previous versions stay.
   */
  readonly onUpdate: (update: DeltaUpdate<T>) => readonly RejectedResource[];
}

const CONNECT_TIMEOUT_MS = 5_000;
const FIRST_BACKOFF_MS = 10;
const LONGEST_BACKOFF_MS = 15_000;

/**
 * Keeps subscribed until the signal aborts: connects, acknowledges, and connects again after 10 ms, doubling to 15 s, telling
 * the server what it still holds. A resource that is wrong is rejected by itself; what a lost server said stays.
 * @throws ControlPlaneAddressError, and whatever `onUpdate` throws, which is a defect.
 */
export async function subscribeDelta<T extends string>(
  options: ControlPlaneOptions<T>,
  subscription: DeltaSubscription<T>,
): Promise<void> {
  const { signal, logger, onState } = options;
  const address = parseControlPlaneAddress(options.address);
  const held = new HeldVersions<T>();
  let backoffMs = FIRST_BACKOFF_MS;
  while (!signal.aborted) {
    onState?.({ kind: 'connecting' });
    const { reason, message, wasAnswered } = await connectOnce(options, subscription, address, held);
    if (signal.aborted) return;
    if (wasAnswered) backoffMs = FIRST_BACKOFF_MS;
    options.metrics?.onTermination(reason);
    logger.warn(
      { address: options.address, reason, error: message, retry_ms: backoffMs },
      'control plane disconnected',
    );
    onState?.({ kind: 'disconnected', reason, message, retryInMs: backoffMs });
    await sleep(backoffMs, undefined, { signal }).catch(() => undefined);
    backoffMs = Math.min(backoffMs * 2, LONGEST_BACKOFF_MS);
  }
}

interface StreamEnd {
  readonly reason: TerminationReason;
  readonly message: string;
  readonly wasAnswered: boolean;
}

/** One connection, from dialling to its end. */
async function connectOnce<T extends string>(
  options: ControlPlaneOptions<T>,
  subscription: DeltaSubscription<T>,
  address: ControlPlaneAddress,
  held: HeldVersions<T>,
): Promise<StreamEnd> {
  let client: Client;
  const metadata = new Metadata();
  try {
    for (const [name, value] of Object.entries(await options.headers())) metadata.set(name, value);
    const rootsPem = await options.rootsPem();
    client = openChannel({ address, rootsPem, alternativeName: options.alternativeName });
  } catch (cause) {
    return { reason: 'ConnectionError', message: messageOf(cause), wasAnswered: false };
  }
  try {
    const call: AdsStream = client.makeBidiStreamRequest(DELTA_METHOD, asIs, asIs, metadata);
    return await runStream(
      options,
      client,
      call,
      new DeltaStream({ ...options, ...subscription, held, call }),
    );
  } finally {
    client.close();
  }
}

async function runStream<T extends string>(
  options: ControlPlaneOptions<T>,
  client: Client,
  call: AdsStream,
  stream: DeltaStream<T>,
): Promise<StreamEnd> {
  call.on('error', () => undefined); // It may come after the loop below has ended.
  using _cancellation = cancelWhen(options.signal, call, client);
  stream.open();
  let wasAnswered = false;
  try {
    for await (const bytes of call as AsyncIterable<Buffer>) {
      stream.receive(bytes);
      if (!wasAnswered) options.onState?.({ kind: 'connected' });
      wasAnswered = true;
    }
  } catch (error) {
    if (error instanceof ProtocolError) return { reason: 'Error', message: error.message, wasAnswered };
    if (!isServiceError(error)) throw error;
    return { reason: terminationReason(error, wasAnswered), message: error.message, wasAnswered };
  }
  return { reason: 'Complete', message: 'the server ended the stream', wasAnswered };
}

/** Ends the call when the signal aborts, or when there is no connection in time. */
function cancelWhen(signal: AbortSignal, stream: AdsStream, client: Client): Disposable {
  const cancel = (): void => stream.cancel();
  const timer = setTimeout(() => {
    if (client.getChannel().getConnectivityState(false) !== connectivityState.READY) cancel();
  }, CONNECT_TIMEOUT_MS);
  signal.addEventListener('abort', cancel);
  if (signal.aborted) cancel();
  return {
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', cancel);
    },
  };
}

function terminationReason(error: ServiceError, wasAnswered: boolean): TerminationReason {
  if (error.code === status.UNAVAILABLE) return wasAnswered ? 'Reconnect' : 'ConnectionError';
  return error.code === status.CANCELLED && !wasAnswered ? 'ConnectionError' : 'Error';
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}

function asIs(bytes: Buffer): Buffer {
  return bytes;
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
