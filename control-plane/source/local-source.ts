import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { createFileReader, type FileReader } from './file-reader.ts';
import { type FolderWatch, watchFolders } from './folder-watch.ts';
import { createLatest, type Latest } from './latest.ts';
import type { MeshObject, ObjectKey, ObjectSet, PodObject } from './objects.ts';
import { type FileState, hasChanged, type KeptObjects, settle } from './settle.ts';
import type { Source } from './source.ts';

const QUIET_MS = 20;
const CAP_MS = 100;
const POLL_MS = 2000;

const REDIRECTION = 'ambient.istio.io/redirection';
const REDIRECTION_FILE = '.redirection';

/** What `pods/NS_NAME.redirection` says of the pod, by `NS_NAME`. */
type Redirections = ReadonlyMap<string, string>;

/**
 * The nodes and pods that run here, as the state folder's `nodes/*.json` and `pods/*.json` have them, within about 20 ms
 * of a change. Whether a pod is redirected is what `pods/NS_NAME.redirection` says, not what its JSON does.
 */
export async function openLocalSource(options: { readonly stateDirectory: string }): Promise<Source> {
  const folders = ['nodes', 'pods'].map((name) => join(options.stateDirectory, name));
  for (const folder of folders) await mkdir(folder, { recursive: true, mode: 0o700 });
  const source = new LocalSource(createFileReader(folders), join(options.stateDirectory, 'pods'));
  await source.open();
  return source;
}

class LocalSource implements Source {
  readonly #reader: FileReader;
  readonly #podFolder: string;
  readonly #watch: FolderWatch;
  readonly #latest: Latest = createLatest({ objects: new Map(), broken: [], problems: [], unread: [] });
  #kept: KeptObjects = new Map();
  #files: readonly FileState[] = [];
  #redirections: Redirections = new Map();

  constructor(reader: FileReader, podFolder: string) {
    this.#reader = reader;
    this.#podFolder = podFolder;
    const onDue = (): Promise<void> => this.#read();
    this.#watch = watchFolders({ quietMs: QUIET_MS, capMs: CAP_MS, pollMs: POLL_MS, onDue });
  }

  async open(): Promise<void> {
    await this.#read();
  }

  async #read(): Promise<void> {
    const { files, folders, isUnsettled } = await this.#reader.read();
    const redirections = await readRedirections(this.#podFolder, this.#redirections);
    this.#watch.follow(folders);
    if (isUnsettled) this.#watch.again(CAP_MS);
    if (!hasChanged(this.#files, files) && isDeepStrictEqual(this.#redirections, redirections)) return;
    const { set, kept } = settle(files, this.#kept);
    this.#files = files;
    this.#kept = kept;
    this.#redirections = redirections;
    this.#latest.set({ ...set, objects: redirected(set.objects, redirections) });
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

/**
 * What cannot be read for another reason than that it is gone (too many open files, a failing disk) is as it was: a pod
 * that is taken for not redirected would be sent plaintext.
 */
async function readRedirections(folder: string, previous: Redirections): Promise<Redirections> {
  const names = await unlessGone(readdir(folder), [], undefined);
  if (names === undefined) return previous;
  const redirections = new Map<string, string>();
  for (const name of names.sort()) {
    if (!name.endsWith(REDIRECTION_FILE)) continue;
    const pod = name.slice(0, -REDIRECTION_FILE.length);
    const text = await unlessGone(readFile(join(folder, name), 'utf8'), '', previous.get(pod) ?? '');
    if (text.trim() !== '') redirections.set(pod, text.trim());
  }
  return redirections;
}

async function unlessGone<Value, Failed>(
  reading: Promise<Value>,
  gone: Value,
  failed: Failed,
): Promise<Value | Failed> {
  try {
    return await reading;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT' ? gone : failed;
  }
}

function redirected(
  objects: ReadonlyMap<ObjectKey, MeshObject>,
  redirections: Redirections,
): ReadonlyMap<ObjectKey, MeshObject> {
  return new Map(
    [...objects].map(([key, object]) => [
      key,
      object.kind === 'Pod' ? redirectedPod(object, redirections) : object,
    ]),
  );
}

function redirectedPod(pod: PodObject, redirections: Redirections): PodObject {
  const annotations = new Map(pod.metadata.annotations);
  const redirection = redirections.get(`${pod.metadata.namespace}_${pod.metadata.name}`);
  if (redirection === undefined) annotations.delete(REDIRECTION);
  else annotations.set(REDIRECTION, redirection);
  return { ...pod, metadata: { ...pod.metadata, annotations } };
}
