import { constants } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Where lines go, and who is told of those that did not get there. */
export interface AccessLogOptions {
  /** Absent: standard output. */
  readonly path?: string;
  /** Lines that could not be written, or did not fit, and why (a constant phrase or the error's message). */
  readonly onDropped: (lines: number, reason: string) => void;
  /** Characters that may wait for the disk; default 8 Mi. What comes while they wait is dropped. */
  readonly maxWaiting?: number;
}

/** Appends lines to a file, in batches, never making anybody wait. */
export interface AccessLogWriter {
  /** Takes lines without line ends. */
  readonly write: (lines: readonly string[]) => void;
  /** Opens the file anew before the next batch, so that it may have been moved away. */
  readonly reopen: () => void;
  /** Writes what waits and closes the file. */
  readonly close: () => Promise<void>;
}

const APPEND_OWN = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT;
const OWNER_ONLY = 0o600;

/** A writer; it opens its file with the first batch. */
export function createAccessLogWriter(options: AccessLogOptions): AccessLogWriter {
  const maxWaiting = options.maxWaiting ?? 8 * 1024 * 1024;
  let waiting: string[] = [];
  let waitingLength = 0;
  let file: FileHandle | undefined;
  let isStale = false;
  let writing: Promise<void> | undefined;

  async function append(text: string): Promise<void> {
    if (options.path === undefined) return print(text);
    if (isStale) await closeFile();
    isStale = false;
    file ??= await openForAppending(options.path);
    await file.appendFile(text);
  }

  async function closeFile(): Promise<void> {
    const open = file;
    file = undefined;
    await open?.close();
  }

  /** Takes turns with `write`: lines that come while a batch is written are the next batch. */
  async function drain(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting;
      waiting = [];
      waitingLength = 0;
      try {
        await append(`${batch.join('\n')}\n`);
      } catch (error) {
        options.onDropped(batch.length, error instanceof Error ? error.message : String(error));
        isStale = true;
      }
    }
    writing = undefined;
  }

  return {
    write: (lines) => {
      if (lines.length === 0) return;
      if (waitingLength > maxWaiting) {
        options.onDropped(lines.length, 'the disk is too slow');
        return;
      }
      for (const line of lines) {
        waiting.push(line);
        waitingLength += line.length;
      }
      writing ??= drain();
    },
    reopen: () => {
      isStale = true;
    },
    close: async () => {
      await writing;
      await closeFile();
    },
  };
}

async function openForAppending(path: string): Promise<FileHandle> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  return open(path, APPEND_OWN, OWNER_ONLY);
}

async function print(text: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  process.stdout.write(text, (error) => (error ? reject(error) : resolve()));
  await promise;
}
