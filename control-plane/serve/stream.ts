import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { encodeResponse } from '#api/discovery.ts';
import type { DeltaDiscoveryRequest } from '#api/gen/envoy/service/discovery/v3/discovery_pb.ts';
import { NODE_AGENT } from '#api/node-description.ts';
import { RESOURCE_TYPES, type ResourceType } from '#api/resource.ts';
import type { ServedSnapshot } from './served-snapshot.ts';
import { type PlannedResponse, Session } from './session.ts';
import type { SubscriptionRequest, SubscriptionStatus } from './subscription.ts';

/** A bidirectional call as grpc-js hands it over: requests decoded, responses encoded. */
export type DiscoveryCall = ServerDuplexStream<DeltaDiscoveryRequest, Buffer>;

/** How long workloads wait for the client to ask for policies as well. */
const POLICY_GRACE_MS = 200;

/** One client's stream: its requests into the session, the session's responses onto the wire. */
export class ClientStream {
  readonly node: string;
  readonly #call: DiscoveryCall;
  readonly #session: Session;
  readonly #logger: Logger;
  #snapshot: ServedSnapshot | undefined;
  #isBlocked = false;
  #isOpen = true;
  #client: 'unknown' | 'ztunnel' | 'node-agent' = 'unknown';
  #graceTimer: NodeJS.Timeout | undefined;
  #isGraceOver = false;

  constructor(options: {
    readonly call: DiscoveryCall;
    readonly node: string;
    readonly maxNames: number;
    readonly snapshot: ServedSnapshot | undefined;
    readonly logger: Logger;
    readonly onClose: () => void;
  }) {
    this.node = options.node;
    this.#call = options.call;
    this.#session = new Session({ maxNames: options.maxNames });
    this.#snapshot = options.snapshot;
    this.#logger = options.logger;
    this.#call.on('data', (request: DeltaDiscoveryRequest) => this.#receive(request));
    this.#call.on('drain', () => {
      this.#isBlocked = false;
      this.#flush();
    });
    this.#call.on('end', () => this.#call.end());
    const close = (): void => {
      if (!this.#isOpen) return;
      this.#isOpen = false;
      clearTimeout(this.#graceTimer);
      options.onClose();
    };
    for (const event of ['close', 'cancelled', 'error', 'end']) this.#call.on(event, close);
  }

  /** Makes the client have this snapshot, as soon as it reads what it was sent. */
  publish(snapshot: ServedSnapshot): void {
    this.#snapshot = snapshot;
    this.#flush();
  }

  /** Whether the client is a node's ztunnel, and not its agent; known from its first request on. */
  get isZtunnel(): boolean {
    return this.#client === 'ztunnel';
  }

  /** By type. */
  status(): readonly SubscriptionStatus[] {
    return this.#session.status();
  }

  /** @see Session.hasAcked */
  hasAcked(type: ResourceType, name: string): boolean {
    return this.#session.hasAcked(type, name);
  }

  /** Ends the call with a status that says why. */
  refuse(code: status, details: string): void {
    if (!this.#isOpen) return;
    this.#logger.warn({ node: this.node, code: status[code], reason: details }, 'client refused');
    this.#call.emit('error', { code, details });
  }

  #receive(request: DeltaDiscoveryRequest): void {
    if (!this.#isOpen) return;
    const type = RESOURCE_TYPES.find((known) => known === request.typeUrl);
    if (type === undefined) {
      this.refuse(
        status.INVALID_ARGUMENT,
        `type ${JSON.stringify(request.typeUrl.slice(0, 200))} is not served here; served are ${RESOURCE_TYPES.join(', ')}`,
      );
      return;
    }
    const claimed = claimedNode(request);
    if (claimed !== undefined && claimed !== this.node) {
      this.refuse(
        status.PERMISSION_DENIED,
        `the token is of node ${JSON.stringify(this.node)}, the client says NODE_NAME ${JSON.stringify(claimed.slice(0, 300))}`,
      );
      return;
    }
    if (this.#client === 'unknown') {
      this.#client = request.node?.id.startsWith(`${NODE_AGENT}~`) ? 'node-agent' : 'ztunnel';
    }
    this.#request(type, request);
  }

  #request(type: ResourceType, request: DeltaDiscoveryRequest): void {
    try {
      const answer = this.#session.request(type, subscriptionRequest(request));
      if (answer === 'nacked') {
        const message = request.errorDetail?.message.slice(0, 2048);
        this.#logger.warn(
          { node: this.node, type, nonce: request.responseNonce, message },
          'client rejected resources',
        );
      } else if (answer === 'stale') {
        this.#logger.debug({ node: this.node, type }, 'client answered a response that is not waited for');
      }
    } catch (error) {
      this.refuse(status.RESOURCE_EXHAUSTED, error instanceof Error ? error.message : String(error));
      return;
    }
    this.#flush();
  }

  #flush(): void {
    if (!this.#isOpen || this.#isBlocked || !this.#snapshot) return;
    if (this.#session.awaitsPolicyRequest && !this.#isGraceOver) {
      this.#graceTimer ??= setTimeout(() => {
        this.#isGraceOver = true;
        this.#flush();
      }, POLICY_GRACE_MS);
      return;
    }
    for (const response of this.#session.plan(this.#snapshot)) this.#write(response);
  }

  #write(response: PlannedResponse): void {
    const bytes = encodeResponse({
      typeUrl: response.type,
      nonce: response.nonce,
      resources: response.updated.map(({ field }) => field),
      removed: response.removed,
    });
    if (!this.#call.write(bytes)) this.#isBlocked = true;
    this.#logger.debug(
      {
        node: this.node,
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

function subscriptionRequest(request: DeltaDiscoveryRequest): SubscriptionRequest {
  return {
    subscribe: request.resourceNamesSubscribe,
    unsubscribe: request.resourceNamesUnsubscribe,
    initialVersions: new Map(Object.entries(request.initialResourceVersions)),
    nonce: request.responseNonce,
    error: request.errorDetail?.message,
  };
}

function claimedNode(request: DeltaDiscoveryRequest): string | undefined {
  const name = request.node?.metadata?.['NODE_NAME'];
  return typeof name === 'string' ? name : undefined;
}
