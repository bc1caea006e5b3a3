import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type ResourceType } from '#api/resource.ts';
import type { Changes, ServedResource, ServedSnapshot } from './served-snapshot.ts';
import {
  type Answer,
  Subscription,
  type SubscriptionRequest,
  type SubscriptionStatus,
} from './subscription.ts';

/** One response to be written, in the order in which they are planned. */
export interface PlannedResponse {
  readonly type: ResourceType;
  readonly nonce: string;
  readonly updated: readonly ServedResource[];
  readonly removed: readonly string[];
}

/** Responses of one type that a client may leave unanswered; then changes are merged until it answers. */
const MOST_UNANSWERED = 16;

/** A stock ztunnel refuses messages of more than 200 MiB; what is longer is split well below. */
const LONGEST_RESPONSE_BYTES = 100 * 1024 * 1024;

/**
 * One client's subscriptions to both types, and the order between them: policies go out before the workloads that name
 * them, and are taken back after. No I/O.
 */
export class Session {
  readonly #subscriptions = new Map<ResourceType, Subscription>();
  readonly #maxNames: number;
  readonly #maxBytes: number;
  #nonces = 0;

  constructor(limits: { readonly maxNames: number; readonly maxResponseBytes?: number }) {
    this.#maxNames = limits.maxNames;
    this.#maxBytes = limits.maxResponseBytes ?? LONGEST_RESPONSE_BYTES;
  }

  /** @throws TooManyNamesError */
  request(type: ResourceType, request: SubscriptionRequest): Answer {
    const subscription = this.#subscriptions.get(type) ?? new Subscription(type, this.#maxNames);
    this.#subscriptions.set(type, subscription);
    return subscription.request(request);
  }

  /**
   * Whether workloads are asked for, and policies are not, yet: a client that wants both sends both requests at once, and
   * is best answered with the policies first.
   */
  get awaitsPolicyRequest(): boolean {
    const addresses = this.#subscriptions.get(ADDRESS_TYPE);
    return addresses !== undefined && !addresses.isAnswered && !this.#subscriptions.has(AUTHORIZATION_TYPE);
  }

  /** What has to be written for the client to have this snapshot; nothing while it owes too many answers. */
  plan(snapshot: ServedSnapshot): readonly PlannedResponse[] {
    const subscriptions = [...this.#subscriptions.values()];
    if (subscriptions.some(({ unanswered }) => unanswered >= MOST_UNANSWERED)) return [];
    const policies = this.#subscriptions.get(AUTHORIZATION_TYPE)?.take(snapshot);
    const addresses = this.#subscriptions.get(ADDRESS_TYPE)?.take(snapshot);
    if (policies && addresses && policies.removed.length > 0) {
      return [
        ...(policies.updated.length > 0
          ? this.#respond(AUTHORIZATION_TYPE, { updated: policies.updated, removed: [] })
          : []),
        ...this.#respond(ADDRESS_TYPE, addresses),
        ...this.#respond(AUTHORIZATION_TYPE, { updated: [], removed: policies.removed }),
      ];
    }
    return [
      ...(policies ? this.#respond(AUTHORIZATION_TYPE, policies) : []),
      ...(addresses ? this.#respond(ADDRESS_TYPE, addresses) : []),
    ];
  }

  /** By type, in the order of {@link RESOURCE_TYPES}. */
  status(): readonly SubscriptionStatus[] {
    return [AUTHORIZATION_TYPE, ADDRESS_TYPE].flatMap(
      (type) => this.#subscriptions.get(type)?.status() ?? [],
    );
  }

  /** Whether the client took that resource as it was last sent. */
  hasAcked(type: ResourceType, name: string): boolean {
    return this.#subscriptions.get(type)?.hasAcked(name) ?? false;
  }

  #respond(type: ResourceType, changes: Changes): readonly PlannedResponse[] {
    const parts = splitBySize(changes.updated, this.#maxBytes);
    return parts.map((updated, i) => {
      this.#nonces += 1;
      const nonce = String(this.#nonces);
      this.#subscriptions.get(type)?.sent(nonce, updated);
      return { type, nonce, updated, removed: i === parts.length - 1 ? changes.removed : [] };
    });
  }
}

/** At least one part, so that a response without resources is one, too. */
function splitBySize(
  resources: readonly ServedResource[],
  maxBytes: number,
): readonly (readonly ServedResource[])[] {
  let part: ServedResource[] = [];
  let bytes = 0;
  const parts = [part];
  for (const resource of resources) {
    if (part.length > 0 && bytes + resource.field.length > maxBytes) {
      part = [];
      bytes = 0;
      parts.push(part);
    }
    part.push(resource);
    bytes += resource.field.length;
  }
  return parts;
}
