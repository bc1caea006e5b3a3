import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { CliError } from '../cli-error.ts';
import { withCompileCache } from '../compile-cache.ts';
import type { MeshStatus } from '../local/mesh-status.ts';
import { callSupervisor } from '../supervisor-client.ts';

/** A workload of the sample mesh. */
interface SampleWorkload {
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  readonly version: string;
  readonly node: string;
  /** Arguments of server.ts; none: it only waits, to make calls from. */
  readonly server: readonly string[];
}

const CART_CALLS = 'http://catalog.shop:8080/';
const WEB_CALLS = 'http://cart.shop:8080/';

/** Three services, two of them with a replica on each node, a new version of one, and somebody who is not in the mesh. */
const WORKLOADS: readonly SampleWorkload[] = [
  shop('web', 1, 'n1', WEB_CALLS),
  shop('cart', 1, 'n1', CART_CALLS),
  shop('cart', 2, 'n2', CART_CALLS),
  shop('catalog', 1, 'n1'),
  shop('catalog', 2, 'n2'),
  { ...shop('catalog', 1, 'n2'), name: 'catalog-v2-1', version: 'v2', server: ['catalog-v2-1'] },
  {
    namespace: 'outside',
    name: 'outsider',
    serviceAccount: 'default',
    version: 'v1',
    node: 'n2',
    server: [],
  },
];

const MAIN = join(import.meta.dirname, '..', 'main.ts');
const SERVER = join(import.meta.dirname, 'server.ts');
const READY_TIMEOUT_MS = 60_000;

/** The sample mesh, running. */
export interface SampleMesh {
  readonly state: string;
  readonly workloads: readonly string[];
  readonly status: () => Promise<MeshStatus>;
  /** Resolves when the mesh ends by itself, which it should not. */
  readonly ended: Promise<string>;
  /** Ends the workloads, then the mesh, and leaves nothing on the host. */
  readonly stop: () => Promise<void>;
}

/**
 * Brings the sample mesh up with the commands that a user would give.
 * @throws CliError when it does not come up; nothing is left then.
 */
export async function startSampleMesh(state: string, say: (line: string) => void): Promise<SampleMesh> {
  const folder = join(import.meta.dirname, 'mesh');
  const up = start(['up', '--state', state, '-f', folder], 'pipe');
  const runs: ChildProcess[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(runs.map((run) => end(run)));
    await end(up);
  };
  const ended = once(up, 'exit').then(([code]) => `tulle up ended with exit code ${String(code)}`);
  const status = async (): Promise<MeshStatus> =>
    // Answered by a process of this very version.
    (await callSupervisor(state, { path: '/status' })) as MeshStatus;
  try {
    await meshReady(up, say);
    const user = ownerOf(SERVER);
    for (const workload of WORKLOADS) runs.push(start(runArguments(state, user, workload), 'ignore'));
    await allRunning(status, ended);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    state,
    workloads: WORKLOADS.map(({ namespace, name }) => `${namespace}/${name}`),
    status,
    ended,
    stop,
  };
}

/** Starts the command line again, in a session of its own: Ctrl-C is for the demo to handle. */
export function start(
  args: readonly string[],
  output: 'pipe' | 'ignore',
  errors: 'pipe' | 'inherit' = 'inherit',
): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], {
    stdio: ['ignore', output, errors],
    env: withCompileCache(process.env),
    detached: true,
  });
}

function shop(app: string, replica: number, node: string, calls?: string): SampleWorkload {
  const name = `${app}-${replica}`;
  const server = calls === undefined ? [name] : [name, calls];
  return { namespace: 'shop', name, serviceAccount: app, version: 'v1', node, server };
}

function runArguments(state: string, user: string, workload: SampleWorkload): readonly string[] {
  const { namespace, name, serviceAccount, version, node, server } = workload;
  const command = server.length > 0 ? [process.execPath, SERVER, ...server] : ['sleep', 'infinity'];
  return [
    ...[
      'run',
      '--state',
      state,
      '--namespace',
      namespace,
      '--name',
      name,
      '--service-account',
      serviceAccount,
    ],
    ...[
      '--node',
      node,
      '--user',
      user,
      '--label',
      `app=${serviceAccount}`,
      '--label',
      `version=${version}`,
      '--port',
      'http=8080',
      '--',
      ...command,
    ],
  ];
}

/** Who can read this folder for sure: a workload has no rights but those of its user, also as root. */
function ownerOf(file: string): string {
  return `${statSync(file).uid}`;
}

async function meshReady(up: ChildProcess, say: (line: string) => void): Promise<void> {
  if (up.stdout === null) throw new TypeError('the output of tulle up is not piped');
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  createInterface({ input: up.stdout }).on('line', (line) => {
    say(line);
    if (line === 'mesh ready') resolve();
  });
  up.once('exit', () => reject(new CliError('the mesh did not come up')));
  return promise;
}

async function allRunning(status: () => Promise<MeshStatus>, ended: Promise<string>): Promise<void> {
  let over: string | undefined;
  void ended.then((how) => {
    over = how;
  });
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const { ready, workloads } = await status();
    const names = new Set(WORKLOADS.map(({ name }) => name));
    const running = workloads.filter(
      ({ pid, name, namespace, enrolled }) =>
        names.has(name) && pid !== null && (namespace !== 'shop' || enrolled),
    );
    if (ready && running.length === WORKLOADS.length) return;
    if (over !== undefined) throw new CliError(over);
    if (performance.now() > deadline) {
      throw new CliError(
        `only ${running.length} of ${WORKLOADS.length} workloads are up after ${READY_TIMEOUT_MS / 1000} s`,
      );
    }
    await delay(100);
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  await exited;
}
