import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { encodePod, podKey, SIZES, writeEndpoint } from '#bpf/layout.ts';
import { installMesh, type MeshPrograms, removePins } from '#bpf/programs.ts';
import { findCgroupMount, removeCgroup } from '#cli/local/cgroups.ts';
import { createNetns } from '#test/kit/netns.ts';
import { type BpfSockets, openBpfSockets } from '#ztunnel/capture/bpf-sockets.ts';
import {
  closeDescriptor,
  dialSocket,
  listenInNamespace,
  openNamespace,
  originalDestination,
  warmThreadPool,
} from '#ztunnel/capture/in-pod-sockets.ts';

/**
 * What the ztunnel's side of capture by eBPF costs a connection, call by call, in microseconds of this thread's CPU time: the
 * median of rounds in which all are measured in turn. `node test/bench/bpf-sockets.ts`, as root.
 */

const ROUNDS = 7;
const CALLS = 20_000;
const COOKIE = 1n;

await warmThreadPool();
const name = `tulletest-${process.pid}-bench`;
const directory = join('/sys/fs/bpf/tulle', name);
const cgroup = join(findCgroupMount(readFileSync('/proc/mounts', 'utf8')), name);
await using opened = new AsyncDisposableStack();
opened.defer(() => removeCgroup(cgroup));
opened.defer(() => removePins(directory));
const mesh = installMesh({ directory, cgroup });
opened.defer(() => mesh.close());
const bpf = openBpfSockets(directory);
if (bpf === undefined) throw new Error(`nothing is pinned at ${directory}`);
opened.defer(() => bpf.close());
print(measure(await callsOf(bpf, mesh)));

/** Each call once. */
type Calls = ReadonlyMap<string, () => void>;

async function callsOf(bpf: BpfSockets, mesh: MeshPrograms): Promise<Calls> {
  const netns = opened.use(await createNetns('bench'));
  const netnsFd = openNamespace(netns.path);
  opened.defer(() => closeDescriptor(netnsFd));
  mesh.maps.pods.update(podKey(COOKIE), encodePod({ flags: 1, ip4: '10.0.0.1', ip6: undefined }));
  const accepted = await accept(netnsFd);
  const [captured4, captured6] = [await accept(netnsFd), await accept(netnsFd)];
  setPeer(mesh, captured4, '10.96.0.10');
  setPeer(mesh, captured6, 'fd00:10:96::10');
  const dialling = dialSocket(netnsFd, { family: 4 });
  opened.defer(() => closeDescriptor(dialling));
  const withSocket = (work: (fd: number) => void): (() => void) => {
    return () => {
      const fd = dialSocket(netnsFd, { family: 4 });
      work(fd);
      closeDescriptor(fd);
    };
  };
  return new Map([
    ['a socket in a pod, made and closed', withSocket(() => undefined)],
    ['the same, tagged', withSocket((fd) => bpf.tag(fd))],
    ['a tag again', () => bpf.tag(dialling)],
    ['a tag that shows an IPv4 caller', () => bpf.tag(dialling, { ip: '10.244.1.3', port: 40_000 })],
    ['a tag that shows an IPv6 caller', () => bpf.tag(dialling, { ip: 'fd00:10:244:1::3', port: 40_000 })],
    ['whether a pod is captured: it is', () => bpf.captures(COOKIE)],
    ['whether a pod is captured: it is not', () => bpf.captures(2n)],
    ['an original destination, IPv4', () => bpf.originalDestination(captured4)],
    ['an original destination, IPv6', () => bpf.originalDestination(captured6)],
    ['an original destination: there is none', () => bpf.originalDestination(accepted)],
    ['the same, asked of packet rules', () => originalDestination(accepted)],
  ]);
}

/** The descriptor of an accepted socket. */
async function accept(netnsFd: number): Promise<number> {
  const server = net.createServer();
  server.listen({
    fd: listenInNamespace(netnsFd, { ip: '127.0.0.1', port: 7000, transparent: false, backlog: 1 }),
  });
  const accepting = once(server, 'connection');
  const client = new net.Socket({ fd: dialSocket(netnsFd, { family: 4 }) }).connect(7000, '127.0.0.1');
  const [socket] = (await accepting) as [net.Socket];
  opened.defer(() => {
    for (const end of [client, socket]) end.destroy();
  });
  server.close();
  return (socket as unknown as { readonly _handle: { readonly fd: number } })._handle.fd;
}

function setPeer(mesh: MeshPrograms, fd: number, ip: string): void {
  const key = Buffer.alloc(SIZES.descriptor);
  key.writeInt32LE(fd);
  const value = Buffer.alloc(SIZES.endpoint);
  writeEndpoint(value, 0, { ip, port: 443 });
  mesh.maps.peers.update(key, value);
}

/** Microseconds a call, by round. */
function measure(calls: Calls): ReadonlyMap<string, readonly number[]> {
  const samples = new Map([...calls.keys()].map((call) => [call, [] as number[]]));
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [call, work] of calls) {
      const start = process.threadCpuUsage();
      for (let index = 0; index < CALLS; index++) work();
      const { user, system } = process.threadCpuUsage(start);
      if (round > 0) samples.get(call)?.push((user + system) / CALLS); // the first one warms up
    }
  }
  return samples;
}

function print(samples: ReadonlyMap<string, readonly number[]>): void {
  for (const [call, values] of samples) {
    const sorted = values.toSorted((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
    console.log(`${median.toFixed(2).padStart(6)} us  ${call}`);
  }
}
