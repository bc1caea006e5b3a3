/** What a timer of Node.js can wait for, about 24.8 days. One that is to wait longer fires at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** What to give a timer for a time that someone wrote: that many milliseconds, at most as many as timers can wait for. */
export function timerMs(ms: number): number {
  return Math.min(ms, LONGEST_TIMER_MS);
}
