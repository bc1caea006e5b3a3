import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { decodeRequest, encodeResponse } from '#api/discovery.ts';
import type { DeltaDiscoveryRequest } from '#api/gen/envoy/service/discovery/v3/discovery_pb.ts';
import { NODE_AGENT } from '#api/node-description.ts';
import { type Budget, processorMs } from './caller-budget.ts';
import type { Caller } from './caller-tokens.ts';
import { keptText } from './kept-text.ts';
import { shapeOf } from './request-shape.ts';
import type { ServedType, ServedView } from './served-view.ts';
import { NODE_ORDER, type PlannedResponse, Session, WAYPOINT_ORDER } from './session.ts';
import type { SubscriptionRequest, SubscriptionStatus } from './subscription.ts';

/** A bidirectional call as grpc-js hands it over: messages are bytes. */
export type DiscoveryCall = ServerDuplexStream<Buffer, Buffer>;

/** What kinds of callers there are, and what each may ask for. */
const ORDERS: Readonly<Record<Caller['kind'], readonly ServedType[]>> = {
  node: NODE_ORDER,
  waypoint: WAYPOINT_ORDER,
};

/** Of what a client says that it is called, so much is kept. */
const LONGEST_ID = 300;

/** Bytes that wait for a client before nothing is added to them, and what changes is merged. */
const MOST_WAITING_BYTES = 1024 * 1024;

/** The longest names that the mesh itself makes have some 700 bytes; an Envoy says some 50 KiB of itself. */
const REQUEST_LIMITS = { longestName: 2048, largestNode: 1024 * 1024 };

/** One client's stream: its requests into the session, the session's responses onto the wire. */
export class ClientStream {
  readonly #caller: Caller;
  readonly #call: DiscoveryCall;
  readonly #session: Session;
  readonly #logger: Logger;
  readonly #maxNames: number;
  readonly #processor: Budget;
  readonly #excess: () => string | undefined;
  readonly #unreadExcess: () => string | undefined;
  #view: ServedView | undefined;
  #unread = 0;
  #isOpen = true;
  /** What the client says that it is called; known from its first request on. */
  #id: string | undefined;
  #holdTimer: NodeJS.Timeout | undefined;

