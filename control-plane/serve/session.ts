import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE } from '#api/envoy/types.ts';
import { MESH_SECRETS } from '#api/mesh-secrets.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import { splitBySize } from './response-parts.ts';
import {
  type Changes,
  resourcesOf,
  type ServedResource,
  type ServedType,
  type ServedView,
} from './served-view.ts';
import {
  type Answer,
  Subscription,
  type SubscriptionRequest,
  type SubscriptionStatus,
} from './subscription.ts';

/** One response to be written, in the order in which they are planned. */
export interface PlannedResponse {
  readonly type: ServedType;
  readonly nonce: string;
  readonly updated: readonly ServedResource[];
  readonly removed: readonly string[];
}

/** Something is not sent yet. After that many milliseconds it goes out all the same: {@link Session.release}. */
export interface Holdback {
  readonly waitsFor: 'policy-request' | 'clusters';
  readonly longestMs: number;
}

/** What a node may ask for, in the order in which it is sent: a policy before the workloads that name it. */
export const NODE_ORDER: readonly ServedType[] = [SECRET_TYPE, AUTHORIZATION_TYPE, ADDRESS_TYPE];

/** What a waypoint may ask for, in the order in which it is sent: what is named before what names it. */
export const WAYPOINT_ORDER: readonly ServedType[] = [
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  SECRET_TYPE,
  AUTHORIZATION_TYPE,
  LISTENER_TYPE,
  ROUTE_TYPE,
];

/** They name resources of the other types. */
const LEANING: readonly ServedType[] = [LISTENER_TYPE, ROUTE_TYPE];

/** What is due before anything is taken back; `removed` are names that the client asked for and that are not there. */
type DueResponse = Changes & { readonly type: ServedType };

/** Responses of one type that a client may leave unanswered; then changes are merged until it answers. */
const MOST_UNANSWERED = 16;

/** A stock ztunnel refuses messages of more than 200 MiB; what is longer is split well below. */
const LONGEST_RESPONSE_BYTES = 100 * 1024 * 1024;

/** How long workloads wait for the client to ask for policies as well. */
const POLICY_GRACE_MS = 200;

/** How long listeners and routes wait for the client to have the endpoints of clusters that are new to it. */
const WARMING_GRACE_MS = 500;

/**
 * One client's subscriptions, and the order between them: what is new goes out in the order of its types, and what is gone is
 * taken back after, in the opposite order. No I/O.
 *
 * A waypoint's listeners and routes wait until it has answered for the endpoints of every cluster that is new to it, which
 * it asks for once it knows the cluster: a route to a cluster that is still without endpoints would fail its requests. A cluster
 * that it has and that has changed is followed by its endpoints, changed or not, as an Envoy waits for them anew and does not ask.
 * Nothing but listeners and routes is taken back before it has taken the listeners and routes that do without: where it rejects one, the
 * version before, which it keeps, still has what it names.
 */
export class Session {
  readonly #order: readonly ServedType[];
  readonly #subscriptions = new Map<ServedType, Subscription>();
  readonly #maxNames: number;
  readonly #maxBytes: number;
  #nonces = 0;
  #isPolicyGraceOver = false;
  /** Clusters that the client was sent and had not before, as long as it has not answered for their endpoints. */
  readonly #warming = new Set<string>();
  /** Clusters that the client was sent before it asked for endpoints. */
  readonly #unfollowed = new Set<string>();
  /** What is to be taken back once nothing is held back any more. */
  readonly #removals = new Map<ServedType, Set<string>>();

  /** `order`: {@link NODE_ORDER} or {@link WAYPOINT_ORDER}. */
  constructor(options: {
    readonly order?: readonly ServedType[];
    readonly maxNames: number;
    readonly maxResponseBytes?: number;
  }) {
    this.#order = options.order ?? NODE_ORDER;
    this.#maxNames = options.maxNames;
    this.#maxBytes = options.maxResponseBytes ?? LONGEST_RESPONSE_BYTES;
  }

