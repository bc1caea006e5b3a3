import { type FSWatcher, watch } from 'node:fs';
import { basename } from 'node:path';

/** @see watchFolders */
export interface WatchOptions {
  /** How long nothing must happen before it is reported. */
  readonly quietMs: number;
  /** How long after the first change it is reported at the latest. */
  readonly capMs: number;
  /** How often it is reported without a change, for what the kernel does not tell: targets of links, network mounts. */
  readonly pollMs: number;
  /** Called when something may have changed; the next call comes after its promise. */
  readonly onDue: () => Promise<void>;
}

/** Watches a set of folders, that may change. Disposing of it waits for the call that is under way. */
export interface FolderWatch extends AsyncDisposable {
  /** Watches these folders, without those in them. One that cannot be watched is left to the poll. */
  follow(folders: ReadonlySet<string>): void;
  /** Reports after this time, if nothing else does before. */
  again(delayMs: number): void;
}

/** Begins with no folder; the poll runs. */
export function watchFolders(options: WatchOptions): FolderWatch {
  const { quietMs, capMs, pollMs, onDue } = options;
  const watchers = new Map<string, FSWatcher>();
  let firstChangeMs: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  let dueAtMs = Number.POSITIVE_INFINITY;
  let running: Promise<void> | undefined;
  let isClosed = false;

  function schedule(atMs: number): void {
    if (isClosed) return;
    clearTimeout(timer);
    dueAtMs = atMs;
    timer = setTimeout(fire, Math.max(0, atMs - Date.now()));
  }

  function fire(): void {
    firstChangeMs = undefined;
    dueAtMs = Number.POSITIVE_INFINITY;
    running = report();
  }

  async function report(): Promise<void> {
    await running;
    await onDue();
    if (dueAtMs > Date.now() + pollMs) schedule(Date.now() + pollMs);
  }

  function changed(): void {
    const now = Date.now();
    firstChangeMs ??= now;
    schedule(Math.min(now + quietMs, firstChangeMs + capMs));
  }

  function follow(folders: ReadonlySet<string>): void {
    for (const folder of watchers.keys()) if (!folders.has(folder)) end(folder);
    for (const folder of folders) if (!(watchers.has(folder) || isClosed)) begin(folder);
  }

  function begin(folder: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, (event, name) => {
        // The folder itself is gone or has another name: nothing more is to be seen here.
        if (event === 'rename' && name === basename(folder)) end(folder);
        changed();
      });
      watchers.set(folder, watcher);
      watcher.on('error', () => {
        end(folder);
        changed();
      });
      // What changed between reading the folder and watching it was not seen.
      changed();
    } catch {
      // Left to the poll.
    }
  }

  function end(folder: string): void {
    watchers.get(folder)?.close();
    watchers.delete(folder);
  }

  schedule(Date.now() + pollMs);
  return {
    follow,
    again: (delayMs) => schedule(Math.min(dueAtMs, Date.now() + delayMs)),
    async [Symbol.asyncDispose](): Promise<void> {
      isClosed = true;
      clearTimeout(timer);
      follow(new Set());
      await running;
    },
  };
}
