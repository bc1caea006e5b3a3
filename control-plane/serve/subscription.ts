import { WILDCARD } from '#api/discovery.ts';
import { NameSet } from './name-set.ts';
import { readRejections } from './rejections.ts';
import {
  type Changes,
  changesBetween,
  resourcesOf,
  type ServedResource,
  type ServedType,
  type ServedView,
} from './served-view.ts';

/** What a client says about one type, in the first request and in later ones. */
export interface SubscriptionRequest {
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  /** Read in the first request only: what the client still holds, name to version. */
  readonly initialVersions: ReadonlyMap<string, string>;
  /** Nonce of the response that is answered; empty: none. */
  readonly nonce: string;
  /** What the client says is wrong with that response; undefined: nothing. */
  readonly error: string | undefined;
}

/** A resource that a client refused, and why. */
export interface Rejection {
  readonly name: string;
  readonly message: string;
}

/** How far a client is. */
export interface SubscriptionStatus {
  readonly type: ServedType;
  /** Resources that this stream had to send and that are still served; not what the client held from before. */
  readonly sent: number;
  readonly acked: number;
  readonly rejected: readonly Rejection[];
}

/** What became of an answer to a response. `stale`: of a nonce that is not waited for. */
export type Answer = 'none' | 'stale' | 'acked' | 'nacked';

/** A client that asks for more than this, or waits to be told of more than this. */
export class TooManyNamesError extends Error {
  override readonly name = 'TooManyNamesError';
}

/**
 * One client's subscription to one type: what it wants, what it was sent, what it acknowledged. No I/O. The server asks
 * {@link take} for what the client lacks of a view and says with {@link sent} that it went out.
 *
 *   request ──► wanted, owed ──► take(view) ──► sent(nonce) ──► request with that nonce ──► acked or rejected
 *
 * What the client has is never listed: it is what is wanted of `synced`, the view last taken, so a hundred clients
 * with everything cost no more than one.
 */
export class Subscription {
  readonly type: ServedType;
  readonly #maxNames: number;
  #isFirst = true;
  #wantsAll = false;
  readonly #names = new NameSet();
  /** Names to be answered, whether they changed or not. */
  readonly #owed = new NameSet();
  #owesAll = false;
  #initialVersions: Map<string, string> = new Map();
  #initialCharacters = 0;
  #synced: ServedView | undefined;
  /** What the client held from before the stream: the resources of that view but those. */
  #carried: { readonly view: ServedView; readonly except: Set<string> } | undefined;
  readonly #unanswered = new Map<string, readonly ServedResource[]>();
  readonly #rejected = new Map<string, { readonly resource: ServedResource; readonly message: string }>();

  constructor(type: ServedType, maxNames: number) {
    this.type = type;
    this.#maxNames = maxNames;
  }

  /** Responses that the client has not answered. */
  get unanswered(): number {
    return this.#unanswered.size;
  }

  /** Characters of the names and versions that are kept because the client has said them. */
  get characters(): number {
    return this.#names.characters + this.#owed.characters + this.#initialCharacters;
  }

