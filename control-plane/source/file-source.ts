import { join, resolve } from 'node:path';
import { createFileReader, type FileReader, type Reading } from './file-reader.ts';
import { type FolderWatch, watchFolders } from './folder-watch.ts';
import { type LastGood, openLastGood } from './last-good.ts';
import { createLatest, type Latest } from './latest.ts';
import type { ObjectSet, Problem } from './objects.ts';
import { type FileState, hasChanged, type KeptObjects, settle } from './settle.ts';
import type { Source } from './source.ts';

const QUIET_MS = 100;
const CAP_MS = 1000;
const POLL_MS = 2000;

/** @see openFileSource */
export interface FileSourceOptions {
  /** Files, and folders with all YAML and JSON files in them. One that is not there may appear later. */
  readonly paths: readonly string[];
  /** Where last good versions are kept, in `config/objects.json`. Absent: only as long as the source is open. */
  readonly stateDirectory?: string;
}

/**
 * Reads files, and reads them again when they change: after 100 ms of quiet, at the latest after a second. Every
 * object by itself stays at its last good version while what is written of it is wrong, also across a restart.
 */
export async function openFileSource(options: FileSourceOptions): Promise<Source> {
  const { paths, stateDirectory } = options;
  const lastGood =
    stateDirectory === undefined ? undefined : openLastGood(join(stateDirectory, 'config/objects.json'));
  const loaded = await lastGood?.load(paths.map((path) => resolve(path)));
  const source = new FileSource(createFileReader(paths), lastGood, loaded?.kept ?? new Map());
  await source.open(loaded?.problems ?? []);
  return source;
}

class FileSource implements Source {
  readonly #reader: FileReader;
  readonly #lastGood: LastGood | undefined;
  readonly #watch: FolderWatch;
  readonly #latest: Latest = createLatest({ objects: new Map(), broken: [], problems: [], unread: [] });
  #kept: KeptObjects;
  #files: readonly FileState[] = [];
  #loadProblems: readonly Problem[] = [];

  constructor(reader: FileReader, lastGood: LastGood | undefined, kept: KeptObjects) {
    this.#reader = reader;
    this.#lastGood = lastGood;
    this.#kept = kept;
    const onDue = (): Promise<void> => this.#readAgain();
    this.#watch = watchFolders({ quietMs: QUIET_MS, capMs: CAP_MS, pollMs: POLL_MS, onDue });
  }

  async open(loadProblems: readonly Problem[]): Promise<void> {
    this.#loadProblems = loadProblems;
    const reading = await this.#reader.read();
    this.#follow(reading);
    await this.#take(reading.files);
  }

  async #readAgain(): Promise<void> {
    const reading = await this.#reader.read();
    this.#follow(reading);
    if (hasChanged(this.#files, reading.files)) await this.#take(reading.files);
  }

  #follow({ folders, isUnsettled }: Reading): void {
    this.#watch.follow(folders);
    if (isUnsettled) this.#watch.again(QUIET_MS);
  }

  async #take(files: readonly FileState[]): Promise<void> {
    const { set, kept } = settle(files, this.#kept);
    this.#files = files;
    this.#kept = kept;
    const storeProblems = (await this.#lastGood?.store(kept)) ?? [];
    const problems = [...set.problems, ...this.#loadProblems, ...storeProblems];
    this.#latest.set({ ...set, problems });
  }

  current(): ObjectSet {
    return this.#latest.current();
  }

  changes(signal: AbortSignal): AsyncIterable<ObjectSet> {
    return this.#latest.changes(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watch[Symbol.asyncDispose]();
    this.#latest.end();
  }
}