  constructor(options: {
    readonly call: DiscoveryCall;
    readonly caller: Caller;
    readonly maxNames: number;
    /** Milliseconds of the processor that requests of the caller may take, on all of its streams. */
    readonly processor: Budget;
    /** What the caller has the server hold too much of, on all of its streams; undefined: nothing. */
    readonly excess: () => string | undefined;
    /** Whether so much waits for the caller, on all of its streams, that nothing may be added; undefined: it may. */
    readonly unreadExcess: () => string | undefined;
    /** What the caller sees; undefined: nothing yet, it waits. */
    readonly view: ServedView | undefined;
    /** Its lines say whose stream it is. */
    readonly logger: Logger;
    readonly onClose: () => void;
  }) {
    this.#caller = options.caller;
    this.#call = options.call;
    this.#session = new Session({ order: ORDERS[options.caller.kind], maxNames: options.maxNames });
    this.#maxNames = options.maxNames;
    this.#processor = options.processor;
    this.#excess = options.excess;
    this.#unreadExcess = options.unreadExcess;
    this.#view = options.view;
    this.#logger = options.logger;
    this.#call.on('data', (bytes: Buffer) => this.#receive(bytes));
    this.#call.on('end', () => this.#call.end());
    const close = (): void => {
      if (!this.#isOpen) return;
      this.#isOpen = false;
      clearTimeout(this.#holdTimer);
      options.onClose();
    };
    for (const event of ['close', 'cancelled', 'error', 'end']) this.#call.on(event, close);
  }

  /** Makes the client have what is in this view, as soon as it reads what it was sent. */
  publish(view: ServedView): void {
    this.#view = view;
    this.#flush();
  }

  /** Whether the client is what enforces the configuration, and not a node's agent; known from its first request on. */
  get isProxy(): boolean {
    return this.#id !== undefined && !this.#id.startsWith(`${NODE_AGENT}~`);
  }

  /** What the client says that it is called. */
  get id(): string {
    return this.#id ?? '';
  }

  /** Whether the client has answered for all that it is to have. */
  get isConfigured(): boolean {
    return this.#view !== undefined && this.#session.hasAnsweredAll(this.#view);
  }

  /** Characters of the names that are kept because the client has said them. */
  get characters(): number {
    return this.#session.characters;
  }

  /** Bytes that were written and have not left for the client. */
  get unread(): number {
    return this.#unread;
  }

  /** By type. */
  status(): readonly SubscriptionStatus[] {
    return this.#session.status();
  }

  /** Whether the client asks for that resource. */
  wants(type: ServedType, name: string): boolean {
    return this.#session.wants(type, name);
  }

  /** Whether the client took that resource as it is now. */
  hasTaken(type: ServedType, name: string): boolean {
    return this.#view !== undefined && this.#session.hasTaken(this.#view, type, name);
  }

  /** @see Session.hasAcked */
  hasAcked(type: ServedType, name: string): boolean {
    return this.#session.hasAcked(type, name);
  }

  /** Ends the call with a status that says why. */
  refuse(code: status, details: string): void {
    if (!this.#isOpen) return;
    this.#logger.warn({ code: status[code], reason: details }, 'client refused');
    this.#call.emit('error', { code, details });
  }

  #receive(bytes: Buffer): void {
    if (!this.#isOpen) return;
    const began = processorMs();
    this.#answer(bytes);
    this.#processor.spend(processorMs() - began);
    if (this.#processor.isSpent())
      this.refuse(
        status.RESOURCE_EXHAUSTED,
        'the requests of this client take too much time; wait some seconds',
      );
  }

  #answer(bytes: Buffer): void {
    const shape = shapeOf(bytes, { ...REQUEST_LIMITS, maxNames: this.#maxNames });
    if (shape.kind === 'excess') {
      this.refuse(status.RESOURCE_EXHAUSTED, shape.what);
      return;
    }
    const request = shape.kind === 'fits' ? decode(bytes) : undefined;
    if (request === undefined) {
      this.refuse(status.INVALID_ARGUMENT, 'not a DeltaDiscoveryRequest');
      return;
    }
    const admission = admit(this.#caller, request);
    if (admission.kind === 'refused') {
      this.refuse(admission.code, admission.details);
      return;
    }
    this.#id ??= keptText(request.node?.id ?? '', LONGEST_ID);
    this.#request(admission.type, request);
  }

  #request(type: ServedType, request: DeltaDiscoveryRequest): void {
    try {
      const answer = this.#session.request(type, subscriptionRequest(request));
      if (answer === 'nacked') {
        const message = request.errorDetail?.message.slice(0, 2048);
        this.#logger.warn({ type, nonce: request.responseNonce, message }, 'client rejected resources');
      } else if (answer === 'stale') {
        this.#logger.debug({ type }, 'client answered a response that is not waited for');
      }
    } catch (error) {
      this.refuse(status.RESOURCE_EXHAUSTED, error instanceof Error ? error.message : String(error));
      return;
    }
    const excess = this.#excess();
    if (excess === undefined) this.#flush();
    else this.refuse(status.RESOURCE_EXHAUSTED, excess);
  }

  #flush(): void {
    if (!this.#isOpen || this.#unread > MOST_WAITING_BYTES || !this.#view) return;
    const responses = this.#session.plan(this.#view);
    const excess = responses.length === 0 ? undefined : this.#unreadExcess();
    if (excess !== undefined) {
      this.refuse(status.RESOURCE_EXHAUSTED, excess);
      return;
    }
    for (const response of responses) this.#write(response);
    this.#wait();
  }

  /** Waits for what the session holds something back for, and no longer than it says. */
  #wait(): void {
    const { holdback } = this.#session;
    if (!holdback) {
      clearTimeout(this.#holdTimer);
      this.#holdTimer = undefined;
      return;
    }
    this.#holdTimer ??= setTimeout(() => {
      this.#holdTimer = undefined;
      this.#logger.debug({ waited_for: holdback.waitsFor }, 'client is waited for no longer');
      this.#session.release();
      this.#flush();
    }, holdback.longestMs);
  }

  #left(bytes: number): void {
    const isHeld = this.#unread > MOST_WAITING_BYTES;
    this.#unread -= bytes;
    if (isHeld) this.#flush();
  }

  #write(response: PlannedResponse): void {
    const bytes = encodeResponse({
      typeUrl: response.type,
      nonce: response.nonce,
      resources: response.updated.map(({ field }) => field),
      removed: response.removed,
    });
    this.#unread += bytes.length;
    this.#call.write(bytes, () => this.#left(bytes.length));
    this.#logger.debug(
      {
        type: response.type,
        nonce: response.nonce,
        updated: response.updated.length,
        removed: response.removed.length,
        bytes: bytes.length,
      },
      'resources sent',
    );
  }
}

function decode(bytes: Buffer): DeltaDiscoveryRequest | undefined {
  try {
    return decodeRequest(bytes);
  } catch {
    return undefined;
  }
}

function subscriptionRequest(request: DeltaDiscoveryRequest): SubscriptionRequest {
  return {
    subscribe: request.resourceNamesSubscribe,
    unsubscribe: request.resourceNamesUnsubscribe,
    initialVersions: new Map(Object.entries(request.initialResourceVersions)),
    nonce: request.responseNonce,
    error: request.errorDetail?.message,
  };
}

type Admission =
  | { readonly kind: 'admitted'; readonly type: ServedType }
  | { readonly kind: 'refused'; readonly code: status; readonly details: string };

/** Whether that caller may ask for that. A waypoint may be called as it likes: it may be a stock Envoy. */
function admit(caller: Caller, request: DeltaDiscoveryRequest): Admission {
  const types = ORDERS[caller.kind];
  const type = types.find((known) => known === request.typeUrl);
  if (type === undefined) {
    const asked = `type ${JSON.stringify(request.typeUrl.slice(0, 200))}`;
    const isForOthers = Object.values(ORDERS).some((order) =>
      order.some((known) => known === request.typeUrl),
    );
    return isForOthers
      ? refused(status.PERMISSION_DENIED, `${asked} is not for a ${caller.kind}, whose token this is`)
      : refused(status.INVALID_ARGUMENT, `${asked} is not served here; served are ${types.join(', ')}`);
  }
  const claimed = request.node?.metadata?.['NODE_NAME'];
  if (caller.kind === 'node' && typeof claimed === 'string' && claimed !== caller.node) {
    return refused(
      status.PERMISSION_DENIED,
      `the token is of node ${JSON.stringify(caller.node)}, the client says NODE_NAME ${JSON.stringify(claimed.slice(0, 300))}`,
    );
  }
  return { kind: 'admitted', type };
}

function refused(code: status, details: string): Admission {
  return { kind: 'refused', code, details };
}
