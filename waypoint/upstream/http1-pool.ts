import type { Attempt, AttemptFailure, AttemptHandlers, UpstreamRequest } from './attempt.ts';
import { Http1Connection } from './http1.ts';
import { PendingAttempt } from './pending-attempt.ts';
import type { UpstreamTarget } from './target.ts';
import { asLeg, WireError, type Wires } from './wire.ts';

/** How much one caller may have at one application, and how long what is not used is kept. */
export interface PoolLimits {
  /** Connections (HTTP/1.1), requests beyond which wait. */
  readonly maxConnections: number;
  /** Requests that wait for a connection; more fail. */
  readonly maxPending: number;
  readonly idleMs: number;
  /** After so long the application may be about to close what is not used: a loss then is nobody's doing. */
  readonly stillMs: number;
}

/** HTTP/1.1 connections of one caller to one application. */
export class Http1Pool {
  readonly #wires: Wires;
  readonly #limits: PoolLimits;
  /** The one that was used last is the last, and the next: the others get old and go. */
  readonly #idle: Http1Connection[] = [];
  readonly #open = new Set<Http1Connection>();
  #connecting = 0;
  #pending: PendingAttempt[] = [];
  #isDraining = false;

  constructor(wires: Wires, limits: PoolLimits) {
    this.#wires = wires;
    this.#limits = limits;
  }

  /** Connections, those that are being made included. */
  get size(): number {
    return this.#open.size + this.#connecting;
  }

  /** Nothing is open, and nobody waits. */
  get isEmpty(): boolean {
    return this.size === 0 && !this.#pending.some((each) => each.isWaiting);
  }

  send(target: UpstreamTarget, request: UpstreamRequest, handlers: AttemptHandlers): Attempt {
    const free = request.isFreshOnly === true ? undefined : this.#takeIdle();
    if (free !== undefined) return free.send(request, handlers);
    const pending = new PendingAttempt(request, handlers);
    if (this.#isFull()) {
      queueMicrotask(() => pending.fail({ kind: 'overflow', reason: 'too many requests wait' }));
      return pending;
    }
    this.#pending.push(pending);
    if (this.size < this.#limits.maxConnections) this.#connect(target, pending);
    return pending;
  }

  /** Closes what has been free for long, or should not be used again. */
  sweep(now: number): void {
    for (const connection of [...this.#idle]) {
      if (now - connection.idleSince >= this.#limits.idleMs || now >= connection.usableUntil)
        connection.close();
    }
  }

  /** Keeps nothing that is free from now on; requests under way go on. */
  drain(): void {
    this.#isDraining = true;
    for (const connection of [...this.#idle]) connection.retire();
  }

  /** Closes everything; requests under way fail. */
  close(reason: string): void {
    this.drain();
    for (const connection of [...this.#open]) connection.lose(reason);
  }

  #takeIdle(): Http1Connection | undefined {
    const now = performance.now();
    for (let connection = this.#idle.pop(); connection !== undefined; connection = this.#idle.pop()) {
      if (now < connection.usableUntil) return connection;
      connection.retire();
    }
    return undefined;
  }

  /** Those for whom a connection is being made do not wait for another. */
  #isFull(): boolean {
    const { maxConnections, maxPending } = this.#limits;
    const most = maxPending + this.#connecting;
    if (this.size < maxConnections || this.#pending.length < most) return false;
    this.#pending = this.#pending.filter((each) => each.isWaiting);
    return this.#pending.length >= most;
  }

  /** Each request that finds no connection has one made; who is served first by what becomes free is another question. */
  #connect(target: UpstreamTarget, pending: PendingAttempt): void {
    this.#connecting += 1;
    this.#wires.open(target, ['http/1.1'], pending.signal).then(
      (wire) => {
        this.#connecting -= 1;
        const connection = new Http1Connection(asLeg(wire), {
          stillMs: this.#limits.stillMs,
          onIdle: (each) => this.#onIdle(each),
          onClose: (each) => this.#onClose(each, target),
        });
        this.#open.add(connection);
        this.#onIdle(connection);
      },
      (error: unknown) => {
        this.#connecting -= 1;
        this.#fail(pending, connectFailure(error), target);
      },
    );
  }

  #onIdle(connection: Http1Connection): void {
    for (let next = this.#pending.shift(); next !== undefined; next = this.#pending.shift()) {
      if (next.begin((request, handlers) => connection.send(request, handlers))) return;
    }
    connection.idleSince = performance.now();
    if (this.#isDraining) connection.retire();
    else this.#idle.push(connection);
  }

  #onClose(connection: Http1Connection, target: UpstreamTarget): void {
    this.#open.delete(connection);
    const index = this.#idle.indexOf(connection);
    if (index >= 0) this.#idle.splice(index, 1);
    this.#connectForWaiting(target);
  }

  /** The connection that could not be made was one request's: that one fails. If it has been served by another's, that has none. */
  #fail(pending: PendingAttempt, failure: AttemptFailure, target: UpstreamTarget): void {
    const index = this.#pending.indexOf(pending);
    if (index >= 0) this.#pending.splice(index, 1);
    pending.fail(failure);
    this.#connectForWaiting(target);
  }

  #connectForWaiting(target: UpstreamTarget): void {
    const waiting = this.#pending.filter((each) => each.isWaiting);
    for (const each of waiting.slice(this.#connecting)) {
      if (this.size >= this.#limits.maxConnections) return;
      this.#connect(target, each);
    }
  }
}

/** What `Wires.open` throws, as a failure of a try. */
export function connectFailure(error: unknown): AttemptFailure {
  const kind = error instanceof WireError ? error.kind : 'connect';
  return { kind, reason: error instanceof Error ? error.message : String(error) };
}
