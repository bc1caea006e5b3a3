import type { ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { callSupervisor } from '#cli/supervisor-client.ts';
import { type CommandResult, endProcess, mustRun, runCommand, startLogged } from './command.ts';
import { eventually } from './eventually.ts';

/** The command line under test. */
export const TULLE: string = join(import.meta.dirname, '../../cli/tulle');

/** What `status -o json` says of a workload; the fields that tests use. */
export interface WorkloadStatus {
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly addresses: readonly string[];
  readonly netns: string;
  readonly cgroup: string;
  readonly pid: number;
  readonly identity: string;
  readonly enrolled: boolean;
  readonly capture: string | null;
  readonly captureReason?: string | null;
  readonly refused?: Readonly<Record<string, number>>;
  readonly certificate: { readonly serial: string; readonly notAfter: string } | null;
}

/** What `status -o json` says of a waypoint; the fields that tests use. */
export interface WaypointStatus {
  readonly namespace: string;
  readonly name: string;
  readonly pid: number | null;
  readonly ready: boolean;
  readonly addresses: readonly string[];
  readonly serves: readonly string[];
  readonly replicas: readonly {
    readonly name: string;
    readonly node: string;
    readonly netns: string;
    readonly addresses: readonly string[];
    readonly pid: number | null;
    readonly ready: boolean;
    readonly restarts: number;
  }[];
}

/** What `status -o json` says; the fields that tests use. */
export interface MeshStatus {
  readonly ready: boolean;
  readonly trustDomain: string;
  readonly controlPlane: {
    readonly pid: number;
    readonly address: string;
    readonly netns: string;
    readonly restarts: number;
  };
  readonly problems: readonly {
    readonly object: string;
    readonly position: string;
    readonly path: string;
    readonly message: string;
    readonly effect: string;
  }[];
  readonly nodes: readonly {
    readonly name: string;
    readonly address: string;
    readonly netns: string;
    readonly ztunnel: { readonly pid: number; readonly ready: boolean; readonly restarts: number } | null;
    readonly xds: readonly {
      readonly type: string;
      readonly sent: number;
      readonly acked: number;
      readonly rejected: readonly unknown[];
    }[];
  }[];
  readonly waypoints: readonly WaypointStatus[];
  readonly workloads: readonly WorkloadStatus[];
  readonly services: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly hostname: string;
    readonly addresses: readonly string[];
  }[];
  readonly policies: readonly {
    readonly object: string;
    readonly enforcedBy: readonly string[];
    readonly acknowledged: string;
    readonly ineffective: readonly { readonly rule: number; readonly reason: string }[];
  }[];
}

/** What `tulle run` is told. */
export interface RunOptions {
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount?: string;
  readonly node?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly ports?: readonly string[];
  readonly command: readonly string[];
  /** Further flags of `tulle run`. */
  readonly flags?: readonly string[];
}

/** A mesh of a test's own, brought up by the command line as a user would. */
export interface Mesh {
  readonly directory: string;
  readonly state: string;
  /** The running `tulle up`. */
  readonly up: ChildProcess;
  /** Starts `tulle up` anew, with the same flags, after it has ended; resolves at its line `mesh ready`. */
  readonly upAgain: () => Promise<void>;
  /** Writes (atomically) a file of the mesh's folder. */
  readonly write: (file: string, yaml: string) => void;
  readonly remove: (file: string) => void;
  /** Starts a workload and waits until `status` shows it (enrolled if its namespace is ambient and `enrolled` is not false). */
  readonly run: (
    options: RunOptions,
    enrolled?: boolean,
  ) => Promise<WorkloadStatus & { readonly child: ChildProcess }>;
  /** Runs a command inside a workload. */
  readonly exec: (workload: string, command: readonly string[], timeoutMs?: number) => Promise<CommandResult>;
  /** Runs the command line with `--state`. */
  readonly tulle: (command: string, ...args: readonly string[]) => Promise<CommandResult>;
  readonly status: () => Promise<MeshStatus>;
  /** Waits until the status fulfils a condition. */
  readonly until: (
    what: string,
    check: (status: MeshStatus) => boolean,
    timeoutMs?: number,
  ) => Promise<MeshStatus>;
  /** Access records of a node's ztunnel so far. */
  readonly accessLog: (node: string) => readonly Readonly<Record<string, unknown>>[];
  readonly logOf: (process: string) => string;
  /** Ends all workloads and the mesh, and removes everything. */
  readonly [Symbol.asyncDispose]: () => Promise<void>;
}

/** How to bring a mesh up. */
export interface MeshOptions {
  /** File name to YAML. */
  readonly files?: Readonly<Record<string, string>>;
  /** Further flags of `tulle up`. */
  readonly flags?: readonly string[];
  /** What starts `tulle up`: a command that takes another one as its arguments. */
  readonly by?: readonly string[];
}

const STATUS_MS = 30_000;

