import { isDeepStrictEqual } from 'node:util';
import type { Entry, Finding, GoodEntry } from './entry.ts';
import { namedConfigMaps } from './named-config-maps.ts';
import {
  type BrokenPolicy,
  formatPosition,
  type MeshObject,
  type ObjectKey,
  type ObjectSet,
  type Position,
  type Problem,
} from './objects.ts';

/** A file, or a folder that cannot be listed, as it is now. */
export interface FileState {
  /** Absolute path. */
  readonly path: string;
  readonly entries: readonly Entry[];
  /** Whether nothing else can be in it: false for what could not be read, or not all of it. */
  readonly isComplete: boolean;
  /** What is wrong with it as a whole. */
  readonly findings: readonly Finding[];
}

/** A good version of an object, and the file it was in. */
export interface KeptObject {
  readonly path: string;
  readonly entry: GoodEntry;
}

/** Good versions by key. */
export type KeptObjects = ReadonlyMap<ObjectKey, KeptObject>;

const LAST_GOOD = 'the last good version stays in force';
const DENIES = 'denies what it selects';
const IGNORED = 'ignored';

/**
 * Decides what is in force: the good version of each object, or its last good one. An object is gone when no file
 * has it and every file that had it could be read in full. Of ConfigMaps only those count that something in force names; the
 * others are listed as unread.
 * @param kept what was in force before; it is what the next call has to be given, too
 */
export function settle(
  files: readonly FileState[],
  kept: KeptObjects,
): { readonly set: ObjectSet; readonly kept: KeptObjects } {
  const state = new Settling(kept, namedConfigMaps(inForce(files, kept)));
  for (const { path, entries } of files) for (const entry of entries) state.place(path, entry);
  for (const file of files) if (!file.isComplete) state.retain(file);
  return state.result();
}

/** What is in force, whether or not another object of the same name comes first. */
function* inForce(files: readonly FileState[], kept: KeptObjects): Generator<MeshObject> {
  const wrong = new Set<ObjectKey>();
  for (const { entries } of files)
    for (const entry of entries) {
      if (entry.kind === 'good') yield entry.object;
      else if (entry.kind === 'wrong' && entry.key !== undefined) wrong.add(entry.key);
    }
  const incomplete = files.filter(({ isComplete }) => !isComplete);
  for (const [key, { path, entry }] of kept)
    if (wrong.has(key) || incomplete.some((file) => isWithin(path, file.path))) yield entry.object;
}

interface Taken {
  readonly position: Position;
  /** Undefined for one that is wrong. */
  readonly written: unknown;
}

class Settling {
  readonly #before: KeptObjects;
  readonly #namedConfigMaps: ReadonlySet<ObjectKey>;
  readonly #kept = new Map<ObjectKey, KeptObject>();
  readonly #taken = new Map<ObjectKey, Taken>();
  readonly #broken: BrokenPolicy[] = [];
  readonly #problems: Problem[] = [];
  readonly #unread: { readonly object: string; readonly position: Position }[] = [];

  constructor(before: KeptObjects, configMaps: ReadonlySet<ObjectKey>) {
    this.#before = before;
    this.#namedConfigMaps = configMaps;
  }

