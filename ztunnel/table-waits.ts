import type { Tables } from './tables/tables.ts';

/** Waits for what the tables do not hold yet. Told of each change by whoever applies updates. */
export class TableWaits {
  readonly #tables: Tables;
  readonly #checks = new Set<() => void>();

  constructor(tables: Tables) {
    this.#tables = tables;
  }

  /** The tables have changed. */
  notify(): void {
    for (const check of [...this.#checks]) check();
  }

  /** What `find` finds, now or after a change; undefined when it has found nothing in time. */
  until<T>(find: (tables: Tables) => T | undefined, timeoutMs: number): Promise<T | undefined> {
    const found = find(this.#tables);
    if (found !== undefined) return Promise.resolve(found);
    const { promise, resolve } = Promise.withResolvers<T | undefined>();
    const settle = (value: T | undefined): void => {
      clearTimeout(timer);
      this.#checks.delete(check);
      resolve(value);
    };
    const check = (): void => {
      const value = find(this.#tables);
      if (value !== undefined) settle(value);
    };
    const timer = setTimeout(() => settle(undefined), timeoutMs);
    this.#checks.add(check);
    return promise;
  }
}