  /** Whether the client has rejected something as it still is. */
  get hasRejected(): boolean {
    const resources = resourcesOf(this.#synced, this.type);
    return [...this.#rejected].some(([name, { resource }]) => resources.get(name) === resource);
  }

  /** Whether the client was answered once. */
  get isAnswered(): boolean {
    return this.#synced !== undefined;
  }

  /** Whether the client was sent what that view has of the type, and has answered. */
  isUpTo(view: ServedView): boolean {
    if (this.#synced === undefined || this.#unanswered.size > 0) return false;
    return resourcesOf(this.#synced, this.type) === resourcesOf(view, this.type);
  }

  /**
   * Takes in a request. A stale nonce acknowledges nothing; what it subscribes to counts all the same.
   * @throws TooManyNamesError
   */
  request(request: SubscriptionRequest): Answer {
    const answer = this.#isFirst ? 'none' : this.#takeAnswer(request.nonce, request.error);
    if (this.#isFirst) {
      this.#initialVersions = new Map(request.initialVersions);
      for (const [name, version] of this.#initialVersions)
        this.#initialCharacters += name.length + version.length;
      this.#wantsAll = request.subscribe.length === 0;
      this.#owesAll = true;
      this.#isFirst = false;
    }
    for (const name of request.subscribe) this.#subscribe(name);
    for (const name of request.unsubscribe) this.#unsubscribe(name);
    if (this.#names.size + this.#owed.size + this.#initialVersions.size > this.#maxNames) {
      throw new TooManyNamesError(`more than ${this.#maxNames} resource names`);
    }
    return answer;
  }

  /** That resource goes out with what is taken next, whether the client has it or not, if it is wanted. */
  renew(name: string): void {
    if (!this.wants(name)) return;
    this.#owed.add(name);
    this.#initialVersions.delete(name);
  }

  /** What the client lacks of the view, which it has from then on; undefined: nothing, and no answer is due. */
  take(view: ServedView): Changes | undefined {
    const isFirst = this.#synced === undefined;
    const changes = this.#synced === undefined ? this.#first(view) : this.#step(this.#synced, view);
    if (isFirst && this.#initialVersions.size > 0) this.#carried = { view, except: new Set() };
    for (const { name } of this.#carried ? changes.updated : []) this.#carried?.except.add(name);
    this.#synced = view;
    this.#initialVersions = new Map();
    this.#initialCharacters = 0;
    this.#owed.clear();
    this.#owesAll = false;
    for (const name of changes.removed) this.#rejected.delete(name);
    return isFirst || changes.updated.length > 0 || changes.removed.length > 0 ? changes : undefined;
  }

  /** A response went out; its resources wait for the client's answer. */
  sent(nonce: string, resources: readonly ServedResource[]): void {
    this.#unanswered.set(nonce, resources);
  }

  /** Counts, for people. */
  status(): SubscriptionStatus {
    const sent = this.#sentNames();
    const waiting = new Set([...this.#unanswered.values()].flat().map((resource) => resource.name));
    const rejected = [...this.#rejected].filter(([name]) => sent.has(name) && !waiting.has(name));
    const waits = [...waiting].filter((name) => sent.has(name)).length;
    return {
      type: this.type,
      sent: sent.size,
      acked: sent.size - waits - rejected.length,
      rejected: rejected.map(([name, { message }]) => ({ name, message })),
    };
  }

  /** Whether the client took that resource as it is in the view that it has. */
  hasAcked(name: string): boolean {
    const resource = resourcesOf(this.#synced, this.type).get(name);
    return this.answered()(name) && this.#rejected.get(name)?.resource !== resource;
  }

  /** Whether the client took that resource as it is in that view, which may be newer than what it was sent. */
  hasTaken(view: ServedView, name: string): boolean {
    const resource = resourcesOf(view, this.type).get(name);
    return resource === resourcesOf(this.#synced, this.type).get(name) && this.hasAcked(name);
  }

  /** Says of each name whether the client took or rejected that resource as it is in the view that it has. */
  answered(): (name: string) => boolean {
    const resources = resourcesOf(this.#synced, this.type);
    const waiting = new Set([...this.#unanswered.values()].flat());
    return (name) => {
      const resource = resources.get(name);
      return resource !== undefined && this.wants(name) && !this.#isOwed(name) && !waiting.has(resource);
    };
  }

  /** Says of each name whether the client has, at this moment, some version of it. */
  holder(): (name: string) => boolean {
    const synced = resourcesOf(this.#synced, this.type);
    const initial = this.#initialVersions;
    return (name) => synced.has(name) || initial.has(name);
  }

  #subscribe(name: string): void {
    if (name === WILDCARD) {
      this.#wantsAll = true;
      this.#owesAll = true;
      return;
    }
    this.#names.add(name);
    this.#owed.add(name);
  }

  #unsubscribe(name: string): void {
    if (name === WILDCARD) {
      this.#wantsAll = false;
      return;
    }
    this.#names.delete(name);
    if (this.#wantsAll)
      this.#owed.add(name); // The client may have dropped what the wildcard still covers.
    else this.#owed.delete(name);
  }

  /** Whether the client asks for that resource. */
  wants(name: string): boolean {
    return this.#wantsAll || this.#names.has(name);
  }

  /** The first answer: everything wanted that the client does not hold already, and what it holds in vain. */
  #first(view: ServedView): Changes {
    const held = this.#initialVersions;
    const resources = resourcesOf(view, this.type);
    const wanted = this.#wantsAll
      ? [...resources.values()]
      : [...this.#names].flatMap((name) => resources.get(name) ?? []);
    const names = new Set(this.#wantsAll ? [...held.keys(), ...this.#names] : this.#names);
    return {
      updated: wanted.filter((resource) => held.get(resource.name) !== resource.version),
      removed: [...names].filter((name) => !resources.has(name)),
    };
  }

  #step(synced: ServedView, view: ServedView): Changes {
    const resources = resourcesOf(view, this.type);
    const changes = changesBetween(synced, view, this.type);
    if (this.#wantsAll && this.#owed.size === 0 && !this.#owesAll) return changes;
    const updated = new Map<string, ServedResource>();
    const removed = new Set(changes.removed.filter((name) => this.wants(name)));
    const due = this.#owesAll && this.#wantsAll ? resources.values() : changes.updated;
    for (const resource of due) if (this.wants(resource.name)) updated.set(resource.name, resource);
    for (const name of this.#owed) {
      if (!this.wants(name)) continue;
      const resource = resources.get(name);
      if (resource) updated.set(name, resource);
      else removed.add(name);
    }
    return { updated: [...updated.values()], removed: [...removed] };
  }

  /** An answer to one response speaks for those before it, too. */
  #takeAnswer(nonce: string, error: string | undefined): Answer {
    if (nonce === '') return 'none';
    const resources = this.#unanswered.get(nonce);
    if (!resources) return 'stale';
    for (const [earlier, taken] of this.#unanswered) {
      this.#unanswered.delete(earlier);
      for (const resource of taken) this.#rejected.delete(resource.name);
      if (earlier === nonce) break;
    }
    if (error === undefined) return 'acked';
    for (const [resource, message] of readRejections(resources, error)) {
      this.#rejected.set(resource.name, { resource, message });
    }
    return 'nacked';
  }

  #sentNames(): ReadonlySet<string> {
    const resources = resourcesOf(this.#synced, this.type);
    const wanted = this.#wantsAll
      ? [...resources.keys()]
      : [...this.#names].filter((name) => resources.has(name));
    return new Set(wanted.filter((name) => !this.#isOwed(name) && !this.#wasCarried(name)));
  }

  #isOwed(name: string): boolean {
    return this.#owesAll || this.#owed.has(name);
  }

  #wasCarried(name: string): boolean {
    if (!this.#carried || this.#carried.except.has(name)) return false;
    const before = resourcesOf(this.#carried.view, this.type).get(name);
    return before !== undefined && before === resourcesOf(this.#synced, this.type).get(name);
  }
}