  /** Takes in an object that has a name. */
  place(path: string, entry: Entry): void {
    if (entry.kind !== 'unread' && this.#isUnnamed(entry.key)) {
      const position = entry.kind === 'good' ? entry.object.position : entry.position;
      this.#unread.push({ object: entry.key, position });
      // What its fields hold is nothing to us, only the text that they are written in.
      this.#report(
        entry.findings.filter((one) => one.path === ''),
        IGNORED,
      );
      return;
    }
    switch (entry.kind) {
      case 'unread':
        this.#unread.push({ object: entry.object, position: entry.position });
        this.#report(entry.findings, IGNORED);
        return;
      case 'good':
        if (this.#isFirst(entry.key, entry.object.position, entry.written)) {
          this.#kept.set(entry.key, { path, entry });
          this.#report(entry.findings, IGNORED);
        }
        return;
      case 'wrong':
        if (entry.key !== undefined) this.#placeWrong(path, entry.key, entry);
    }
  }

  #isUnnamed(key: ObjectKey | undefined): key is ObjectKey {
    return key?.startsWith('ConfigMap ') === true && !this.#namedConfigMaps.has(key);
  }

  #placeWrong(path: string, key: ObjectKey, entry: Entry & { readonly kind: 'wrong' }): void {
    const last = this.#before.get(key);
    if (!this.#isFirst(key, entry.position, undefined)) this.#report(entry.findings, IGNORED);
    else if (last === undefined) this.#refuse(entry);
    else {
      this.#kept.set(key, { ...last, path });
      this.#report(entry.findings, LAST_GOOD);
    }
  }

  /** Whether no other object has this name; one that is the same in all it says may be there as often as it likes. */
  #isFirst(key: ObjectKey, position: Position, written: unknown): boolean {
    const first = this.#taken.get(key);
    if (first === undefined) {
      this.#taken.set(key, { position, written });
      return true;
    }
    if (written === undefined || !isDeepStrictEqual(first.written, written)) {
      const message = `is there twice, first at ${formatPosition(first.position)}; remove one of them`;
      const problem = { object: key, position, path: '', message, severity: 'error' } as const;
      this.#problems.push({ ...problem, effect: 'the first stays in force' });
    }
    return false;
  }

  /** Keeps what was in a file that could not be read in full, and takes in its objects without names. */
  retain(file: FileState): void {
    const retained = [...this.#before].filter(
      ([key, one]) => isWithin(one.path, file.path) && !this.#taken.has(key) && !this.#isUnnamed(key),
    );
    for (const [key, one] of retained) {
      this.#taken.set(key, { position: one.entry.object.position, written: one.entry.written });
      this.#kept.set(key, one);
    }
    const kinds = new Set<string>(retained.map(([, { entry }]) => entry.object.kind));
    this.#report(file.findings, retained.length > 0 ? LAST_GOOD : IGNORED);
    for (const entry of file.entries) {
      if (entry.kind !== 'wrong' || entry.key !== undefined) continue;
      // A nameless policy may be one of those that were kept.
      if (entry.policy && !kinds.has(entry.policy.kind)) this.#refuse(entry);
      else this.#report(entry.findings, retained.length > 0 ? LAST_GOOD : IGNORED);
    }
  }

  #refuse(entry: Entry & { readonly kind: 'wrong' }): void {
    if (entry.policy) this.#broken.push(entry.policy);
    this.#report(entry.findings, entry.policy ? DENIES : IGNORED);
  }

  #report(findings: readonly Finding[], effect: string): void {
    for (const finding of findings) this.#problems.push({ effect, ...finding });
  }

  result(): { readonly set: ObjectSet; readonly kept: KeptObjects } {
    const objects = new Map<ObjectKey, MeshObject>();
    for (const [key, { entry }] of this.#kept) objects.set(key, entry.object);
    const set = { objects, broken: this.#broken, problems: this.#problems, unread: this.#unread };
    return { set, kept: this.#kept };
  }
}

/** Whether a path is a folder or file itself, or in it. */
export function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith('/') ? folder : `${folder}/`);
}

/** Whether files have changed. A state is the same object as long as its file has not, unless it cannot be read. */
export function hasChanged(before: readonly FileState[], now: readonly FileState[]): boolean {
  return before.length !== now.length || now.some((file, index) => !isSame(file, before[index]));
}

function isSame(now: FileState, before: FileState | undefined): boolean {
  if (now === before) return true;
  const messages = (file: FileState | undefined): string | undefined =>
    file?.findings.map(({ position, message }) => `${position.file} ${message}`).join();
  return (
    now.entries.length === 0 &&
    now.path === before?.path &&
    messages(now) === messages(before) &&
    messages(now) !== ''
  );
}
