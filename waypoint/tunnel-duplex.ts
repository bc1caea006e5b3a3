import { Duplex } from 'node:stream';
import type { HostPort } from '#api/address.ts';
import type { ErrorCode } from '#ztunnel/hbone/error.ts';
import type { Leg, LegEvents } from '#ztunnel/hbone/leg.ts';
import { heldInStream } from './memory/costs.ts';

/** What is wrapped: a CONNECT stream, or another end of a splice. */
export interface TunnelLeg extends Omit<Leg, 'abort'> {
  readonly abort: (code?: ErrorCode) => void;
  /** Bytes of memory in which data waits, either way; absent where there is little. */
  readonly held?: () => number;
}

export interface TunnelDuplexOptions {
  /** Shown as `remoteAddress` and `remotePort`. */
  readonly remote?: HostPort;
  /** Bytes that wait for a slow reader before the tunnel is asked to wait. Default 64 KiB. */
  readonly highWaterMark?: number;
  /** Told of all that comes in. */
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

/** Why a tunnel broke: `code` is that of a socket, for those who take it for one. */
export class TunnelBrokenError extends Error {
  override readonly name = 'TunnelBrokenError';
  readonly code = 'ECONNRESET';
}

const HIGH_WATER_MARK = 64 * 1024;
/** Up to so much, chunks that wait together leave as one. */
const COALESCE_BYTES = 16 * 1024;

/**
 * A tunnel as the `Duplex` that node:http, node:http2 and node:tls take for a socket. Each direction ends by itself. It
 * owns the leg, which must not have been started. A tunnel that breaks is an `error`; `destroy` resets it, so that the other
 * end sees that something is missing, unless both directions had ended, or `destroySoon` was what ended it.
 */
export class TunnelDuplex extends Duplex {
  readonly #leg: TunnelLeg;
  /** Gets what the tunnel has to say instead, once it has been taken out. */
  #next: LegEvents | undefined;
  #isReleased = false;
  readonly #remote: HostPort | undefined;
  readonly #onBytes: ((bytes: number) => void) | undefined;
  #onRoom: (() => void) | undefined;
  #onFinished: (() => void) | undefined;
  #hasFinished = false;
  #hasEndCome = false;
  #timer: NodeJS.Timeout | undefined;
  #bytesWritten = 0;
  timeout = 0;
  readonly connecting: boolean = false;

  constructor(leg: TunnelLeg, options: TunnelDuplexOptions = {}) {
    const highWaterMark = options.highWaterMark ?? HIGH_WATER_MARK;
    super({ allowHalfOpen: true, highWaterMark, emitClose: true });
    this.#leg = leg;
    this.#remote = options.remote;
    this.#onBytes = options.onBytes;
    leg.start({
      onData: (bytes) => (this.#next === undefined ? this.#receive(bytes) : this.#next.onData(bytes)),
      onEnd: () => {
        this.#hasEndCome = true;
        if (this.#next === undefined) this.push(null);
        else this.#next.onEnd();
      },
      onDrain: () => (this.#next === undefined ? this.#makeRoom() : this.#next.onDrain()),
      onFinish: () => {
        this.#hasFinished = true;
        this.#onFinished?.();
        this.#next?.onFinish();
      },
      onAbort: (reason) => {
        if (this.#next === undefined) this.destroy(new TunnelBrokenError(reason));
        else this.#next.onAbort(reason);
      },
    });
  }

  get remoteAddress(): string | undefined {
    return this.#remote?.ip;
  }

  get remotePort(): number | undefined {
    return this.#remote?.port;
  }

  get remoteFamily(): string | undefined {
    return this.#remote && (this.#remote.ip.includes(':') ? 'IPv6' : 'IPv4');
  }

  /** Bytes of memory in which data waits, either way, here and in the tunnel. */
  get held(): number {
    return heldInStream(this) + (this.#leg.held?.() ?? 0);
  }

  get bytesRead(): number {
    return this.#leg.bytesRead();
  }

  get bytesWritten(): number {
    return this.#bytesWritten;
  }

  override _read(): void {
    this.#leg.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    this.#send([chunk], chunk.length, callback);
  }

  override _writev(chunks: { readonly chunk: Buffer }[], callback: () => void): void {
    let size = 0;
    const pieces = chunks.map(({ chunk }) => {
      size += chunk.length;
      return chunk;
    });
    this.#send(size <= COALESCE_BYTES ? [Buffer.concat(pieces, size)] : pieces, size, callback);
  }

  override _final(callback: () => void): void {
    this.#onFinished = callback;
    this.#leg.end();
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    clearTimeout(this.#timer);
    if (!this.#isReleased)
      this.#leg.abort(error === null && this.#hasFinished ? 'NO_ERROR' : 'CONNECT_ERROR');
    this.#onRoom = undefined;
    callback(error);
  }

  /**
   * Takes the tunnel out, for somebody who reads and writes it directly: `events` get what comes from now on, in front of it what
   * was not read yet. This stream is then of no use, and destroying it leaves the tunnel alone.
   * @returns undefined while something waits to be sent, or when an end has come: it stays as it is
   */
  release(events: LegEvents): TunnelLeg | undefined {
    if (this.writableLength > 0 || this.#onRoom !== undefined || this.destroyed || this.#hasEndCome)
      return undefined;
    this.#isReleased = true;
    const early: Buffer[] = [];
    for (let piece = this.read(); piece !== null; piece = this.read()) early.push(piece);
    this.#next = events;
    for (const piece of early) events.onData(piece);
    this.#leg.resume();
    return this.#leg;
  }

  /** Ends after what was written, and then takes no more either. */
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  resetAndDestroy(): this {
    return this.destroy();
  }

  /** Emits `timeout` when nothing has come or gone for so long; 0: never. Nothing is closed by it. */
  setTimeout(ms: number, onTimeout?: () => void): this {
    if (onTimeout !== undefined) {
      if (ms > 0) this.once('timeout', onTimeout);
      else this.off('timeout', onTimeout);
    }
    if (ms === this.timeout && this.#timer !== undefined) {
      this.#timer.refresh();
      return this;
    }
    this.timeout = ms;
    clearTimeout(this.#timer);
    this.#timer = ms > 0 && !this.destroyed ? setTimeout(() => this.emit('timeout'), ms).unref() : undefined;
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  #receive(bytes: Buffer): void {
    this.#timer?.refresh();
    this.#onBytes?.(bytes.length);
    // The tunnel's memory is used again.
    if (!this.push(Buffer.from(bytes))) this.#leg.pause();
  }

  #send(pieces: readonly Buffer[], size: number, callback: () => void): void {
    this.#timer?.refresh();
    this.#bytesWritten += size;
    let hasRoom = true;
    for (const piece of pieces) hasRoom = this.#leg.write(piece);
    if (hasRoom) callback();
    else this.#onRoom = callback;
  }

  #makeRoom(): void {
    const onRoom = this.#onRoom;
    this.#onRoom = undefined;
    onRoom?.();
  }
}
