/** What of something that runs dry is there, and fills up again with time. */
export interface Budget {
  /** Takes that much, be it there or not. */
  readonly spend: (amount: number) => void;
  /** Whether nothing is left. */
  readonly isSpent: () => boolean;
}

/**
 * Holds `most` at first and at most; `perSecond` of it comes back each second. What was taken beyond that has to come back
 * first, but never more than `most`.
 */
export function createBudget(
  limits: { readonly most: number; readonly perSecond: number },
  nowMs: () => number = () => performance.now(),
): Budget {
  let left = limits.most;
  let since = nowMs();
  const refill = (): void => {
    const now = nowMs();
    left = Math.min(limits.most, left + ((now - since) / 1000) * limits.perSecond);
    since = now;
  };
  return {
    spend: (amount) => {
      refill();
      left = Math.max(-limits.most, left - amount);
    },
    isSpent: () => {
      refill();
      return left <= 0;
    },
  };
}

/** Milliseconds of processor time that this thread has used; a thread that has to wait for a processor uses none. */
export function processorMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