  /**
   * Takes in a request; the type is one of the order's.
   * @throws TooManyNamesError
   */
  request(type: ServedType, request: SubscriptionRequest): Answer {
    const subscription = this.#subscriptions.get(type) ?? new Subscription(type, this.#maxNames);
    this.#subscriptions.set(type, subscription);
    const answer = subscription.request(request);
    if (type === ENDPOINT_TYPE) {
      for (const name of this.#unfollowed) subscription.renew(name);
      this.#unfollowed.clear();
    }
    return answer;
  }

  /** Characters of the names that are kept because the client has said them. */
  get characters(): number {
    return [...this.#subscriptions.values()].reduce((sum, { characters }) => sum + characters, 0);
  }

  /** What was not planned so that something else can come before it; undefined: nothing. */
  get holdback(): Holdback | undefined {
    if (this.#awaitsPolicyRequest) return { waitsFor: 'policy-request', longestMs: POLICY_GRACE_MS };
    return this.#warming.size > 0 ? { waitsFor: 'clusters', longestMs: WARMING_GRACE_MS } : undefined;
  }

  /** Waits no longer for what is waited for now. */
  release(): void {
    if (this.#awaitsPolicyRequest) this.#isPolicyGraceOver = true;
    this.#warming.clear();
  }

  /** What has to be written for the client to have this view; nothing while it owes too many answers. */
  plan(view: ServedView): readonly PlannedResponse[] {
    const subscriptions = [...this.#subscriptions.values()];
    if (subscriptions.some(({ unanswered }) => unanswered >= MOST_UNANSWERED)) return [];
    this.#endWarming(view);
    const due: DueResponse[] = [];
    for (const type of this.#order) {
      const changes = this.#isHeld(type) ? undefined : this.#take(type, view);
      if (changes) due.push({ type, ...changes });
    }
    return this.#inOrder(due);
  }

  /** By type, in the order in which they are sent. */
  status(): readonly SubscriptionStatus[] {
    return this.#order.flatMap((type) => this.#subscriptions.get(type)?.status() ?? []);
  }

  /** Whether the client asks for that resource. */
  wants(type: ServedType, name: string): boolean {
    return this.#subscriptions.get(type)?.wants(name) ?? false;
  }

  /** Whether the client took that resource as it is in that view. */
  hasTaken(view: ServedView, type: ServedType, name: string): boolean {
    return this.#subscriptions.get(type)?.hasTaken(view, name) ?? false;
  }

  /** Whether the client took that resource as it was last sent. */
  hasAcked(type: ServedType, name: string): boolean {
    return this.#subscriptions.get(type)?.hasAcked(name) ?? false;
  }

  /** Whether the client has answered for all that it has to have of the view, be it that it took it or that it rejected it. */
  hasAnsweredAll(view: ServedView): boolean {
    return this.#order.every((type) => {
      const subscription = this.#subscriptions.get(type);
      const names = new Set(resourcesOf(view, type).keys());
      if (type === SECRET_TYPE) for (const name of MESH_SECRETS) names.delete(name);
      if (!subscription) return names.size === 0 && type !== CLUSTER_TYPE && type !== LISTENER_TYPE;
      return subscription.isUpTo(view) && [...names].every(subscription.answered());
    });
  }

  /**
   * Whether workloads are asked for, and policies are not, yet: a client that wants both sends both requests at once, and
   * is best answered with the policies first.
   */
  get #awaitsPolicyRequest(): boolean {
    const addresses = this.#subscriptions.get(ADDRESS_TYPE);
    if (addresses === undefined || addresses.isAnswered || this.#isPolicyGraceOver) return false;
    return !this.#subscriptions.has(AUTHORIZATION_TYPE);
  }

  #isHeld(type: ServedType): boolean {
    if (type === ADDRESS_TYPE) return this.#awaitsPolicyRequest;
    return LEANING.includes(type) && this.#warming.size > 0;
  }

  /** What is to be sent at once, if anything; what is to be taken back is noted, and what has come again since is not. */
  #take(type: ServedType, view: ServedView): Changes | undefined {
    const subscription = this.#subscriptions.get(type);
    if (!subscription) return undefined;
    const isHeldByClient = subscription.holder();
    const changes = subscription.take(view);
    if (!changes) return undefined;
    const removals = this.#removals.get(type) ?? new Set();
    this.#removals.set(type, removals);
    if (type === CLUSTER_TYPE) {
      const endpoints = resourcesOf(view, ENDPOINT_TYPE);
      for (const { name } of changes.updated) {
        if (!endpoints.has(name)) continue;
        if (!isHeldByClient(name) && !removals.has(name)) this.#warming.add(name);
        this.#follow(name);
      }
    }
    for (const { name } of changes.updated) removals.delete(name);
    const [gone, absent] = partition(changes.removed, isHeldByClient);
    for (const name of gone) removals.add(name);
    const { updated } = changes;
    return updated.length > 0 || absent.length > 0 || gone.length === 0
      ? { updated, removed: absent }
      : undefined;
  }

  /** Has the endpoints of a cluster sent after it. */
  #follow(cluster: string): void {
    const endpoints = this.#subscriptions.get(ENDPOINT_TYPE);
    if (endpoints) endpoints.renew(cluster);
    else this.#unfollowed.add(cluster);
  }

