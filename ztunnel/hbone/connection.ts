import type { Socket } from 'node:net';
import { type ErrorCode, Http2Error, nameOfCode } from './error.ts';
import type { FairShare, Reader } from './fair-share.ts';
import type { FloodGuard } from './flood-guard.ts';
import { FrameWriter } from './frame-writer.ts';
import {
  CONNECTION,
  DEFAULT_WINDOW,
  goawayFrame,
  headersFrames,
  MAX_STREAM_ID,
  PREFACE,
  pingFrame,
  resetFrame,
  SETTING,
  settingsFrame,
  windowUpdateFrame,
} from './frames.ts';
import type { Field } from './hpack-tables.ts';
import { Incoming } from './incoming.ts';
import { Keepalive, newPingPayload } from './keepalive.ts';
import { isOverBudget } from './memory-budget.ts';
import { readInto } from './read-into.ts';
import { CREDIT_SHARE, ReceiveWindow } from './receive-window.ts';
import { isControlRequest, SessionHandOver } from './session-hand-over.ts';
import type { Answer, StreamOwner, TunnelStream } from './stream.ts';
import { StreamTable } from './stream-table.ts';
import { StreamWindows } from './stream-windows.ts';

/** Sizes and times of a connection: fact sheet ambient-wire.md, 1.2. */
export interface ConnectionSettings {
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly frameBytes: number;
  /** From the answer to a PING to the next, and how long an answer may take. */
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
}

export interface ConnectionOptions {
  readonly settings: ConnectionSettings;
  /** Makes this end the server. The stream is the receiver's, to answer and start, or to abort. */
  readonly onRequest?: (stream: TunnelStream, fields: readonly Field[]) => void;
  /** Whose reads its own are; default: nobody's. */
  readonly share?: FairShare;
  /** Counts streams that are reset or refused, for all connections of one peer; default: for this one alone. */
  readonly resets?: FloodGuard;
  /**
   * The connection is over, and its streams have been told. Called once. A fault of our own in handling the peer's frames ends
   * this connection only; the reason then begins with `internal error`.
   */
  readonly onClose: (reason: string) => void;
}

/** All connections of a thread read into this, one after the other: a TLS record is no larger. */
const inlet: Buffer = Buffer.allocUnsafeSlow(64 * 1024);
/** Streams that a server takes at a time on one connection. */
const MAX_CONCURRENT_STREAMS = 200;
/** Header lists that each role takes. */
const SERVER_HEADER_BYTES = 65_536;
const CLIENT_HEADER_BYTES = 16_384;
/** How long the answer to the PING of a drain is waited for: a peer that is gone, unheard, must not hold a restart up. */
const DRAIN_PING_TIMEOUT_MS = 1_000;
/** How long a connection that is closed may take to send what is left. */
const CLOSE_TIMEOUT_MS = 1_000;

/**
 * One HTTP/2 connection that carries CONNECT streams, at either end: the part of RFC 9113 that HBONE needs, and nothing for
 * web pages (no push, no priorities; trailers only end a stream). docs/decisions/0003-http2.md says why it is our own.
 */
export class Connection {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #isServer: boolean;
  readonly #writer: FrameWriter;
  readonly #streams: StreamTable;
  /** What the peer may send over all streams before it hears from us: little, where memory was short when it came. */
  readonly #connectionWindow: number;
  readonly #window: ReceiveWindow;
  readonly #streamWindows: StreamWindows;
  readonly #incoming: Incoming;
  readonly #keepalive: Keepalive;
  /** Of the tunnels on it to another process; nothing where the peer knows none. */
  readonly handOver: SessionHandOver;
  /** A GOAWAY came or went: no new requests of ours. */
  #isGoingAway = false;
  /** The last GOAWAY of a drain went: no new requests of the peer's. */
  #refusesStreams = false;
  #isClosed = false;
  #drainTimer: NodeJS.Timeout | undefined;
  /** Payload of the PING that tells when the peer has seen the first GOAWAY of a drain; nobody can answer it before it is sent. */
  readonly #drainPing = newPingPayload();

