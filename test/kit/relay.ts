import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { inCgroup } from '#cli/local/cgroups.ts';
import type { OwnSocketsOptions } from '#ztunnel/capture/own-sockets.ts';
import { endProcess } from './command.ts';
import { type RelayedConnection, relayInPod } from './relay-in-pod.ts';

/** Plays the ztunnel in a pod: passes on what is captured there, see relay-in-pod.ts. */
export interface Relay extends AsyncDisposable {
  readonly connections: readonly RelayedConnection[];
  /** Stops listening; connections go on. */
  readonly stop: () => Promise<void>;
}

export interface RelayOptions {
  /** Where the mesh's eBPF maps are pinned: `/sys/fs/bpf/tulle/MESH`. Absent: packet rules alone can capture. */
  readonly bpfDirectory?: string;
  /** Which of how many that relay in the pod at the same time. Default: the only one. */
  readonly worker?: { readonly index: number; readonly count: number };
  /**
   * Cgroup in which it runs, in a process of its own: programs that are attached there or above see its sockets. Made if it
   * is not there; whoever named it removes it. Absent: in this process.
   */
  readonly cgroup?: string;
}

/** Starts to relay in the namespace at that path. */
export async function startRelay(netnsPath: string, options: RelayOptions = {}): Promise<Relay> {
  const { cgroup, bpfDirectory, worker } = options;
  const bpf = { ...(bpfDirectory && { directory: bpfDirectory }), ...(worker && { worker }) };
  if (cgroup !== undefined) return startProcess(netnsPath, cgroup, bpf);
  const connections: RelayedConnection[] = [];
  const relay = await relayInPod(netnsPath, bpf, (connection) => connections.push(connection));
  return {
    connections,
    stop: async () => relay.stop(),
    [Symbol.asyncDispose]: async () => relay.close(),
  };
}

const PROGRAM = join(import.meta.dirname, 'programs/relay.ts');

async function startProcess(netnsPath: string, cgroup: string, bpf: OwnSocketsOptions): Promise<Relay> {
  mkdirSync(cgroup, { recursive: true });
  const path = netnsPath.replace('/proc/self/', `/proc/${process.pid}/`);
  const program = [process.execPath, PROGRAM, path, JSON.stringify(bpf)];
  const [command = '', ...args] = inCgroup(cgroup, program);
  const child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const connections: RelayedConnection[] = [];
  child.on('message', (message) => {
    if (typeof message === 'object') connections.push(message as RelayedConnection);
  });
  await until(child, 'ready');
  return {
    connections,
    stop: async () => {
      child.send('stop');
      await until(child, 'stopped');
    },
    [Symbol.asyncDispose]: async () => {
      await endProcess(child, 'SIGKILL');
    },
  };
}

/** Waits until it says that. */
async function until(child: ChildProcess, word: string): Promise<void> {
  const ended = new AbortController();
  child.once('exit', (code) => ended.abort(new Error(`the relay has ended with code ${code}`)));
  for (;;) {
    const [message] = await once(child, 'message', { signal: ended.signal }).catch((error: unknown) => {
      throw ended.signal.aborted ? ended.signal.reason : error;
    });
    if (message === word) return;
  }
}