  /** Forgets clusters whose endpoints were answered for, that the client does not take, or that are gone. */
  #endWarming(view: ServedView): void {
    if (this.#warming.size === 0) return;
    const isAnswered = this.#subscriptions.get(ENDPOINT_TYPE)?.answered();
    const clusters = this.#subscriptions.get(CLUSTER_TYPE);
    const isClusterAnswered = clusters?.answered();
    for (const name of this.#warming) {
      const isGone =
        !resourcesOf(view, CLUSTER_TYPE).has(name) || !resourcesOf(view, ENDPOINT_TYPE).has(name);
      const isRejected = isClusterAnswered?.(name) === true && clusters?.hasAcked(name) === false;
      if (isGone || isRejected || isAnswered?.(name) === true) this.#warming.delete(name);
    }
  }

  /** Updates, then removals; those of the last type that has any go with its updates. */
  #inOrder(due: readonly DueResponse[]): readonly PlannedResponse[] {
    const isHeld = this.#order.some((type) => this.#subscriptions.has(type) && this.#isHeld(type));
    const owing = isHeld ? [] : this.#order.filter((type) => (this.#removals.get(type)?.size ?? 0) > 0);
    const last = this.#order.findLast(
      (type) => owing.includes(type) || due.some((other) => other.type === type),
    );
    const updates = due.flatMap(({ type, updated, removed }) => {
      const isLast = type === last && owing.includes(type) && !this.#isLeanedOn(type);
      return this.#respond(type, {
        updated,
        removed: isLast ? [...removed, ...this.#takeRemovals(type)] : removed,
      });
    });
    const removals = owing.toReversed().flatMap((type) => {
      const removed = this.#isLeanedOn(type) ? [] : this.#takeRemovals(type);
      return removed.length > 0 ? this.#respond(type, { updated: [], removed }) : [];
    });
    return [...updates, ...removals];
  }

  /** Whether what the client has of that type may be needed: by listeners and routes of which the last version is not taken. */
  #isLeanedOn(type: ServedType): boolean {
    if (LEANING.includes(type)) return false;
    const subscriptions = LEANING.map((leaning) => this.#subscriptions.get(leaning));
    return subscriptions.some((one) => one && (one.unanswered > 0 || one.hasRejected));
  }

  #takeRemovals(type: ServedType): readonly string[] {
    const removed = [...(this.#removals.get(type) ?? [])];
    this.#removals.delete(type);
    return removed;
  }

  #respond(type: ServedType, changes: Changes): readonly PlannedResponse[] {
    const parts = splitBySize(changes.updated, this.#maxBytes);
    return parts.map((updated, i) => {
      this.#nonces += 1;
      const nonce = String(this.#nonces);
      this.#subscriptions.get(type)?.sent(nonce, updated);
      return { type, nonce, updated, removed: i === parts.length - 1 ? changes.removed : [] };
    });
  }
}

function partition(
  names: readonly string[],
  isFirst: (name: string) => boolean,
): readonly [readonly string[], readonly string[]] {
  return [names.filter(isFirst), names.filter((name) => !isFirst(name))];
}
