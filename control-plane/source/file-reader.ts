import { type BigIntStats, constants, type Dirent } from 'node:fs';
import { type FileHandle, open, readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Finding } from './entry.ts';
import { readText } from './read-text.ts';
import type { FileState } from './settle.ts';

/** Larger than any list of objects that a person would keep in one file. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

/** A file that was written to so shortly before it was read may have been written to once more unseen. */
const UNSETTLED_MS = 100;

/** So long, a file that has become empty may be about to be written. */
const EMPTY_MS = 1000;

/** @see createFileReader */
export interface FileReader {
  /** Reads what has changed since it was last called. */
  read(): Promise<Reading>;
}

/** The files as they are. */
export interface Reading {
  readonly files: readonly FileState[];
  /** Folders in which a change may change this. */
  readonly folders: ReadonlySet<string>;
  /** Whether a file has to be looked at once more, as it may still be being written. */
  readonly isUnsettled: boolean;
}

/** A path that was given, or what was found under it. */
interface Place {
  /** Absolute. */
  readonly path: string;
  /** As messages name it. */
  readonly shown: string;
}

/** What tells one version of a file from another. */
interface Stamp {
  readonly signature: string;
  readonly size: number;
  readonly modifiedAtMs: number;
}

interface CachedFile extends Stamp {
  readonly readAtMs: number;
  readonly text: string;
  readonly state: FileState;
}

/**
 * Reads the YAML and JSON files of folders, with those of their folders, and single files of any name. Of a folder's
 * entries those that begin with a dot are left out. Symbolic links are followed, each folder is read once.
 */
export function createFileReader(paths: readonly string[]): FileReader {
  let cache = new Map<string, CachedFile>();
  return {
    async read(): Promise<Reading> {
      const walk = new Walk();
      for (const path of paths) await walk.visit({ path: resolve(path), shown: path });
      const next = new Map<string, CachedFile>();
      const files: FileState[] = [...walk.faults];
      let isUnsettled = false;
      for (const place of walk.files) {
        const file = await readFile(place, cache.get(place.path));
        next.set(place.path, file);
        files.push(file.state);
        isUnsettled ||= !isSettled(file);
      }
      cache = next;
      return { files, folders: walk.folders, isUnsettled };
    },
  };
}

/** Finds files, in the order of their names. */
class Walk {
  readonly files: (Place & Stamp)[] = [];
  readonly folders = new Set<string>();
  readonly faults: FileState[] = [];
  readonly #visitedFolders = new Set<string>();
  readonly #visitedFiles = new Set<string>();

  async visit(place: Place): Promise<void> {
    try {
      const found = await stat(place.path, { bigint: true });
      if (found.isDirectory()) await this.#visitFolder(place, found);
      else {
        this.folders.add(dirname(place.path));
        this.#visitFile(place, found);
      }
    } catch (error) {
      this.folders.add(await nearestFolder(place.path));
      this.faults.push(unreadable(place, error));
    }
  }

  #visitFile(place: Place, found: BigIntStats): void {
    if (this.#visitedFiles.has(place.path)) return;
    this.#visitedFiles.add(place.path);
    if (found.isFile()) this.files.push({ ...place, ...stampOf(found) });
    else this.faults.push(fault(place, 'is not a regular file'));
  }

  async #visitFolder(place: Place, found: BigIntStats): Promise<void> {
    const id = `${found.dev}:${found.ino}`;
    if (this.#visitedFolders.has(id)) return;
    this.#visitedFolders.add(id);
    this.folders.add(place.path);
    const entries = await readdir(place.path, { withFileTypes: true });
    entries.sort((one, other) => (one.name < other.name ? -1 : 1));
    for (const entry of entries) await this.#visitEntry(place, entry);
  }

  async #visitEntry(folder: Place, entry: Dirent): Promise<void> {
    const place = { path: join(folder.path, entry.name), shown: join(folder.shown, entry.name) };
    if (entry.name.startsWith('.')) return;
    if (!(entry.isDirectory() || entry.isSymbolicLink() || isObjectFile(entry.name))) return;
    try {
      const found = await stat(place.path, { bigint: true });
      if (found.isDirectory()) await this.#visitFolder(place, found);
      else if (isObjectFile(entry.name)) this.#visitFile(place, found);
    } catch (error) {
      // Gone since the folder was listed, or a link to nowhere.
      const isGone = (error as NodeJS.ErrnoException).code === 'ENOENT' && !entry.isSymbolicLink();
      if (!isGone && (entry.isDirectory() || isObjectFile(entry.name)))
        this.faults.push(unreadable(place, error));
    }
  }
}

function isObjectFile(name: string): boolean {
  return /\.(yaml|yml|json)$/.test(name);
}

async function nearestFolder(path: string): Promise<string> {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    try {
      return await realpath(folder);
    } catch {
      if (folder === dirname(folder)) return folder;
    }
  }
}

async function readFile(place: Place & Stamp, cached: CachedFile | undefined): Promise<CachedFile> {
  const readAtMs = Date.now();
  if (cached?.signature === place.signature && isSettled(cached)) return cached;
  let handle: FileHandle | undefined;
  try {
    // Non-blocking, lest it be a pipe by now.
    handle = await open(place.path, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await handle.stat({ bigint: true });
    const stamp = { ...stampOf(found), readAtMs };
    const refusal = found.isFile() ? tooLarge(stamp) : 'is not a regular file';
    if (refusal !== undefined) return { ...stamp, text: '', state: fault(place, refusal) };
    const text = await handle.readFile('utf8');
    const isNotYetWritten = text === '' && readAtMs - stamp.modifiedAtMs < EMPTY_MS;
    if (cached && (cached.text === text || isNotYetWritten)) return { ...cached, ...stamp };
    return { ...stamp, text, state: { path: place.path, ...readText(place.shown, text), findings: [] } };
  } catch (error) {
    return { ...place, readAtMs, text: '', state: unreadable(place, error) };
  } finally {
    await handle?.close();
  }
}

function isSettled({ readAtMs, modifiedAtMs, size, text }: CachedFile): boolean {
  const isAwaited = size === 0 && text !== '';
  return !isAwaited && readAtMs - modifiedAtMs >= UNSETTLED_MS;
}

function tooLarge({ size }: Stamp): string | undefined {
  return size > MAX_FILE_BYTES ? 'is larger than 16 MiB; split it' : undefined;
}

function stampOf(found: BigIntStats): Stamp {
  const { dev, ino, size, mtimeNs, ctimeNs, ctimeMs } = found;
  const signature = [dev, ino, size, mtimeNs, ctimeNs].join(':');
  return { signature, size: Number(size), modifiedAtMs: Number(ctimeMs) };
}

const REASONS: ReadonlyMap<string | undefined, string> = new Map([
  ['ENOENT', 'is not there'],
  ['EACCES', 'may not be read by this user'],
  ['ELOOP', 'is a symbolic link that leads to itself'],
]);

function unreadable(place: Place, error: unknown): FileState {
  const { code, message } = error as NodeJS.ErrnoException;
  return fault(place, REASONS.get(code) ?? `cannot be read: ${message}`);
}

function fault(place: Place, reason: string): FileState {
  const position = { file: place.shown, line: 0, column: 0 };
  const message = `${basename(place.shown)} ${reason}`;
  const finding: Finding = { object: place.shown, position, path: '', message, severity: 'error' };
  return { path: place.path, entries: [], isComplete: false, findings: [finding] };
}
