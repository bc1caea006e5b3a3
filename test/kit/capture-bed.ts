import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { removePins } from '#bpf/programs.ts';
import { findCgroupMount, inCgroup, removeCgroup } from '#cli/local/cgroups.ts';
import type { Capture, CapturedPod, CaptureScope } from '#ztunnel/capture/capture.ts';
import { createEbpfCapture } from '#ztunnel/capture/ebpf.ts';
import { warmThreadPool } from '#ztunnel/capture/in-pod-sockets.ts';
import { createNftablesCapture } from '#ztunnel/capture/nftables.ts';
import { createNetns, linkNetns, type Netns } from './netns.ts';
import { type Relay, startRelay } from './relay.ts';

/** How traffic gets into the mesh; what one capture promises the other does, too. */
export type CaptureMethod = Capture['method'];

/** The methods under test. */
export const METHODS: readonly CaptureMethod[] = ['ebpf', 'nftables'];

/**
 * Two pods side by side, `web` (10.9.1.2, fd09:1::2) and `catalog` (10.9.1.3, fd09:1::3). What is run in them runs in a
 * cgroup of the bed's own. `relay` plays the ztunnel.
 */
export interface CaptureBed extends AsyncDisposable {
  readonly method: CaptureMethod;
  readonly capture: Capture;
  /** Where eBPF maps are pinned, and the cgroup above all processes of the bed. */
  readonly bpfDirectory: string;
  readonly cgroup: string;
  readonly web: Netns;
  readonly catalog: Netns;
  /** What the node agent knows of a pod: strict and allowing UDP unless said otherwise. */
  readonly pod: (netns: Netns, fields?: Partial<CapturedPod>) => CapturedPod;
  /** Captures until disposed. */
  readonly captured: (
    netns: Netns,
    scope: CaptureScope,
    fields?: Partial<CapturedPod>,
  ) => Promise<AsyncDisposable>;
  readonly relay: (netns: Netns) => Promise<Relay>;
}

const PINS = '/sys/fs/bpf/tulle';
const PREFIX = 'tulletest';

/** Makes the bed. Also sweeps what test processes left that died. Needs root. */
export async function makeCaptureBed(method: CaptureMethod): Promise<CaptureBed> {
  await sweep();
  await warmThreadPool();
  const name = `${PREFIX}-${process.pid}-${method}`;
  const cgroup = join(findCgroupMount(readFileSync('/proc/mounts', 'utf8')), name);
  const bpfDirectory = join(PINS, name);
  const web = await makePod(`${method}-web`, cgroup);
  const catalog = await makePod(`${method}-catalog`, cgroup);
  await linkNetns(
    { netns: web, device: 'eth0', addresses: ['10.9.1.2/24', '169.254.7.127/32', 'fd09:1::2/64'] },
    { netns: catalog, device: 'eth0', addresses: ['10.9.1.3/24', 'fd09:1::3/64'] },
  );
  await catalog.exec('ip', ['route', 'add', '169.254.7.127', 'dev', 'eth0']);
  const capture = makeCapture(method, bpfDirectory, cgroup);
  const pod: CaptureBed['pod'] = (netns, fields = {}) => ({
    uid: netns.name,
    netnsPath: netns.path,
    udp: 'allow',
    mode: 'strict',
    refusesPlaintext: false,
    addresses: netns === web ? ['10.9.1.2', 'fd09:1::2'] : ['10.9.1.3', 'fd09:1::3'],
    probes: [{ from: '169.254.7.127', port: 8080 }],
    ...fields,
  });
  return {
    method,
    capture,
    bpfDirectory,
    cgroup,
    web,
    catalog,
    pod,
    captured: async (netns, scope, fields) => {
      await capture.apply(pod(netns, fields), scope);
      return { [Symbol.asyncDispose]: () => capture.remove(pod(netns)) };
    },
    relay: (netns) =>
      method === 'ebpf'
        ? startRelay(netns.path, { bpfDirectory, cgroup: join(cgroup, 'processes', 'relay') })
        : startRelay(netns.path),
    [Symbol.asyncDispose]: async () => {
      for (const netns of [web, catalog]) {
        await capture.remove(pod(netns));
        await netns.remove();
      }
      await removeCgroup(cgroup);
      removePins(bpfDirectory);
    },
  };
}

/** Installed before a ztunnel starts, as the node agent does it. */
function makeCapture(method: CaptureMethod, directory: string, cgroup: string): Capture {
  if (method === 'nftables') return createNftablesCapture();
  const capture = createEbpfCapture({ directory, cgroup });
  capture.install();
  return capture;
}

/** A namespace whose processes are in a cgroup of the pod's own, as those of a workload are. */
async function makePod(label: string, cgroup: string): Promise<Netns> {
  const netns = await createNetns(label);
  const own = join(cgroup, 'pods', label);
  mkdirSync(own, { recursive: true });
  const within = (command: string, args: readonly string[]): readonly [string, readonly string[]] => {
    const [file = '', ...rest] = inCgroup(own, [command, ...args]);
    return [file, rest];
  };
  return {
    ...netns,
    exec: (command, args, input) => netns.exec(...within(command, args), input),
    spawn: (command, args, options) => netns.spawn(...within(command, args), options),
  };
}

async function sweep(): Promise<void> {
  const mount = findCgroupMount(readFileSync('/proc/mounts', 'utf8'));
  for (const directory of [mount, PINS]) {
    for (const name of existsSync(directory) ? readdirSync(directory) : []) {
      const pid = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1];
      if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
      const path = join(directory, name);
      if (directory === mount) await removeCgroup(path);
      else removePins(path);
    }
  }
}
