import { BATCH_BYTES } from './batch-size.ts';
import { giveBack, takeBatch } from './batches.ts';

/** First block of a queue that may stay short. */
const SMALL_BLOCK = 8 * 1024;

interface Block {
  readonly memory: Buffer;
  start: number;
  end: number;
}

/** Bytes that wait. They are copied in, into memory that is used again. */
export class ByteQueue {
  #blocks: Block[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(bytes: Buffer): void {
    let taken = 0;
    while (taken < bytes.length) {
      const block = this.#blockWithRoom(bytes.length - taken);
      const size = bytes.copy(block.memory, block.end, taken);
      block.end += size;
      taken += size;
    }
    this.#length += bytes.length;
  }

  /** Bytes of memory that it has for them. */
  get memory(): number {
    let bytes = 0;
    for (const { memory } of this.#blocks) bytes += memory.length;
    return bytes;
  }

  /** The first bytes, as many as lie in one piece; empty when there are none. Good until the queue changes. */
  peek(): Buffer {
    const [first] = this.#blocks;
    return first === undefined ? Buffer.alloc(0) : first.memory.subarray(first.start, first.end);
  }

  /** Copies the first bytes out and removes them: no more than there are. */
  take(into: Buffer, at: number, bytes: number): void {
    for (let left = bytes; left > 0; ) {
      const size = this.peek().copy(into, at + bytes - left, 0, left);
      if (size === 0) break;
      this.drop(size);
      left -= size;
    }
  }

  /** Removes the first bytes: no more than `peek` shows. */
  drop(bytes: number): void {
    const [first] = this.#blocks;
    if (first === undefined) return;
    first.start += bytes;
    this.#length -= bytes;
    if (first.start === first.end) release(this.#blocks.shift());
  }

  /**
   * Removes the first bytes, as many as lie in one piece, and hands them to `use`, which may do anything to the queue. They
   * are good for the length of the call.
   */
  shift(use: (bytes: Buffer) => void): void {
    const block = this.#blocks.shift();
    if (block === undefined) return;
    this.#length -= block.end - block.start;
    use(block.memory.subarray(block.start, block.end));
    release(block);
  }

  clear(): void {
    for (const block of this.#blocks) release(block);
    this.#blocks = [];
    this.#length = 0;
  }

  #blockWithRoom(wanted: number): Block {
    const last = this.#blocks.at(-1);
    if (last !== undefined && last.end < last.memory.length) return last;
    const isSmall = last === undefined && wanted <= SMALL_BLOCK;
    const memory = isSmall ? Buffer.allocUnsafeSlow(SMALL_BLOCK) : takeBatch();
    const block = { memory, start: 0, end: 0 };
    this.#blocks.push(block);
    return block;
  }
}

function release(block: Block | undefined): void {
  if (block?.memory.length === BATCH_BYTES) giveBack(block.memory);
}
