import { Http2Error } from './error.ts';
import { type Answer, type StreamOwner, TunnelStream } from './stream.ts';

export interface StreamTableOptions {
  readonly isServer: boolean;
  readonly owner: StreamOwner;
  /** What each stream may be sent before its reader reads. */
  readonly receiveWindow: () => number;
  /** A stream is over. */
  readonly onOver: (stream: TunnelStream) => void;
}

/** The open streams of a connection, and which have been. Clients open odd ones; a server opens none. */
export class StreamTable {
  readonly #options: StreamTableOptions;
  readonly #streams = new Map<number, TunnelStream>();
  /** Highest ID so far. */
  lastId = 0;

  constructor(options: StreamTableOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#streams.size;
  }

  /** A copy: the table may change while it is gone through. */
  all(): readonly TunnelStream[] {
    return [...this.#streams.values()];
  }

  get(streamId: number): TunnelStream | undefined {
    return this.#streams.get(streamId);
  }

  /**
   * The stream; undefined if it is over.
   * @throws Http2Error if it has never been
   */
  find(streamId: number): TunnelStream | undefined {
    const stream = this.#streams.get(streamId);
    if (stream === undefined && ((streamId & 1) === 0 || streamId > this.lastId)) {
      throw new Http2Error(`frame for stream ${streamId}, which has not been opened`, 'PROTOCOL_ERROR');
    }
    return stream;
  }

  /** Whether HEADERS of that ID begin a stream. */
  isNew(streamId: number): boolean {
    return this.#options.isServer && (streamId & 1) === 1 && streamId > this.lastId;
  }

  open(streamId: number, sendWindow: number): TunnelStream {
    const { owner, receiveWindow } = this.#options;
    const stream = new TunnelStream(streamId, owner, { sendWindow, receiveWindow: receiveWindow() });
    this.#streams.set(streamId, stream);
    this.lastId = streamId;
    return stream;
  }

  /** A client's next stream. */
  openNext(sendWindow: number, onAnswer: (answer: Answer) => void): TunnelStream {
    const stream = this.open(this.lastId === 0 ? 1 : this.lastId + 2, sendWindow);
    stream.onAnswer = onAnswer;
    return stream;
  }

  isUnanswered(stream: TunnelStream): boolean {
    return stream.onAnswer !== undefined;
  }

  /** Hands the answer over. */
  answer(stream: TunnelStream, answer: Answer): void {
    const { onAnswer } = stream;
    stream.onAnswer = undefined;
    onAnswer?.(answer);
  }

  /** The stream is over; nobody is told. */
  forget(stream: TunnelStream): void {
    this.#streams.delete(stream.id);
    this.#options.onOver(stream);
  }

  /** The stream is over before its end, and whoever has to do with it is told. */
  drop(stream: TunnelStream, reason: string, isRetryable: boolean): void {
    this.answer(stream, { kind: 'failed', reason, isRetryable });
    this.forget(stream);
    stream.lose(reason);
  }
}
