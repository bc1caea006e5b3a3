import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { CliError } from '../cli-error.ts';
import { meshName, podFileName, type WorkloadRef } from './names.ts';

/** A mesh's folder: the one place on disk that it writes to. Every file in it has one writer, and is replaced by rename. */
export interface StateFolder {
  /** Real path. */
  readonly path: string;
  /** `tulle-1a2b3c`: what all of this mesh is called by on this host. */
  readonly mesh: string;
}

/** Says that a folder is a mesh's: without it nothing in a folder is ever removed. */
const MARKER = '.tulle-state';

/** What a state folder holds; anything else in a folder means that it is not one. */
const ENTRIES: ReadonlySet<string> = new Set([
  MARKER,
  'ca',
  'tokens',
  'nodes',
  'pods',
  'config',
  'run',
  'logs',
  'issued.sqlite',
  'issued.sqlite-shm',
  'issued.sqlite-wal',
  'issued.sqlite-journal',
  'fabric.json',
  'up.lock',
]);

/** What {@link writeAtomic} may leave behind. */
const TEMPORARY = /^\..+\.\d+$/;

/**
 * Makes the folder (0700) unless it is there.
 * @throws CliError when it cannot be made or is a folder of something else.
 */
export function createStateFolder(path: string): StateFolder {
  try {
    makeFolder(resolve(path));
  } catch (cause) {
    throw new CliError(`cannot make the state folder ${path}`, { cause });
  }
  const foreign = readdirSync(path).find((name) => !ENTRIES.has(name) && !TEMPORARY.test(name));
  if (foreign !== undefined) {
    throw new CliError(
      `${path} is not a state folder: it holds ${foreign}; give another folder with --state, or an empty one`,
    );
  }
  if (!existsSync(join(path, MARKER))) markAsState(path);
  chmodSync(path, 0o700);
  for (const name of ['tokens', 'nodes', 'pods', 'config', 'run', 'logs']) {
    mkdirSync(join(path, name), { recursive: true, mode: 0o700 });
  }
  return describe(path);
}

/** Of a folder that is new, or that an operator has put an authority into. */
function markAsState(path: string): void {
  const present = readdirSync(path);
  if (present.length > 0 && !existsSync(join(path, 'ca', 'root.pem'))) {
    throw new CliError(
      `${path} is not a state folder: it holds ${present[0]} and was not made by tulle; give another folder with --state, or an empty one`,
    );
  }
  writeFileSync(
    join(path, MARKER),
    'the state of a Tulle mesh: tulle up and tulle down change and remove what is here\n',
  );
}

/** Parents included. (Node.js itself, asked for them, never comes back from a place like /proc where nothing can be made.) */
function makeFolder(path: string): void {
  if (existsSync(path)) return;
  makeFolder(dirname(path));
  mkdirSync(path, { mode: 0o700 });
}

/** The folder if it is there and a mesh's. */
export function findStateFolder(path: string): StateFolder | undefined {
  return isStateFolder(path) ? describe(path) : undefined;
}

/** Whether a folder is there and a mesh's. */
export function isStateFolder(path: string): boolean {
  return existsSync(join(path, MARKER));
}

/** The folder as it was before somebody deleted it: what its mesh is called by on this host comes of its path alone. */
export function deletedStateFolder(path: string): StateFolder {
  const whole = resolve(path);
  const real = existsSync(whole)
    ? realpathSync(whole)
    : join(deletedStateFolder(dirname(whole)).path, basename(whole));
  return { path: real, mesh: meshName(real) };
}

function describe(path: string): StateFolder {
  const real = realpathSync(resolve(path));
  return { path: real, mesh: meshName(real) };
}

/** Longest path of a Unix socket, in bytes. */
export const LONGEST_SOCKET_PATH: 107 = 107;

/** Socket of the supervisor. */
export function supervisorSocket(state: StateFolder): string {
  return join(state.path, 'run', 'tulle.sock');
}

export function controlPlaneSocket(state: StateFolder): string {
  return join(state.path, 'run', 'control-plane.sock');
}

/** `run/NODE`: sockets and reports of a node. */
export function nodeRunFolder(state: StateFolder, node: string): string {
  return join(state.path, 'run', node);
}

export function nodeFile(state: StateFolder, node: string): string {
  return join(state.path, 'nodes', `${node}.json`);
}

export function tokenFile(state: StateFolder, node: string): string {
  return join(state.path, 'tokens', node);
}

export function podFile(state: StateFolder, pod: WorkloadRef): string {
  return join(state.path, 'pods', `${podFileName(pod)}.json`);
}

/** The resolver configuration that a workload sees as /etc/resolv.conf. */
export function resolverFile(state: StateFolder, pod: WorkloadRef): string {
  return join(state.path, 'pods', `${podFileName(pod)}.resolv.conf`);
}

/** Where a process's output goes: `control-plane`, `ztunnel-n1`, `node-agent-n1`. */
export function logFile(state: StateFolder, process: string): string {
  return join(state.path, 'logs', `${process}.log`);
}

/** Replaces a file whole: a reader sees the old text or the new one, never a part. @throws Error of the disk: the old one stays */
export function writeAtomic(file: string, text: string, mode = 0o600): void {
  const next = join(dirname(file), `.${basename(file)}.${process.pid}`);
  try {
    writeFileSync(next, text, { mode });
    renameSync(next, file);
  } catch (error) {
    rmSync(next, { force: true });
    throw error;
  }
}

/** What the control plane takes as a credential, in characters. */
const SHORTEST_TOKEN = 32;

/** Makes a credential (0600) where there is none, or less than one, as a power cut may leave. */
export function ensureToken(file: string): void {
  if (readText(file).length < SHORTEST_TOKEN) writeAtomic(file, randomBytes(32).toString('base64url'));
}

function readText(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8').replaceAll('\0', '').trim() : '';
}

/** Reads JSON that another process replaces by rename; undefined when it is not there or not JSON. */
export function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as unknown;
  } catch {
    return undefined;
  }
}
