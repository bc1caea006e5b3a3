/**
 * Bytes that streams of this thread hold because their readers are slow, in total. Up to the budget, a connection's window is
 * given back as data arrives, so that a stalled stream holds up no other of its connection. Beyond it, only as data is
 * read: connections with stalled streams then come to a stop at their window (16 MiB each), and memory stays bounded.
 */
const BUDGET_BYTES = 256 * 1024 * 1024;

let waitingBytes = 0;
const watchers = new Set<(bytes: number) => void>();

/** Bytes have come to wait; negative: have been read or dropped. */
export function countWaiting(bytes: number): void {
  waitingBytes += bytes;
  if (bytes > 0 && watchers.size > 0) for (const watcher of watchers) watcher(bytes);
}

/** Has somebody told of all bytes that come to wait. @returns ends that */
export function watchWaiting(watcher: (bytes: number) => void): () => void {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

export function isOverBudget(): boolean {
  return waitingBytes > BUDGET_BYTES;
}
