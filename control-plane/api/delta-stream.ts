import type { ClientDuplexStream } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { decodeResponse, encodeRequest } from './discovery.ts';
import type { DeltaDiscoveryResponse } from './gen/envoy/service/discovery/v3/discovery_pb.ts';
import {
  type DeltaResource,
  type HeldVersions,
  type RejectedResource,
  readResponse,
  rejectionMessage,
} from './held-versions.ts';
import { encodeNode, type NodeDescription } from './node-description.ts';

/** A call of the aggregated discovery service, of bytes. */
export type AdsStream = ClientDuplexStream<Buffer, Buffer>;

/** The server does not speak the protocol. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

/** @see ./delta-client.ts, which has the words for these. */
export interface DeltaStreamOptions<T extends string> {
  readonly types: readonly { readonly type: T; readonly wants: 'everything' | 'names' }[];
  readonly interest?: () => ReadonlyMap<T, ReadonlySet<string>>;
  readonly onUpdate: (update: {
    readonly type: T;
    readonly updated: readonly DeltaResource[];
    readonly removed: readonly string[];
  }) => readonly RejectedResource[];
  readonly metrics?: { readonly onMessage: (type: T, bytes: number) => void };
  readonly node: NodeDescription;
  readonly logger: Logger;
  /** Outlives the stream. */
  readonly held: HeldVersions<T>;
  /** Closed by the caller. */
  readonly call: AdsStream;
}

const NO_NAMES: ReadonlySet<string> = new Set();

/** The client's side of one delta stream: what it asked for, and the answer to each response. */
export class DeltaStream<T extends string> {
  readonly #options: DeltaStreamOptions<T>;
  /** Names subscribed to, of the types that were asked for by name. */
  readonly #names = new Map<T, Set<string>>();

  constructor(options: DeltaStreamOptions<T>) {
    this.#options = options;
  }

  /** Asks for everything that is wanted. */
  open(): void {
    const { types, held, call, node } = this.#options;
    const wanted = this.#options.interest?.();
    for (const { type, wants } of types) {
      if (wants === 'everything') {
        const initialResourceVersions = held.of(type);
        call.write(encodeRequest({ typeUrl: type, node: encodeNode(node), initialResourceVersions }));
      } else this.#want(type, wanted?.get(type) ?? NO_NAMES);
    }
  }

  /**
   * Applies one response and answers it.
   * @throws ProtocolError
   */
  receive(bytes: Buffer): void {
    const response = parseResponse(bytes);
    const type = this.#options.types.find((known) => known.type === response.typeUrl)?.type;
    if (type === undefined)
      throw new ProtocolError(`the server sent a type that was not asked for: ${response.typeUrl}`);
    this.#options.metrics?.onMessage(type, bytes.length);
    this.#answer(type, response, this.#apply(type, response));
    this.#options.logger.debug(
      {
        type,
        nonce: response.nonce,
        updated: response.resources.length,
        removed: response.removedResources.length,
        bytes: bytes.length,
      },
      'resources received',
    );
    this.#followInterest();
  }

  #apply(type: T, response: DeltaDiscoveryResponse): readonly RejectedResource[] {
    const { held, onUpdate } = this.#options;
    const names = this.#isByName(type) ? (this.#names.get(type) ?? NO_NAMES) : undefined;
    const { updated, rejected } = readResponse(type, response);
    // What was on its way when its name was unsubscribed is nobody's.
    const wanted = names ? updated.filter(({ name }) => names.has(name)) : updated;
    const removed = response.removedResources;
    const refused = onUpdate({ type, updated: wanted.map(({ name, value }) => ({ name, value })), removed });
    const refusedNames = new Set(refused.map(({ name }) => name));
    for (const { name, version } of wanted) if (!refusedNames.has(name)) held.hold(type, name, version);
    for (const name of removed) held.drop(type, name);
    return [...rejected, ...refused];
  }

  #answer(type: T, response: DeltaDiscoveryResponse, rejected: readonly RejectedResource[]): void {
    const { call, logger } = this.#options;
    const { nonce } = response;
    if (rejected.length === 0) {
      call.write(encodeRequest({ typeUrl: type, responseNonce: nonce }));
      return;
    }
    const message = rejectionMessage(rejected, response);
    logger.warn({ type, nonce, error: message }, 'resources rejected');
    call.write(encodeRequest({ typeUrl: type, responseNonce: nonce, errorDetail: { message } }));
  }

  #followInterest(): void {
    const { types, interest } = this.#options;
    if (!interest) return;
    const wanted = interest();
    for (const { type, wants } of types)
      if (wants === 'names') this.#want(type, wanted.get(type) ?? NO_NAMES);
  }

  /** Subscribes and unsubscribes the difference; what is held of a name that is not wanted any more is given up. */
  #want(type: T, wanted: ReadonlySet<string>): void {
    const { held, onUpdate, call, node } = this.#options;
    const names = this.#names.get(type);
    if (!names && wanted.size === 0) return; // A first request without names would ask for everything.
    const subscribe = [...wanted].filter((name) => !names?.has(name));
    const unsubscribe = [...(names ?? [])].filter((name) => !wanted.has(name));
    if (subscribe.length === 0 && unsubscribe.length === 0) return;
    this.#names.set(type, new Set(wanted));
    const first = names ? {} : { node: encodeNode(node), initialResourceVersions: held.of(type, wanted) };
    call.write(
      encodeRequest({
        typeUrl: type,
        resourceNamesSubscribe: subscribe,
        resourceNamesUnsubscribe: unsubscribe,
        ...first,
      }),
    );
    const given = unsubscribe.filter((name) => held.has(type, name));
    for (const name of given) held.drop(type, name);
    if (given.length > 0) onUpdate({ type, updated: [], removed: given });
  }

  #isByName(type: T): boolean {
    return this.#options.types.some((known) => known.type === type && known.wants === 'names');
  }
}

function parseResponse(bytes: Buffer): DeltaDiscoveryResponse {
  try {
    return decodeResponse(bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ProtocolError(`the server sent what is no response: ${reason}`, { cause });
  }
}
