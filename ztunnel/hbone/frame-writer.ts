import type { Socket } from 'node:net';
import {
  DEFAULT_FRAME_SIZE,
  DEFAULT_WINDOW,
  FLAG,
  FRAME,
  FRAME_HEADER_SIZE,
  writeFrameHeader,
} from './frames.ts';
import type { TunnelStream } from './stream.ts';

/** Most bytes of DATA that go into one write; TLS and the kernel have no use for more at a time. */
const WRITE_SIZE = 256 * 1024;
/** Most bytes of one stream in a row, so that a busy stream does not keep the others waiting. */
const TURN_SIZE = 64 * 1024;

interface PlannedFrame {
  readonly stream: TunnelStream;
  readonly bytes: number;
  readonly end: boolean;
}

/**
 * Sends the frames of one connection. What is queued in one turn of the event loop leaves in one write: a TLS record and a
 * system call cost more than all the rest. Streams with data take turns.
 */
export class FrameWriter {
  readonly #socket: Socket;
  #control: Buffer[] = [];
  #scheduled: TunnelStream[] = [];
  #isFlushPlanned = false;
  /** The socket has said to wait. */
  #isBlocked = false;
  /** Bytes that the peer takes now, over all streams. */
  window: number = DEFAULT_WINDOW;
  /** The peer's SETTINGS_MAX_FRAME_SIZE. */
  maxFrameSize: number = DEFAULT_FRAME_SIZE;

  /** The socket stays the caller's. */
  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('drain', () => {
      this.#isBlocked = false;
      this.flush();
    });
  }

  /** Queues a frame that no window holds back. */
  control(frame: Buffer): void {
    this.#control.push(frame);
    this.#plan();
  }

  /** A stream has data, its end, or more window. */
  schedule(stream: TunnelStream): void {
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
    if (this.#socket.destroyed || (this.#isBlocked && this.#control.length === 0)) return;
    const frames = this.#isBlocked ? [] : this.#planData();
    const bytes = this.#assemble(frames);
    if (bytes.length === 0) return;
    this.#isBlocked = !this.#socket.write(bytes);
    for (const { stream, end } of frames) stream.sent(end);
    if (!this.#isBlocked) this.resume();
  }

  #plan(): void {
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    setImmediate(() => this.flush());
  }

  /** Chooses what goes into the next write. A stream that could send more goes to the end of the line. */
  #planData(): readonly PlannedFrame[] {
    const frames: PlannedFrame[] = [];
    const heldBack: TunnelStream[] = [];
    for (let room = WRITE_SIZE; room > 0; ) {
      const stream = this.#scheduled.shift();
      if (stream === undefined) break;
      const limit = Math.min(room, this.window, this.maxFrameSize, TURN_SIZE);
      const { bytes, end } = stream.plan(limit);
      const hasMore = bytes === limit && !end;
      stream.isScheduled = hasMore;
      if (hasMore) (limit > 0 ? this.#scheduled : heldBack).push(stream);
      if (bytes === 0 && !end) continue;
      frames.push({ stream, bytes, end });
      room -= bytes;
      this.window -= bytes;
    }
    this.#scheduled.push(...heldBack);
    return frames;
  }

  #assemble(frames: readonly PlannedFrame[]): Buffer {
    const control = this.#control;
    this.#control = [];
    const [only] = control;
    if (frames.length === 0 && control.length === 1 && only !== undefined) return only;
    let size = frames.length * FRAME_HEADER_SIZE;
    for (const frame of control) size += frame.length;
    for (const { bytes } of frames) size += bytes;
    const into = Buffer.allocUnsafe(size);
    let at = 0;
    for (const frame of control) at += frame.copy(into, at);
    for (const { stream, bytes, end } of frames) {
      writeFrameHeader(into, at, {
        length: bytes,
        type: FRAME.DATA,
        flags: end ? FLAG.END_STREAM : 0,
        streamId: stream.id,
      });
      stream.take(into, at + FRAME_HEADER_SIZE, bytes);
      at += FRAME_HEADER_SIZE + bytes;
    }
    return into;
  }
}