  /** @param socket a TLS socket after its handshake; the connection's from now on */
  constructor(socket: Socket, options: ConnectionOptions) {
    const { settings } = options;
    this.#socket = socket;
    this.#options = options;
    this.#isServer = options.onRequest !== undefined;
    this.#writer = new FrameWriter(socket);
    this.#connectionWindow = isOverBudget() ? DEFAULT_WINDOW : settings.connectionWindowBytes;
    this.#window = new ReceiveWindow(this.#connectionWindow, (bytes) => {
      this.#writer.control(windowUpdateFrame(CONNECTION, bytes));
    });
    this.#streamWindows = new StreamWindows(
      settings.streamWindowBytes,
      (window) => this.#writer.control(settingsFrame([[SETTING.INITIAL_WINDOW_SIZE, window]])),
      (bytes) => {
        for (const stream of this.#streams.all()) stream.receiveWindow += bytes;
      },
    );
    this.#streams = new StreamTable({
      isServer: this.#isServer,
      owner: this.#ownerOfStreams(),
      receiveWindow: () => this.#streamWindows.initial,
      onOver: (stream) => {
        if (stream.connectionId !== undefined) this.handOver.forget(stream);
        this.#closeWhenIdle();
      },
    });
    this.handOver = new SessionHandOver({
      isServer: this.#isServer,
      openControl: (fields, onAnswer) => (this.isOpen ? this.request(fields, onAnswer) : undefined),
    });
    this.#incoming = this.#openIncoming();
    this.#keepalive = new Keepalive({
      intervalMs: settings.pingIntervalMs,
      timeoutMs: settings.pingTimeoutMs,
      sendPing: (payload) => this.#writer.control(pingFrame(payload, false)),
      onTimeout: () => this.close('no answer to PING'),
    });
    this.#greet();
    const { share } = options;
    const reader: Reader = {
      rest: () => socket.pause(),
      goOn: () => {
        if (!socket.destroyed) socket.resume();
      },
    };
    const onBytes = (bytes: Buffer): void => {
      this.#onBytes(bytes);
      share?.take(reader, bytes.length);
    };
    if (!readInto(socket, inlet, onBytes)) socket.on('data', onBytes);
    socket.on('end', () => this.#lose('closed by the peer'));
    socket.on('error', (error) => this.#lose(error.message));
    socket.on('close', () => this.#lose('closed'));
  }

  /** Whether another request may be made. */
  get isOpen(): boolean {
    return !this.#isGoingAway && !this.#isClosed && this.#streams.lastId < MAX_STREAM_ID - 2;
  }

  /** Streams that carry somebody's bytes. */
  get streamCount(): number {
    return this.#streams.size - this.#controlCount;
  }

  /** How many of them the peer takes at a time. */
  get maxStreams(): number {
    return this.#incoming.peer.maxConcurrentStreams - this.#controlCount;
  }

  get #controlCount(): number {
    const { control } = this.handOver;
    return control !== undefined && this.#streams.get(control.id) === control ? 1 : 0;
  }

  /**
   * Sends a request; for clients, while `isOpen`. The stream may be aborted at any time, and started once it is answered.
   */
  request(fields: readonly Field[], onAnswer: (answer: Answer) => void): TunnelStream {
    const stream = this.#streams.openNext(this.#incoming.peer.initialWindowSize, onAnswer);
    this.#sendHeaders(stream, fields, false);
    return stream;
  }

  /** Answers a request; with `endStream` that is all, and the stream is over. Nothing if it is over already. */
  respond(stream: TunnelStream, fields: readonly Field[], endStream: boolean): void {
    if (this.#streams.get(stream.id) !== stream) {
      // Over already; what it still holds goes.
      if (endStream) stream.abort();
      return;
    }
    if (endStream && !this.#mayRefuse()) return;
    this.#sendHeaders(stream, fields, endStream);
    // The client may want to send on; it need not (RFC 9113, 8.1).
    if (endStream) stream.abort('NO_ERROR');
  }

  /** Requests that end in an error cost us more than the peer: they are counted with its resets. */
  #mayRefuse(): boolean {
    try {
      this.#incoming.countReset();
      return true;
    } catch (error) {
      this.close(error instanceof Error ? error.message : String(error), 'ENHANCE_YOUR_CALM');
      return false;
    }
  }

  /** Takes no more requests, lets those in flight finish, and closes. */
  drain(): void {
    if (this.#isClosed || this.#refusesStreams) return;
    this.#isGoingAway = true;
    if (this.#isServer) {
      this.#writer.control(goawayFrame(MAX_STREAM_ID, 'NO_ERROR'));
      this.#writer.control(pingFrame(this.#drainPing, false));
      this.#drainTimer ??= setTimeout(() => this.#finishDrain(), DRAIN_PING_TIMEOUT_MS).unref();
    } else this.#finishDrain();
  }

  /** Closes at once: open streams are lost, here and there. */
  close(reason: string, code: ErrorCode = 'NO_ERROR'): void {
    if (this.#isClosed) return;
    this.#writer.control(goawayFrame(this.#isServer ? this.#streams.lastId : 0, code));
    this.#writer.flush();
    this.#lose(reason);
  }

  #openIncoming(): Incoming {
    return new Incoming({
      isServer: this.#isServer,
      maxFrameBytes: this.#options.settings.frameBytes,
      maxHeaderBytes: this.#isServer ? SERVER_HEADER_BYTES : CLIENT_HEADER_BYTES,
      maxStreams: MAX_CONCURRENT_STREAMS,
      streams: this.#streams,
      resets: this.#options.resets,
      writer: this.#writer,
      window: this.#window,
      refusesStreams: () => this.#refusesStreams,
      onRequest: (stream, fields) => {
        if (isControlRequest(fields)) this.#onControlRequest(stream);
        else this.#options.onRequest?.(stream, fields);
      },
      onGoaway: (lastStreamId, code) => this.#onGoaway(lastStreamId, code),
      onPong: (payload) => {
        if (payload.equals(this.#drainPing)) this.#onDrainPong();
        else this.#keepalive.answered(payload);
      },
      onSettingsAnswered: () => this.#streamWindows.answered(),
      onPadding: (stream, bytes) => this.#credit(stream, bytes),
    });
  }

  /** One is enough. */
  #onControlRequest(stream: TunnelStream): void {
    const isTaken = this.handOver.control === undefined;
    this.respond(stream, [[':status', isTaken ? '200' : '400']], !isTaken);
    if (isTaken) this.handOver.acceptControl(stream);
  }

  #ownerOfStreams(): StreamOwner {
    return {
      sendNow: (stream, bytes) => this.#writer.data(stream, bytes),
      isRoomy: () => this.#writer.isRoomy,
      send: (stream) => this.#writer.schedule(stream),
      credit: (stream, bytes) => this.#credit(stream, bytes),
      changeWaiting: (bytes) => {
        this.#window.changeWaiting(bytes);
        this.#streamWindows.adjust(this.#window.waiting);
      },
      reset: (stream, code) => {
        this.#writer.control(resetFrame(stream.id, code));
        this.#streams.answer(stream, { kind: 'failed', reason: 'given up', isRetryable: false });
        this.#streams.forget(stream);
      },
      ended: (stream) => this.#streams.forget(stream),
    };
  }

  #greet(): void {
    const { settings } = this.#options;
    if (!this.#isServer) this.#writer.control(PREFACE);
    this.#writer.control(
      settingsFrame([
        this.#isServer ? [SETTING.MAX_CONCURRENT_STREAMS, MAX_CONCURRENT_STREAMS] : [SETTING.ENABLE_PUSH, 0],
        [SETTING.INITIAL_WINDOW_SIZE, this.#streamWindows.size],
        [SETTING.MAX_FRAME_SIZE, settings.frameBytes],
        [SETTING.MAX_HEADER_LIST_SIZE, this.#isServer ? SERVER_HEADER_BYTES : CLIENT_HEADER_BYTES],
      ]),
    );
    const more = this.#connectionWindow - DEFAULT_WINDOW;
    if (more > 0) this.#writer.control(windowUpdateFrame(CONNECTION, more));
  }

  #sendHeaders(stream: TunnelStream, fields: readonly Field[], endStream: boolean): void {
    const { maxFrameSize } = this.#incoming.peer;
    this.#writer.control(headersFrames(stream.id, fields, { endStream, maxFrameSize }));
  }

  #onBytes(bytes: Buffer): void {
    if (this.#isClosed) return;
    try {
      this.#incoming.read(bytes);
    } catch (error) {
      if (error instanceof Http2Error) this.close(error.message, error.code);
      else
        this.close(
          `internal error: ${error instanceof Error ? error.stack : String(error)}`,
          'INTERNAL_ERROR',
        );
    }
  }

  #onGoaway(lastStreamId: number, code: number): void {
    this.#isGoingAway = true;
    const reason = `the peer goes away: ${nameOfCode(code)}`;
    const ignored = this.#isServer ? [] : this.#streams.all().filter(({ id }) => id > lastStreamId);
    for (const stream of ignored) this.#streams.drop(stream, reason, true);
    this.#closeWhenIdle();
  }

  /** The reader of a stream has read so much. */
  #credit(stream: TunnelStream, bytes: number): void {
    stream.uncredited += bytes;
    if (stream.uncredited < this.#streamWindows.size / CREDIT_SHARE) return;
    if (stream.hasReceivedEnd || this.#streams.get(stream.id) !== stream) return;
    this.#writer.control(windowUpdateFrame(stream.id, stream.uncredited));
    stream.receiveWindow += stream.uncredited;
    stream.uncredited = 0;
  }

  #onDrainPong(): void {
    if (this.#isGoingAway) this.#finishDrain();
  }

  #finishDrain(): void {
    clearTimeout(this.#drainTimer);
    if (this.#refusesStreams || this.#isClosed) return;
    this.#refusesStreams = true;
    this.#writer.control(goawayFrame(this.#isServer ? this.#streams.lastId : 0, 'NO_ERROR'));
    this.#closeWhenIdle();
  }

  #closeWhenIdle(): void {
    const mayEnd = this.#isServer ? this.#refusesStreams : this.#isGoingAway;
    if (!mayEnd || this.#isClosed || this.streamCount > 0) return;
    this.#writer.flush();
    this.#lose('drained');
  }

  #lose(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#drainTimer);
    this.#keepalive.stop();
    this.handOver.lose();
    for (const stream of this.#streams.all()) this.#streams.drop(stream, `session lost: ${reason}`, true);
    const socket = this.#socket;
    const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS).unref();
    socket.once('close', () => clearTimeout(timer));
    socket.destroySoon();
    this.#options.onClose(reason);
  }
}
