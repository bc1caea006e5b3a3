import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** A pod of the bench: a namespace in which load, servers and peers' proxies are started. */
export interface BenchPod {
  readonly name: string;
  readonly netns: string;
  readonly ip: string;
  readonly node: string;
}

/**
 * The bench's machine room: one mesh of two nodes (`tulle up`), with a namespace that is enrolled and one that is not.
 * Every path that is measured crosses the same links; what differs is what stands in between.
 */
export interface Bed {
  readonly directory: string;
  /** Starts a pod; `enrolled` pods are in the mesh. */
  readonly pod: (name: string, node: string, enrolled: boolean) => Promise<BenchPod>;
  /** Starts a process in a pod's network namespace; its output goes to a file in {@link Bed.directory}. */
  readonly start: (pod: BenchPod, name: string, command: readonly string[]) => ChildProcess;
  /** Runs a command in a pod's network namespace and returns what it printed. */
  readonly run: (pod: BenchPod, command: readonly string[], timeoutMs: number) => Promise<string>;
  /** Process ids of the mesh's ztunnels. */
  readonly ztunnelPids: () => readonly number[];
  readonly close: () => Promise<void>;
}

const TULLE = join(import.meta.dirname, '../../cli/tulle');

/** Brings the mesh up. Closed by {@link Bed.close}, which removes all of it. */
export async function openBed(): Promise<Bed> {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-bench-'));
  const state = join(directory, 'state');
  mkdirSync(join(directory, 'mesh'));
  writeFileSync(join(directory, 'mesh/mesh.yaml'), MESH);
  const children: ChildProcess[] = [];
  const up = launch(directory, 'up', [
    TULLE,
    'up',
    '--state',
    state,
    '-f',
    join(directory, 'mesh'),
    '--nodes',
    'n1,n2',
  ]);
  await waitForLine(join(directory, 'up.log'), 'mesh ready', up);

  const status = (): Status =>
    JSON.parse(
      execFileSync(TULLE, ['status', '--state', state, '-o', 'json'], { encoding: 'utf8' }),
    ) as Status;
  return {
    directory,
    pod: async (name, node, enrolled) => {
      const namespace = enrolled ? 'mesh' : 'plain';
      const identity = [
        '--namespace',
        namespace,
        '--service-account',
        'bench',
        '--name',
        name,
        '--node',
        node,
        '--label',
        `app=${name}`,
      ];
      children.push(
        launch(directory, `pod-${name}`, [
          TULLE,
          'run',
          '--state',
          state,
          ...identity,
          '--',
          'sleep',
          'infinity',
        ]),
      );
      for (;;) {
        const found = status().workloads.find((workload) => workload.name === name);
        if (found !== undefined && (found.enrolled || !enrolled) && found.addresses[0] !== undefined) {
          return { name, netns: found.netns, ip: found.addresses[0], node };
        }
        await delay(200);
      }
    },
    start: (pod, name, command) => {
      const child = launch(directory, name, ['nsenter', `--net=/run/netns/${pod.netns}`, ...command]);
      children.push(child);
      return child;
    },
    run: (pod, command, timeoutMs) =>
      capture(['nsenter', `--net=/run/netns/${pod.netns}`, ...command], timeoutMs),
    ztunnelPids: () => status().nodes.flatMap((node) => (node.ztunnel === null ? [] : [node.ztunnel.pid])),
    close: async () => {
      for (const child of children.reverse()) await end(child);
      await end(up);
      execFileSync(TULLE, ['down', '--state', state], { stdio: 'ignore' });
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

interface Status {
  readonly nodes: readonly { readonly ztunnel: { readonly pid: number } | null }[];
  readonly workloads: readonly {
    readonly name: string;
    readonly netns: string;
    readonly enrolled: boolean;
    readonly addresses: readonly string[];
  }[];
}

const MESH = `apiVersion: v1
kind: Namespace
metadata: {name: mesh, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
# A policy that is looked at for every connection, as a mesh in use has one.
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bench, namespace: mesh}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/mesh/sa/bench]}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: mesh}
spec: {mtls: {mode: STRICT}}
`;

function launch(directory: string, name: string, command: readonly string[]): ChildProcess {
  const log = openSync(join(directory, `${name}.log`), 'a');
  const [file = '', ...args] = command;
  return spawn(file, args, { stdio: ['ignore', log, log], detached: true });
}

async function waitForLine(file: string, line: string, child: ChildProcess): Promise<void> {
  while (!(existsSync(file) && readFileSync(file, 'utf8').includes(line))) {
    if (child.exitCode !== null) throw new Error(`the mesh did not come up:\n${readFileSync(file, 'utf8')}`);
    await delay(100);
  }
}

/** Runs a command to its end; its output, or an error with all that it said. */
export async function capture(command: readonly string[], timeoutMs: number): Promise<string> {
  const [file = '', ...args] = command;
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  let output = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0)
    throw new Error(`${command.join(' ')}: ended with ${code ?? 'a time-out'}\n${output}\n${errors}`);
  return output;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
  await closed;
  clearTimeout(timer);
}