/** Brings a mesh up in a temporary folder; resolves at its line `mesh ready`. */
export async function openMesh(options: MeshOptions = {}): Promise<Mesh> {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-test-'));
  const state = join(directory, 'state');
  const folder = join(directory, 'mesh');
  mkdirSync(folder);
  const write = (file: string, yaml: string): void => {
    writeFileSync(join(directory, `.${file}.new`), yaml);
    renameSync(join(directory, `.${file}.new`), join(folder, file));
  };
  for (const [file, yaml] of Object.entries(options.files ?? {})) write(file, yaml);
  const command = [TULLE, 'up', '--state', state, '-f', folder, ...(options.flags ?? [])];
  const ups = new Ups([...(options.by ?? []), ...command], join(directory, 'up.log'));
  const children: ChildProcess[] = [];
  const dispose = async (): Promise<void> => {
    await Promise.all(children.map((child) => endProcess(child)));
    await endProcess(ups.current);
    await mustRun([TULLE, 'down', '--state', state], 60_000);
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await ups.ready();
  } catch (error) {
    const log = ups.log();
    await dispose();
    throw new Error(`the mesh did not come up:\n${log}`, { cause: error });
  }
  return wire({ directory, state, folder, ups, children, write, dispose });
}

/** One `tulle up` after the other on a state folder. */
class Ups {
  readonly #command: readonly string[];
  readonly #logFile: string;
  #starts = 1;
  current: ChildProcess;

  constructor(command: readonly string[], logFile: string) {
    this.#command = command;
    this.#logFile = logFile;
    this.current = startLogged(command, logFile);
  }

  log(): string {
    return readFileSync(this.#logFile, 'utf8');
  }

  async again(): Promise<void> {
    this.#starts += 1;
    this.current = startLogged(this.#command, this.#logFile);
    await this.ready();
  }

  async ready(): Promise<void> {
    await eventually(
      'mesh ready',
      () => {
        const { exitCode } = this.current;
        if (exitCode !== null) throw new Error(`up ended with ${exitCode}:\n${this.log()}`);
        return this.log().split('mesh ready').length > this.#starts;
      },
      60_000,
    );
  }
}

interface Parts {
  readonly directory: string;
  readonly state: string;
  readonly folder: string;
  readonly ups: Ups;
  readonly children: ChildProcess[];
  readonly write: Mesh['write'];
  readonly dispose: () => Promise<void>;
}

function wire({ directory, state, folder, ups, children, write, dispose }: Parts): Mesh {
  const tulle: Mesh['tulle'] = (command, ...args) =>
    runCommand([TULLE, command, '--state', state, ...args], 60_000);
  // As `tulle status` does, without a process for each look.
  const status = async (): Promise<MeshStatus> =>
    (await callSupervisor(state, { path: '/status', timeoutMs: STATUS_MS })) as MeshStatus;
  return {
    directory,
    state,
    get up() {
      return ups.current;
    },
    upAgain: () => ups.again(),
    write,
    remove: (file) => rmSync(join(folder, file)),
    tulle,
    status,
    run: async (options, enrolled) => {
      const child = startLogged(
        runArguments(state, options),
        join(directory, `run-${options.namespace}-${options.name}.log`),
      );
      children.push(child);
      const workload = await eventually(
        `${options.namespace}/${options.name} runs`,
        async () => {
          const found = (await status()).workloads.find(
            ({ namespace, name }) => namespace === options.namespace && name === options.name,
          );
          return found !== undefined &&
            (enrolled === undefined || found.enrolled === enrolled) &&
            found.pid > 0
            ? found
            : undefined;
        },
        20_000,
      );
      return { ...workload, child };
    },
    exec: (workload, command, timeoutMs) =>
      runCommand([TULLE, 'exec', '--state', state, workload, '--', ...command], timeoutMs),
    until: (what, check, timeoutMs) =>
      eventually(
        what,
        async () => {
          const now = await status();
          return check(now) ? now : undefined;
        },
        timeoutMs,
      ),
    accessLog: (node) => readLines(join(state, 'logs', node, 'access.jsonl')),
    logOf: (process) => readFileSync(join(state, 'logs', `${process}.log`), 'utf8'),
    [Symbol.asyncDispose]: dispose,
  };
}

function runArguments(state: string, options: RunOptions): readonly string[] {
  return [
    TULLE,
    'run',
    ...['--state', state, '--namespace', options.namespace, '--name', options.name],
    ...['--service-account', options.serviceAccount ?? 'default'],
    ...(options.node === undefined ? [] : ['--node', options.node]),
    ...Object.entries(options.labels ?? {}).flatMap(([key, value]) => ['--label', `${key}=${value}`]),
    ...(options.ports ?? []).flatMap((port) => ['--port', port]),
    ...(options.flags ?? []),
    '--',
    ...options.command,
  ];
}

function readLines(file: string): readonly Readonly<Record<string, unknown>>[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return [];
  }
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
