import type { Attempt, AttemptHandlers, UpstreamRequest } from './attempt.ts';
import { connectFailure, type PoolLimits } from './http1-pool.ts';
import { Http2Connection } from './http2.ts';
import { PendingAttempt } from './pending-attempt.ts';
import type { UpstreamTarget } from './target.ts';
import { asDuplex, type Wires } from './wire.ts';

/** HTTP/2 connections of one caller to one application. */
export class Http2Pool {
  readonly #wires: Wires;
  readonly #limits: PoolLimits;
  /** Those that take requests. */
  readonly #open = new Set<Http2Connection>();
  readonly #all = new Set<Http2Connection>();
  #connecting: AbortController | undefined;
  #pending: PendingAttempt[] = [];
  #isDraining = false;

  constructor(wires: Wires, limits: PoolLimits) {
    this.#wires = wires;
    this.#limits = limits;
  }

  /** Connections, those that are being made or closed included. */
  get size(): number {
    return this.#all.size + (this.#connecting === undefined ? 0 : 1);
  }

  /** Nothing is open, and nobody waits. */
  get isEmpty(): boolean {
    return this.size === 0 && !this.#pending.some((each) => each.isWaiting);
  }

  send(target: UpstreamTarget, request: UpstreamRequest, handlers: AttemptHandlers): Attempt {
    const connection = this.#withRoom();
    if (connection !== undefined) return connection.send(request, handlers);
    const pending = new PendingAttempt(request, handlers);
    this.#pending = this.#pending.filter((each) => each.isWaiting);
    if (this.#pending.length >= this.#limits.maxPending) {
      queueMicrotask(() => pending.fail({ kind: 'overflow', reason: 'too many requests wait' }));
      return pending;
    }
    this.#pending.push(pending);
    this.#connect(target);
    return pending;
  }

  sweep(now: number): void {
    for (const connection of [...this.#open]) {
      if (connection.isIdle && now - connection.idleSince >= this.#limits.idleMs) connection.drain();
    }
  }

  drain(): void {
    this.#isDraining = true;
    for (const connection of [...this.#open]) connection.drain();
  }

  close(reason: string): void {
    this.drain();
    for (const connection of [...this.#all]) connection.lose(reason);
  }

  #withRoom(): Http2Connection | undefined {
    for (const connection of this.#open) if (connection.hasRoom) return connection;
    return undefined;
  }

  /** One at a time: those who come meanwhile share it. */
  #connect(target: UpstreamTarget): void {
    if (this.#connecting !== undefined || this.#open.size >= this.#limits.maxConnections) return;
    this.#connecting = new AbortController();
    this.#wires.open(target, ['h2'], this.#connecting.signal).then(
      (wire) => {
        this.#connecting = undefined;
        const connection = new Http2Connection(asDuplex(wire, target.address, this.#wires.onBytes), {
          onRoom: (each) => this.#serve(each, target),
          onClose: (each) => this.#onClose(each, target),
          onGone: (each) => this.#all.delete(each),
        });
        this.#open.add(connection);
        this.#all.add(connection);
        this.#serve(connection, target);
        if (this.#isDraining) connection.drain();
      },
      (error: unknown) => {
        this.#connecting = undefined;
        const waiting = this.#pending;
        this.#pending = [];
        for (const each of waiting) each.fail(connectFailure(error));
      },
    );
  }

  #serve(connection: Http2Connection, target: UpstreamTarget): void {
    while (connection.hasRoom) {
      const next = this.#pending.shift();
      if (next === undefined) return;
      next.begin((request, handlers) => connection.send(request, handlers));
    }
    if (this.#pending.length > 0) this.#connect(target);
  }

  #onClose(connection: Http2Connection, target: UpstreamTarget): void {
    this.#open.delete(connection);
    if (this.#pending.some((each) => each.isWaiting)) this.#connect(target);
  }
}
