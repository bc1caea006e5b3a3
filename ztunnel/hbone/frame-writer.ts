import type { Socket } from 'node:net';
import {
  DEFAULT_FRAME_SIZE,
  DEFAULT_WINDOW,
  FLAG,
  FRAME,
  FRAME_HEADER_SIZE,
  writeFrameHeader,
} from './frames.ts';
import { Outlet } from './outlet.ts';
import type { TunnelStream } from './stream.ts';

/** Most bytes of one stream in a row, so that a busy stream does not keep the others waiting. */
const TURN_SIZE = 64 * 1024;
/** What a socket's reader may bring at a time. */
const READ_SIZE = 128 * 1024;

/** Frames that may wait because the peer does not read; one that goes on asking is cut off. */
const MAX_CONTROL_FRAMES = 10_000;

/**
 * Sends the frames of one connection. What comes in one turn of the event loop leaves in one write: a TLS record and a system
 * call cost more than all the rest. Data goes straight into that write while there is room, and windows are open; what
 * does not waits with its stream, and streams that have data waiting take turns.
 */
export class FrameWriter {
  readonly #socket: Socket;
  readonly #outlet: Outlet;
  /** Frames that no window holds back, and for which there was no room. */
  #control: Buffer[] = [];
  #scheduled: TunnelStream[] = [];
  #isFlushPlanned = false;
  /** Bytes that the peer takes now, over all streams. */
  window: number = DEFAULT_WINDOW;
  /** The peer's SETTINGS_MAX_FRAME_SIZE. */
  maxFrameSize: number = DEFAULT_FRAME_SIZE;

  /** The socket stays the caller's. */
  constructor(socket: Socket) {
    this.#socket = socket;
    this.#outlet = new Outlet(socket, () => this.flush());
  }

  /** Sends a frame that no window holds back. */
  control(frame: Buffer): void {
    this.#control.push(frame);
    this.#sendControl();
    if (this.#control.length > MAX_CONTROL_FRAMES) {
      this.#socket.destroy(new Error('the peer does not read the answers to what it sends'));
      return;
    }
    this.#plan();
  }

  /** Whether there is room for as much as is read of a socket at a time. */
  get isRoomy(): boolean {
    return this.#outlet.hasRoomFor(READ_SIZE);
  }

  /** Sends data of a stream that has none waiting, as much as can go now. How much that was. */
  data(stream: TunnelStream, bytes: Buffer): number {
    let taken = 0;
    // What waits in front may be the headers of this stream.
    while (taken < bytes.length && this.#control.length === 0 && this.#makeRoom()) {
      const size = Math.min(bytes.length - taken, stream.sendWindow, this.#roomForData());
      if (size <= 0) break;
      const { batch, at } = this.#beginData(stream.id, size, 0);
      bytes.copy(batch, at, taken, taken + size);
      stream.sendWindow -= size;
      taken += size;
    }
    if (taken > 0) this.#plan();
    return taken;
  }

  /** A stream has data waiting, its end to send, or more window. */
  schedule(stream: TunnelStream): void {
    if (!stream.wantsToSend) return;
    if (!stream.isScheduled) {
      stream.isScheduled = true;
      this.#scheduled.push(stream);
    }
    this.#plan();
  }

  /** The connection's window has grown. */
  resume(): void {
    if (this.#scheduled.length > 0) this.#plan();
  }

  /** Sends now what can be sent. */
  flush(): void {
    this.#isFlushPlanned = false;
    if (this.#socket.destroyed) return;
    this.#sendControl();
    if (this.#control.length === 0) this.#sendScheduled();
    this.#outlet.flush();
  }

  #plan(): void {
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    setImmediate(() => this.flush());
  }

  #sendControl(): void {
    let sent = 0;
    for (const frame of this.#control) {
      if (this.#outlet.room < frame.length) this.#outlet.flush();
      if (this.#outlet.room < frame.length) break;
      this.#outlet.append(frame);
      sent += 1;
    }
    this.#control.splice(0, sent);
  }

  /** A stream that could send more goes to the end of the line. */
  #sendScheduled(): void {
    const heldBack: TunnelStream[] = [];
    while (this.#scheduled.length > 0 && this.#makeRoom()) {
      const stream = this.#scheduled.shift();
      if (stream === undefined) break;
      if (!stream.wantsToSend) {
        stream.isScheduled = false;
        continue;
      }
      const limit = Math.min(this.#roomForData(), TURN_SIZE);
      const { bytes, end } = stream.plan(limit);
      if (bytes > 0 || end) {
        const { batch, at } = this.#beginData(stream.id, bytes, end ? FLAG.END_STREAM : 0);
        stream.take(batch, at, bytes);
      }
      const hasMore = bytes === limit && !end;
      // Told of room it may write on, and end, at once: then it gets in line by itself.
      stream.isScheduled = false;
      const waitsForRoom = stream.sent(end);
      if (stream.isScheduled) continue;
      stream.isScheduled = hasMore || waitsForRoom;
      if (hasMore && limit > 0) this.#scheduled.push(stream);
      else if (stream.isScheduled) heldBack.push(stream);
    }
    for (const stream of heldBack) this.#scheduled.push(stream);
  }

  /** Whether there is room for a frame, after what is in the way has been sent. */
  #makeRoom(): boolean {
    if (this.#outlet.room <= FRAME_HEADER_SIZE) this.#outlet.flush();
    return this.#outlet.room > FRAME_HEADER_SIZE;
  }

  /** Bytes of payload that a DATA frame can have now; windows of streams are not counted. */
  #roomForData(): number {
    return Math.max(0, Math.min(this.#outlet.room - FRAME_HEADER_SIZE, this.window, this.maxFrameSize));
  }

  /** Begins a DATA frame in the batch; the caller writes its payload at the returned place. */
  #beginData(
    streamId: number,
    length: number,
    flags: number,
  ): { readonly batch: Buffer; readonly at: number } {
    const { batch, at } = this.#outlet.extend(FRAME_HEADER_SIZE + length);
    writeFrameHeader(batch, at, { length, type: FRAME.DATA, flags, streamId });
    this.window -= length;
    return { batch, at: at + FRAME_HEADER_SIZE };
  }
}
