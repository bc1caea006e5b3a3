import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Client,
  type ClientDuplexStream,
  connectivityState,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { type ControlPlaneAddress, openChannel, parseControlPlaneAddress } from './channel.ts';
import { DELTA_METHOD, decodeResponse, encodeRequest } from './discovery.ts';
import type { DeltaDiscoveryResponse } from './gen/envoy/service/discovery/v3/discovery_pb.ts';
import { HeldResources, rejectionMessage } from './held-resources.ts';
import { encodeNode, type NodeDescription } from './node-description.ts';
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  RESOURCE_TYPES,
  type ResourceType,
  type ResourceUpdate,
} from './resource.ts';

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
export interface SubscriptionMetrics {
  /** A response came, of that many bytes. */
  readonly onMessage: (type: ResourceType, bytes: number) => void;
  readonly onTermination: (reason: TerminationReason) => void;
}

export interface SubscribeOptions {
  /** `https://HOST:PORT` */
  readonly address: string;
  /** Roots that the server's certificate has to come from, PEM; asked for at every connect. */
  readonly rootsPem: () => string | Promise<string>;
  /** A further name that the server may prove instead of the host in the address. */
  readonly alternativeName?: string;
  /** Request metadata: `authorization: Bearer …`, `clusterid`; asked for at every connect. */
  readonly headers: () => Promise<Readonly<Record<string, string>>> | Readonly<Record<string, string>>;
  readonly node: NodeDescription;
  /** What changed; also called, with nothing in it, for an empty first answer. Acknowledged when it returns. */
  readonly onUpdate: (update: ResourceUpdate) => void;
  readonly onState?: (state: SubscriptionState) => void;
  readonly metrics?: SubscriptionMetrics;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** The order of the first requests is a stock ztunnel's. */
const REQUEST_ORDER: readonly ResourceType[] = [ADDRESS_TYPE, AUTHORIZATION_TYPE];
const CONNECT_TIMEOUT_MS = 5_000;
const FIRST_BACKOFF_MS = 10;
const LONGEST_BACKOFF_MS = 15_000;

type AdsStream = ClientDuplexStream<Buffer, Buffer>;

/**
 * Keeps subscribed to everything of both types until the signal aborts: connects, acknowledges, and connects again after
 * 10 ms, doubling to 15 s, telling the server what it still holds. A resource that is wrong is rejected by itself; what a
 * lost server said stays.
 * @throws ControlPlaneAddressError, and whatever `onUpdate` throws, which is a defect.
 */
export async function subscribeWorkloadApi(options: SubscribeOptions): Promise<void> {
  const { signal, logger, onState } = options;
  const address = parseControlPlaneAddress(options.address);
  const held = new HeldResources();
  let backoffMs = FIRST_BACKOFF_MS;
  while (!signal.aborted) {
    onState?.({ kind: 'connecting' });
    const { reason, message, wasAnswered } = await connectOnce(options, address, held);
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
async function connectOnce(
  options: SubscribeOptions,
  address: ControlPlaneAddress,
  held: HeldResources,
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
    return await runStream(
      options,
      held,
      client,
      client.makeBidiStreamRequest(DELTA_METHOD, asIs, asIs, metadata),
    );
  } finally {
    client.close();
  }
}

async function runStream(
  options: SubscribeOptions,
  held: HeldResources,
  client: Client,
  stream: AdsStream,
): Promise<StreamEnd> {
  stream.on('error', () => undefined); // It may come after the loop below has ended.
  using _cancellation = cancelWhen(options.signal, stream, client);
  for (const typeUrl of REQUEST_ORDER) {
    const initialResourceVersions = held.versions(typeUrl);
    stream.write(encodeRequest({ typeUrl, node: encodeNode(options.node), initialResourceVersions }));
  }
  let wasAnswered = false;
  try {
    for await (const bytes of stream as AsyncIterable<Buffer>) {
      receive(options, held, stream, bytes);
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

/** Applies one response and answers it. */
function receive(options: SubscribeOptions, held: HeldResources, stream: AdsStream, bytes: Buffer): void {
  const response = parseResponse(bytes);
  const type = RESOURCE_TYPES.find((known) => known === response.typeUrl);
  if (type === undefined)
    throw new ProtocolError(`the server sent a type that was not asked for: ${response.typeUrl}`);
  options.metrics?.onMessage(type, bytes.length);
  const { update, rejected } = held.read(type, response);
  options.onUpdate(update);
  options.logger.debug(
    {
      type,
      nonce: response.nonce,
      updated: update.updated.length,
      removed: update.removed.length,
      bytes: bytes.length,
    },
    'resources received',
  );
  if (rejected.length === 0) {
    stream.write(encodeRequest({ typeUrl: type, responseNonce: response.nonce }));
    return;
  }
  const message = rejectionMessage(rejected);
  options.logger.warn({ type, nonce: response.nonce, error: message }, 'resources rejected');
  stream.write(encodeRequest({ typeUrl: type, responseNonce: response.nonce, errorDetail: { message } }));
}

/** The server does not speak the protocol. */
class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

function parseResponse(bytes: Buffer): DeltaDiscoveryResponse {
  try {
    return decodeResponse(bytes);
  } catch (cause) {
    throw new ProtocolError(`the server sent what is no response: ${messageOf(cause)}`, { cause });
  }
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
