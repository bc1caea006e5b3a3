import { type ErrorCode, Http2Error, nameOfCode } from './error.ts';
import { CHEAP_FRAMES, FloodGuard, LATE_RESETS, RESETS, WINDOW_UPDATES } from './flood-guard.ts';
import { FrameReader, type FrameSink } from './frame-reader.ts';
import type { FrameWriter } from './frame-writer.ts';
import {
  CONNECTION,
  FLAG,
  FRAME,
  MAX_STREAM_ID,
  MAX_WINDOW,
  PREFACE,
  pingFrame,
  resetFrame,
  settingsAckFrame,
} from './frames.ts';
import { HeaderBlocks, type HeaderList } from './header-block.ts';
import type { Field } from './hpack-tables.ts';
import { faultOfAnswer, faultOfRequest } from './message-faults.ts';
import { applySettings, INITIAL_PEER_SETTINGS, type PeerSettings } from './peer-settings.ts';
import type { ReceiveWindow } from './receive-window.ts';
import type { TunnelStream } from './stream.ts';
import type { StreamTable } from './stream-table.ts';

/** What incoming frames act on, and what only the connection can do about them. */
export interface IncomingOptions {
  readonly isServer: boolean;
  readonly maxFrameBytes: number;
  readonly maxHeaderBytes: number;
  readonly maxStreams: number;
  readonly streams: StreamTable;
  /** Counts streams that are reset or refused, perhaps for several connections; default: for this one. */
  readonly resets?: FloodGuard | undefined;
  readonly writer: FrameWriter;
  readonly window: ReceiveWindow;
  /** Whether no new streams are taken any more. */
  readonly refusesStreams: () => boolean;
  readonly onRequest: (stream: TunnelStream, fields: readonly Field[]) => void;
  readonly onGoaway: (lastStreamId: number, code: number) => void;
  /** The peer has taken in SETTINGS of ours. */
  readonly onSettingsAnswered: () => void;
  /** The answer to a PING. */
  readonly onPong: (payload: Buffer) => void;
  /** Bytes of padding have been skipped: they count as read. */
  readonly onPadding: (stream: TunnelStream, bytes: number) => void;
}

/** The receiving half of a connection: every frame of the peer's, checked. RFC 9113, sections 5 and 6. */
export class Incoming {
  readonly #options: IncomingOptions;
  readonly #streams: StreamTable;
  readonly #writer: FrameWriter;
  readonly #reader: FrameReader;
  readonly #headers: HeaderBlocks;
  readonly #cheapFrames = new FloodGuard('control frames', CHEAP_FRAMES);
  readonly #resets: FloodGuard;
  readonly #lateResets = new FloodGuard('resets of streams that are over', LATE_RESETS);
  readonly #windowUpdates = new FloodGuard('window updates', WINDOW_UPDATES);
  /** Stream of the DATA frame that is coming in. */
  #current: TunnelStream | undefined;
  #prefaceLeft: number;
  peer: PeerSettings = INITIAL_PEER_SETTINGS;

