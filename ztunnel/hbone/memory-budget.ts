import { BATCH_BYTES } from './batch-size.ts';

/**
 * Memory of this process in which bytes of connections wait, over all of its threads: batches on their way out, and queues of
 * streams and sockets whose reader is slow. What happens as it fills is in docs/decisions/0025-limits.md:
 *
 *     0 .. 1/8      windows are as configured
 *     1/8 ..        streams of sessions in which something waits get small windows, writers wait earlier
 *     1/2 ..        what is received is given back to the peer's window only as it is read
 *     1             who holds most is cut
 */
export interface MemoryBudget {
  readonly bytes: number;
  /** Batches that are in use, as 32-bit numbers that threads share: in all, then of each worker. */
  readonly used: SharedArrayBuffer;
}

/** Default of a process. */
export const MEMORY_BUDGET_BYTES: number = 512 * 1024 * 1024;

/** One for the threads of a process, of which so many are workers that may crash. */
export function createMemoryBudget(bytes: number = MEMORY_BUDGET_BYTES, workers = 0): MemoryBudget {
  return { bytes, used: new SharedArrayBuffer((1 + workers) * Int32Array.BYTES_PER_ELEMENT) };
}

let used = new Int32Array(createMemoryBudget().used);
/** Where in it this thread's own are; 0: they are not told apart. */
let own = 0;
let most = MEMORY_BUDGET_BYTES / BATCH_BYTES;
const watchers = new Set<(bytes: number) => void>();
let onExhausted: () => void = () => undefined;
let isExhaustionNoted = false;

/** This thread counts with others from now on. To be called before it carries anything. @param worker which one it is, if it is one */
export function shareMemoryBudget(budget: MemoryBudget, worker?: number): void {
  used = new Int32Array(budget.used);
  own = worker === undefined || worker + 1 >= used.length ? 0 : worker + 1;
  most = Math.max(8, Math.floor(budget.bytes / BATCH_BYTES));
}

/** A worker has crashed: what it used is free, though nobody gave it back. To be called by another thread, when it has ended. */
export function forgetWorkerMemory(budget: MemoryBudget, worker: number): void {
  const counts = new Int32Array(budget.used);
  if (worker + 1 < counts.length) Atomics.sub(counts, 0, Atomics.exchange(counts, worker + 1, 0));
}

/** Has somebody free memory of this thread when it is all used, outside of whatever used the last. */
export function whenExhausted(free: () => void): void {
  onExhausted = free;
}

/** Batches have been taken; negative: given back. */
export function countBatches(count: number): void {
  if (own > 0) used[own] = (used[own] ?? 0) + count;
  if (Atomics.add(used, 0, count) + count <= most || count < 0 || isExhaustionNoted) return;
  isExhaustionNoted = true;
  setImmediate(() => {
    isExhaustionNoted = false;
    onExhausted();
  });
}

/** Bytes that have to be freed for it to be in order again; 0: none. */
export function excessBytes(): number {
  const count = Atomics.load(used, 0);
  return count <= most ? 0 : (count - most * 0.75) * BATCH_BYTES;
}

/** Memory in use, in bytes. */
export function usedBytes(): number {
  return Atomics.load(used, 0) * BATCH_BYTES;
}

/** Bytes have come to wait; negative: have been read or dropped. */
export function countWaiting(bytes: number): void {
  if (bytes > 0 && watchers.size > 0) for (const watcher of watchers) watcher(bytes);
}

/** Has somebody told of all bytes that come to wait. @returns ends that */
export function watchWaiting(watcher: (bytes: number) => void): () => void {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

/** Whether streams should hold less than they might. */
export function isScarce(): boolean {
  return Atomics.load(used, 0) > most / 8;
}

/** Whether there is enough again, after it was scarce. */
export function isAmple(): boolean {
  return Atomics.load(used, 0) < most / 16;
}

/** Whether what waits counts against windows. */
export function isOverBudget(): boolean {
  return Atomics.load(used, 0) > most / 2;
}
