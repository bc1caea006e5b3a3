import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { mustRun } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { processesFolder } from '#test/kit/operator.ts';
import { sizesCommand, trafficServerCommand } from '#test/kit/programs/programs.ts';
import { PYTHON } from '#test/kit/socket-calls.ts';
import { namespaceYaml, peerAuthenticationYaml } from '#test/kit/yaml.ts';
import { heapProbed } from './heap-probed.ts';
import type { Measure, Sample } from './judge.ts';
import { type Sampled, takeSamples } from './sampler.ts';

/** How much. */
export interface Sizes {
  readonly bytes: number;
  readonly atOnce: number;
  readonly inARow: number;
  readonly capture: string;
}

/** What was found of one of the three. */
export interface SizeResult {
  readonly name: string;
  /** As the client printed it. */
  readonly found: Readonly<Record<string, unknown>>;
  /** All bytes and connections arrived. */
  readonly isWhole: boolean;
  /** What has not come back to where it was, in words; none is as it should be. */
  readonly left: readonly string[];
  /** How long that took, or was waited for. */
  readonly returnSeconds: number;
  /** Before, and when all had come back, of both ztunnels and the kernel. */
  readonly before: Readonly<Record<string, number>>;
  readonly after: Readonly<Record<string, number>>;
}

/**
 * How much more there may be afterwards. Pooled tunnels stay for minutes on purpose; memory that a collector gave back to its allocator
 * is not the kernel's again at once, so what is held (`heap`, `external`) is what is judged tightly.
 */
const MORE: Readonly<Partial<Record<Measure, number>>> = {
  rss: 160,
  heap: 8,
  external: 16,
  descriptors: 12,
  threads: 4,
  connections: 0,
  'map entries': 4,
  sockets: 12,
};

/** Tunnels that nobody uses are kept for five minutes; a hundred connections share one. */
const RETURN_MS = 400_000;

/** Moves all of it through a mesh of its own, from n1 to n2, and looks whether everything comes back; tells each result at once. Needs root. */
export async function moveSizes(
  sizes: Sizes,
  onResult: (result: SizeResult) => void = () => undefined,
): Promise<readonly SizeResult[]> {
  const probes = mkdtempSync(join(tmpdir(), 'tulle-sizes-'));
  try {
    await using mesh = await openMesh({
      files: { 'mesh.yaml': MESH },
      flags: ['--capture', sizes.capture],
      by: heapProbed(probes),
    });
    const bed = await fill(mesh, probes);
    const results: SizeResult[] = [];
    for (const step of stepsOf(sizes, bed)) {
      const result = await measure(step, bed);
      results.push(result);
      onResult(result);
    }
    return results;
  } finally {
    rmSync(probes, { recursive: true, force: true });
  }
}

interface Bed {
  readonly mesh: Mesh;
  readonly sampled: Sampled;
  /** Address of the server. */
  readonly host: string;
}

async function fill(mesh: Mesh, probes: string): Promise<Bed> {
  const command = trafficServerCommand('catalog');
  const server = await mesh.run({ namespace: 'sizes', name: 'catalog', node: 'n2', command }, true);
  const crowd = [PYTHON, CROWD, 'serve', '9200'];
  const many = await mesh.run({ namespace: 'sizes', name: 'many', node: 'n2', command: crowd }, true);
  const web = await mesh.run(
    { namespace: 'sizes', name: 'web', node: 'n1', command: ['sleep', 'infinity'] },
    true,
  );
  // Sockets in TIME_WAIT would use up the ports of 100,000 connections to one address.
  for (const { netns } of [web, server, many])
    await mustRun([
      'nsenter',
      `--net=/run/netns/${netns}`,
      'sysctl',
      '-qw',
      'net.ipv4.tcp_max_tw_buckets=64',
    ]);
  const run = (node: string): string => join(mesh.state, 'run', node, 'ztunnel.sock');
  const cgroup = dirname(dirname(web.cgroup));
  const sampled: Sampled = {
    processes: processesFolder(web.cgroup),
    others: () => new Map(),
    probes,
    sockets: new Map(['n1', 'n2'].map((node) => [`ztunnel-${node}`, run(node)])),
    kernel: () => ({
      mesh: basename(cgroup),
      cgroup,
      ruled: [],
      pids: [web.pid, server.pid, many.pid],
    }),
  };
  return { mesh, sampled, host: server.addresses[0] ?? '' };
}