  constructor(options: IncomingOptions) {
    this.#options = options;
    this.#streams = options.streams;
    this.#resets = options.resets ?? new FloodGuard('streams that are reset or refused', RESETS);
    this.#writer = options.writer;
    this.#prefaceLeft = options.isServer ? PREFACE.length : 0;
    this.#headers = new HeaderBlocks(options.maxHeaderBytes);
    this.#reader = new FrameReader(this.#sink(), {
      frameBytes: options.maxFrameBytes,
      payloadBytes: Math.max(options.maxHeaderBytes, 16_384),
    });
  }

  /** @throws Http2Error: the connection cannot go on */
  read(bytes: Buffer): void {
    this.#reader.read(this.#prefaceLeft > 0 ? this.#readPreface(bytes) : bytes);
  }

  /** A request was refused. @throws Http2Error when there were too many */
  countReset(): void {
    this.#resets.count();
  }

  /** What comes after the preface. */
  #readPreface(bytes: Buffer): Buffer {
    const from = PREFACE.length - this.#prefaceLeft;
    const size = Math.min(bytes.length, this.#prefaceLeft);
    if (!bytes.subarray(0, size).equals(PREFACE.subarray(from, from + size))) {
      throw new Http2Error('not HTTP/2', 'PROTOCOL_ERROR');
    }
    this.#prefaceLeft -= size;
    return bytes.subarray(size);
  }

  #sink(): FrameSink {
    return {
      onDataFrame: (streamId, length, flags) => this.#onDataFrame(streamId, length, flags),
      onData: (bytes) => this.#current?.receive(bytes),
      onPadding: (bytes) => this.#current && this.#options.onPadding(this.#current, bytes),
      onDataEnd: () => this.#current?.receiveEnd(),
      onFrame: (type, flags, streamId, payload) => this.#onFrame(type, flags, streamId, payload),
    };
  }

  #onDataFrame(streamId: number, length: number, flags: number): void {
    if (this.#headers.openStream !== undefined) throw protocolError('DATA in a header block');
    if (length === 0 && (flags & FLAG.END_STREAM) === 0) this.#cheapFrames.count();
    this.#options.window.receive(length);
    const stream = this.#streams.find(streamId);
    this.#current = stream;
    if (stream === undefined) return;
    stream.receiveWindow -= length;
    // An end alone needs no window, which may be below nothing after a change of the settings.
    if (length > 0 && stream.receiveWindow < 0) this.#refuse(stream, 'FLOW_CONTROL_ERROR');
    else if (stream.hasReceivedEnd) this.#refuse(stream, 'STREAM_CLOSED');
    else if (this.#streams.isUnanswered(stream)) this.#refuse(stream, 'PROTOCOL_ERROR');
  }

  #onFrame(type: number, flags: number, streamId: number, payload: Buffer): void {
    const { openStream } = this.#headers;
    if (openStream !== undefined && (type !== FRAME.CONTINUATION || streamId !== openStream)) {
      throw protocolError('frame in a header block');
    }
    switch (type) {
      case FRAME.HEADERS:
      case FRAME.CONTINUATION:
        this.#onHeaderFrame(type, flags, streamId, payload);
        break;
      case FRAME.RST_STREAM:
        this.#onReset(streamId, readUInt32(payload));
        break;
      case FRAME.WINDOW_UPDATE:
        this.#windowUpdates.count();
        this.#onWindowUpdate(streamId, readUInt32(payload) & MAX_WINDOW);
        break;
      case FRAME.PUSH_PROMISE:
        throw protocolError('PUSH_PROMISE');
      default:
        this.#cheapFrames.count();
        if (type === FRAME.PING) this.#onPing(flags, streamId, payload);
        else if (type === FRAME.SETTINGS) this.#onSettings(flags, streamId, payload);
        else if (type === FRAME.GOAWAY) this.#onGoaway(streamId, payload);
        else if (type === FRAME.PRIORITY) this.#onPriority(streamId, payload);
    }
  }

  /** Priorities mean nothing here, and are checked all the same (RFC 9113, 6.3). */
  #onPriority(streamId: number, payload: Buffer): void {
    if (payload.length !== 5) throw new Http2Error('length of PRIORITY', 'FRAME_SIZE_ERROR');
    if (streamId === CONNECTION) throw protocolError('PRIORITY without a stream');
    dependsOn(streamId, payload, 0);
  }

  #checkPriority(flags: number, streamId: number, payload: Buffer): void {
    if ((flags & FLAG.PRIORITY) !== 0) dependsOn(streamId, payload, (flags & FLAG.PADDED) === 0 ? 0 : 1);
  }

  #onHeaderFrame(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (streamId === CONNECTION) throw protocolError('HEADERS without a stream');
    if (type === FRAME.CONTINUATION) this.#cheapFrames.count();
    const list = this.#headers.read(type, flags, streamId, payload);
    if (list === undefined) return;
    if (type === FRAME.HEADERS) this.#checkPriority(flags, streamId, payload);
    const stream = this.#streams.isNew(streamId) ? undefined : this.#streams.find(streamId);
    if (stream === undefined) this.#onRequest(list);
    else if (this.#streams.isUnanswered(stream)) this.#onAnswer(stream, list);
    else if (stream.hasReceivedEnd) this.#refuse(stream, 'STREAM_CLOSED');
    else if (list.endStream && !list.fields.some(isPseudoField)) stream.receiveEnd();
    else this.#refuse(stream, 'PROTOCOL_ERROR');
  }

  #onRequest({ streamId, fields, endStream }: HeaderList): void {
    if (!this.#streams.isNew(streamId)) {
      // Trailers that crossed with the end of their stream are harmless; a second request is not.
      if (fields.some(isPseudoField)) throw new Http2Error('a stream that is over', 'STREAM_CLOSED');
      this.#resets.count();
      return;
    }
    if (this.#options.refusesStreams() || this.#streams.size >= this.#options.maxStreams) {
      this.#streams.lastId = streamId;
      this.#resets.count();
      this.#writer.control(resetFrame(streamId, 'REFUSED_STREAM'));
      return;
    }
    if (faultOfRequest(fields) !== undefined) {
      this.#streams.lastId = streamId;
      this.#resets.count();
      this.#writer.control(resetFrame(streamId, 'PROTOCOL_ERROR'));
      return;
    }
    const stream = this.#streams.open(streamId, this.peer.initialWindowSize);
    if (endStream) stream.receiveEnd();
    this.#options.onRequest(stream, fields);
  }

  #onAnswer(stream: TunnelStream, { fields, endStream }: HeaderList): void {
    const isInterim = fields[0]?.[1].startsWith('1') === true && !endStream;
    if (isInterim) {
      this.#cheapFrames.count();
      return;
    }
    if (faultOfAnswer(fields) !== undefined) {
      this.#refuse(stream, 'PROTOCOL_ERROR');
      return;
    }
    if (endStream) stream.receiveEnd();
    this.#streams.answer(stream, { kind: 'answered', fields, endStream });
  }

  #onReset(streamId: number, code: number): void {
    const stream = this.#streams.find(streamId);
    if (stream === undefined || stream.hasReceivedEnd) this.#lateResets.count();
    else this.#resets.count();
    if (stream === undefined) return;
    const reason = `stream reset by the peer: ${nameOfCode(code)}`;
    const isRetryable = nameOfCode(code) === 'REFUSED_STREAM';
    this.#streams.answer(stream, { kind: 'failed', reason, isRetryable });
    this.#streams.forget(stream);
    stream.receiveReset(code);
  }

  #onWindowUpdate(streamId: number, increment: number): void {
    if (streamId === CONNECTION) {
      this.#onConnectionWindowUpdate(increment);
      return;
    }
    const stream = this.#streams.find(streamId);
    if (stream === undefined) return;
    stream.sendWindow += increment;
    if (increment === 0) this.#refuse(stream, 'PROTOCOL_ERROR');
    else if (stream.sendWindow > MAX_WINDOW) this.#refuse(stream, 'FLOW_CONTROL_ERROR');
    else this.#writer.schedule(stream);
  }

  #onConnectionWindowUpdate(increment: number): void {
    if (increment === 0) throw protocolError('window update of nothing');
    this.#writer.window += increment;
    if (this.#writer.window > MAX_WINDOW) throw new Http2Error('window too large', 'FLOW_CONTROL_ERROR');
    this.#writer.resume();
  }

  #onPing(flags: number, streamId: number, payload: Buffer): void {
    if (payload.length !== 8) throw new Http2Error('length of PING', 'FRAME_SIZE_ERROR');
    if (streamId !== CONNECTION) throw protocolError('PING on a stream');
    if ((flags & FLAG.ACK) === 0) this.#writer.control(pingFrame(payload, true));
    else this.#options.onPong(payload);
  }

  #onSettings(flags: number, streamId: number, payload: Buffer): void {
    if (streamId !== CONNECTION) throw protocolError('SETTINGS on a stream');
    if ((flags & FLAG.ACK) !== 0) {
      if (payload.length > 0) throw new Http2Error('length of the answer to SETTINGS', 'FRAME_SIZE_ERROR');
      this.#options.onSettingsAnswered();
      return;
    }
    const previous = this.peer;
    this.peer = applySettings(previous, payload);
    this.#writer.maxFrameSize = this.peer.maxFrameSize;
    this.#writer.control(settingsAckFrame());
    const change = this.peer.initialWindowSize - previous.initialWindowSize;
    if (change === 0) return;
    for (const stream of this.#streams.all()) {
      stream.sendWindow += change;
      if (stream.sendWindow > MAX_WINDOW) throw new Http2Error('window too large', 'FLOW_CONTROL_ERROR');
      this.#writer.schedule(stream);
    }
  }

  #onGoaway(streamId: number, payload: Buffer): void {
    if (payload.length < 8) throw new Http2Error('length of GOAWAY', 'FRAME_SIZE_ERROR');
    if (streamId !== CONNECTION) throw protocolError('GOAWAY on a stream');
    this.#options.onGoaway(payload.readUInt32BE(0) & MAX_STREAM_ID, payload.readUInt32BE(4));
  }

  /** The peer did something against the protocol that concerns one stream only. */
  #refuse(stream: TunnelStream, code: ErrorCode): void {
    this.#resets.count();
    this.#writer.control(resetFrame(stream.id, code));
    this.#streams.drop(stream, `the peer broke the protocol: ${code}`, false);
  }
}

/** @throws Http2Error for a stream that depends on itself (RFC 7540, 5.3.1) */
function dependsOn(streamId: number, payload: Buffer, at: number): void {
  if (payload.length < at + 5) throw new Http2Error('priority cut short', 'FRAME_SIZE_ERROR');
  if ((payload.readUInt32BE(at) & MAX_STREAM_ID) === streamId)
    throw protocolError('a stream that depends on itself');
}

function isPseudoField([name]: Field): boolean {
  return name.startsWith(':');
}

function protocolError(message: string): Http2Error {
  return new Http2Error(message, 'PROTOCOL_ERROR');
}

/** @throws Http2Error for a payload of another length */
function readUInt32(payload: Buffer): number {
  if (payload.length !== 4) throw new Http2Error('frame of a length other than 4', 'FRAME_SIZE_ERROR');
  return payload.readUInt32BE(0);
}
