/** Runs something after things have calmed down. Disposing of it cancels what is due; what runs is waited for. */
export interface Debounce extends AsyncDisposable {
  /** Something happened. */
  readonly touch: () => void;
}

/**
 * Runs `action` once it has been quiet for `quietMs`, at the latest `capMs` after the first touch; never twice at a
 * time. The action catches its own errors.
 */
export function debounce(options: {
  readonly quietMs: number;
  readonly capMs: number;
  readonly action: () => void | Promise<void>;
}): Debounce {
  let timer: NodeJS.Timeout | undefined;
  let firstTouch: number | undefined;
  let running: Promise<void> | undefined;
  let isDisposed = false;

  const run = async (): Promise<void> => {
    timer = undefined;
    firstTouch = undefined;
    await options.action();
    running = undefined;
    if (firstTouch !== undefined) arm();
  };
  const arm = (): void => {
    if (running !== undefined || isDisposed) return;
    const now = performance.now();
    firstTouch ??= now;
    clearTimeout(timer);
    const delay = Math.max(0, Math.min(options.quietMs, firstTouch + options.capMs - now));
    timer = setTimeout(() => {
      running = run();
    }, delay);
  };
  return {
    touch: () => {
      if (running !== undefined) firstTouch ??= performance.now();
      arm();
    },
    [Symbol.asyncDispose]: async () => {
      isDisposed = true;
      clearTimeout(timer);
      await running;
    },
  };
}