interface Step {
  readonly name: string;
  readonly run: (scale: number) => Promise<Readonly<Record<string, unknown>>>;
  readonly isWhole: (found: Readonly<Record<string, unknown>>) => boolean;
}

function stepsOf({ bytes, atOnce, inARow }: Sizes, { mesh, host }: Bed): readonly Step[] {
  const many = async (): Promise<string> => {
    const { workloads } = await mesh.status();
    return workloads.find(({ name }) => name === 'many')?.addresses[0] ?? '';
  };
  const exec = async (command: readonly string[]): Promise<Readonly<Record<string, unknown>>> => {
    const { code, stdout, stderr } = await mesh.exec('sizes/web', command, LONGEST_MS);
    if (code !== 0) throw new Error(`exit code ${code}: ${stderr}`);
    return JSON.parse(stdout) as Record<string, unknown>;
  };
  return [
    {
      name: `${bytes} bytes each way through one connection`,
      run: (scale) => exec(sizesCommand('bulk', `${host}:9100`, Math.ceil(bytes * scale))),
      isWhole: ({ isSame, received }) => isSame === true && received === bytes,
    },
    {
      name: `${atOnce} connections at once`,
      run: async (scale) => {
        const call = { targets: [[await many(), 9200]], count: Math.ceil(atOnce * scale), seconds: 300 };
        return await exec([PYTHON, CROWD, 'call', JSON.stringify(call)]);
      },
      isWhole: ({ answered }) => answered === atOnce,
    },
    {
      name: `${inARow} connections one after the other`,
      run: (scale) => exec(sizesCommand('row', `${host}:8080`, Math.ceil(inARow * scale))),
      isWhole: ({ answered }) => answered === inARow,
    },
  ];
}

/** Of the whole, moved before anything is measured: code is compiled and pools are filled then. */
const WARM_UP = 0.05;
const LONGEST_MS = 3_600_000;

async function measure(step: Step, { sampled }: Bed): Promise<SizeResult> {
  await step.run(WARM_UP);
  await delay(2 * PROBE_MS);
  const before = valuesOf(await takeSamples(sampled, 0));
  const found = await step.run(1);
  const end = performance.now();
  let after = before;
  let left: readonly string[] = [];
  await eventually(
    'everything is as it was',
    async () => {
      after = valuesOf(await takeSamples(sampled, 0));
      left = leftOf(before, after);
      return left.length === 0;
    },
    RETURN_MS,
  ).catch(() => undefined);
  const returnSeconds = Math.round((performance.now() - end) / 1000);
  return { name: step.name, found, isWhole: step.isWhole(found), left, returnSeconds, before, after };
}

const PROBE_MS = 10_000;

/** Of both ztunnels and the kernel. */
function valuesOf(samples: readonly Sample[]): Readonly<Record<string, number>> {
  const judged = samples.filter(({ role, measure: of }) => /^(ztunnel|kernel)/.test(role) && of in MORE);
  return Object.fromEntries(
    judged.map(({ role, measure: of, value }) => [`${role} ${of}`, Number(value.toFixed(1))]),
  );
}

function leftOf(
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
): readonly string[] {
  return Object.entries(after).flatMap(([key, value]) => {
    const [, of = ''] = /^\S+ (.*)$/.exec(key) ?? [];
    const was = before[key] ?? 0;
    const more = MORE[of as Measure] ?? 0;
    return value > was + more ? [`${key}: ${value}, and was ${was}`] : [];
  });
}

const CROWD = join(import.meta.dirname, '../kit/programs/crowd.py');

const MESH = [
  namespaceYaml('sizes', true),
  peerAuthenticationYaml('sizes', 'default', '{mtls: {mode: STRICT}}'),
].join('');
