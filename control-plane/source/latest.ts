import type { ObjectSet } from './objects.ts';

/** A value that changes, and those who wait for it. */
export interface Latest {
  current(): ObjectSet;
  set(next: ObjectSet): void;
  /** @see Source.changes */
  changes(signal: AbortSignal): AsyncIterable<ObjectSet>;
  /** Ends all that {@link changes} gave. */
  end(): void;
}

/** A value that changes, from its first on. */
export function createLatest(first: ObjectSet): Latest {
  let value = first;
  let version = 0;
  let hasEnded = false;
  let waiting = Promise.withResolvers<void>();

  function wake(): void {
    waiting.resolve();
    waiting = Promise.withResolvers();
  }

  async function* follow(signal: AbortSignal, from: number): AsyncGenerator<ObjectSet> {
    let seen = from;
    signal.addEventListener('abort', wake);
    try {
      while (!(signal.aborted || hasEnded)) {
        if (version === seen) await waiting.promise;
        else {
          seen = version;
          yield value;
        }
      }
    } finally {
      signal.removeEventListener('abort', wake);
    }
  }

  return {
    current: () => value,
    set(next): void {
      value = next;
      version += 1;
      wake();
    },
    changes: (signal) => follow(signal, version),
    end(): void {
      hasEnded = true;
      wake();
    },
  };
}
