import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { inCgroup } from '#cli/local/cgroups.ts';
import { endProcess, mustRun, startLogged } from '#test/kit/command.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';

/** A pod of the bench: a namespace and a cgroup in which load, servers and peers' proxies are started. */
export interface BenchPod {
  readonly name: string;
  readonly netns: string;
  readonly cgroup: string;
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
  readonly pod: (
    name: string,
    node: string,
    enrolled: boolean,
    labels?: Readonly<Record<string, string>>,
  ) => Promise<BenchPod>;
  /** Starts a process in a pod; its output goes to a file in {@link Bed.directory}. */
  readonly start: (pod: BenchPod, name: string, command: readonly string[]) => ChildProcess;
  /** Runs a command in a pod and returns what it printed. */
  readonly run: (pod: BenchPod, command: readonly string[], timeoutMs: number) => Promise<string>;
  /** Process ids of the mesh's ztunnels. */
  readonly ztunnelPids: () => Promise<readonly number[]>;
  /** Access records of a node's ztunnel so far. */
  readonly accessLog: Mesh['accessLog'];
  readonly close: () => Promise<void>;
}

/** Command line that runs another one as a process of the workload: who only enters its namespace is refused by eBPF. */
export function inPod(
  { netns, cgroup }: Pick<BenchPod, 'netns' | 'cgroup'>,
  command: readonly string[],
): readonly string[] {
  return inCgroup(cgroup, ['nsenter', `--net=/run/netns/${netns}`, ...command]);
}

/**
 * Brings the mesh up. Closed by {@link Bed.close}, which removes all of it.
 * @param flags further ones of `tulle up`
 */
export async function openBed(flags: readonly string[] = []): Promise<Bed> {
  const mesh = await openMesh({ files: { 'mesh.yaml': MESH }, flags: ['--nodes', 'n1,n2', ...flags] });
  const children: ChildProcess[] = [];
  return {
    directory: mesh.directory,
    pod: async (name, node, enrolled, labels = {}) => {
      const namespace = enrolled ? 'mesh' : 'plain';
      const command = ['sleep', 'infinity'];
      const options = { namespace, serviceAccount: 'bench', name, node, labels, command };
      const { netns, cgroup, addresses } = await mesh.run(options, enrolled);
      return { name, netns, cgroup, ip: addresses[0] ?? '', node };
    },
    start: (pod, name, command) => {
      const child = startLogged(inPod(pod, command), join(mesh.directory, `${name}.log`));
      children.push(child);
      return child;
    },
    run: (pod, command, timeoutMs) => mustRun(inPod(pod, command), timeoutMs),
    ztunnelPids: async () =>
      (await mesh.status()).nodes.flatMap((node) => (node.ztunnel === null ? [] : [node.ztunnel.pid])),
    accessLog: mesh.accessLog,
    close: async () => {
      for (const child of children.reverse()) await endProcess(child);
      await mesh[Symbol.asyncDispose]();
    },
  };
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
