import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { callSocket } from '#cli/unix-http.ts';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { longLivedCommand, longLivedServerCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';

const RESTARTS = 5;
/** A ztunnel that has to wait for a connection ends after 25 s. */
const LONGEST_DRAIN_MS = 20_000;
/** Who calls whom, so that the connections of each are of one kind at the ztunnel of n1. */
const CALLERS = [
  { kind: 'passthrough', namespace: 'shop', name: 'calls-out', node: 'n1', host: 'server.outside' },
  { kind: 'plaintext', namespace: 'outside', name: 'calls-in', node: 'n2', host: 'server.shop' },
  { kind: 'same-node', namespace: 'shop', name: 'calls-beside', node: 'n1', host: 'server.shop' },
] as const;

type Seen = Readonly<
  Record<
    string,
    {
      readonly connections: number;
      readonly bytes: number;
      readonly longestStallMs: number;
      readonly errors: readonly string[];
    }
  >
>;

describe.for(['auto', 'nftables'])('with --capture %s', (capture) => {
  let mesh: Mesh;

  beforeAll(async () => {
    const yaml = [
      ...[namespaceYaml('shop', true), namespaceYaml('outside', false)],
      ...[serviceYaml('shop', 'server'), serviceYaml('outside', 'server')],
    ];
    mesh = await openMesh({ flags: ['--capture', capture], files: { 'mesh.yaml': yaml.join('') } });
    const server = { name: 'server', labels: { app: 'server' }, command: longLivedServerCommand(9000) };
    await mesh.run({ ...server, namespace: 'shop', node: 'n1' }, true);
    await mesh.run({ ...server, namespace: 'outside', node: 'n2' }, false);
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  test(`${RESTARTS} restarts cut no connection that leaves the mesh, comes in plain or stays on the node`, {
    timeout: 300_000,
  }, async ({ annotate }) => {
    const callers = await Promise.all(CALLERS.map((caller) => call(mesh, caller)));
    const held: { readonly descriptors: number; readonly mebibytes: number }[] = [];
    for (let restart = 0; restart < RESTARTS; restart++) {
      const before = callers.map(({ live }) => bytesOf(live()));
      expect((await mesh.tulle('restart', 'ztunnel/n1')).code).toBe(0);
      held.push(await heldBy(mesh));
      await eventually('bytes flow on every connection that has some', () =>
        callers.every(({ live }, at) => hasMoved(bytesOf(live()), before[at] ?? [])),
      );
    }
    const counts = await handedOver(mesh);
    const outcomes = await Promise.all(callers.map(({ end }) => end()));
    for (const [at, outcome] of outcomes.entries())
      await annotate(`${capture}, ${CALLERS[at]?.kind}: ${JSON.stringify(outcome)}`);
    const drains = drainsOf(mesh);
    await annotate(`${capture}: drains of ${drains} ms; ${JSON.stringify({ held, counts })}`);
    expect(outcomes.flatMap((seen) => Object.values(seen).flatMap(({ errors }) => errors))).toEqual([]);
    for (const { kind } of CALLERS) expect(counts[`${kind} handed_over`]).toBe(18);
    expect(Object.keys(counts).filter((each) => !each.endsWith('handed_over'))).toEqual([]);
    expect(drains).toHaveLength(RESTARTS);
    expect(Math.max(...drains)).toBeLessThan(LONGEST_DRAIN_MS);
    const descriptors = held.map((each) => each.descriptors);
    expect(Math.max(...descriptors) - Math.min(...descriptors)).toBeLessThan(20);
  });
});

interface Caller {
  readonly live: () => Seen;
  readonly end: () => Promise<Seen>;
}

async function call(mesh: Mesh, { namespace, name, node, host }: (typeof CALLERS)[number]): Promise<Caller> {
  const file = join(mesh.directory, `${name}.json`);
  const read = (path: string): Seen => JSON.parse(readFileSync(path, 'utf8')) as Seen;
  const command = longLivedCommand(`${host}.svc.cluster.local`, 9000, file);
  const { child } = await mesh.run({ namespace, name, node, command }, namespace === 'shop');
  await eventually(
    'all connections are there',
    () => Object.values(read(`${file}.live`)).reduce((sum, { connections }) => sum + connections, 0) === 18,
    20_000,
  );
  return {
    live: () => read(`${file}.live`),
    end: async () => {
      await endProcess(child);
      return read(file);
    },
  };
}

/** Of the kinds that always have bytes to move. */
function bytesOf(seen: Seen): readonly number[] {
  return ['bulk', 'chatty', 'client-ended', 'server-ended'].map((kind) => seen[kind]?.bytes ?? 0);
}

function hasMoved(now: readonly number[], before: readonly number[]): boolean {
  return now.every((bytes, at) => bytes > (before[at] ?? 0));
}

/** What the ztunnel of n1 has open, and its memory. */
async function heldBy(mesh: Mesh): Promise<{ readonly descriptors: number; readonly mebibytes: number }> {
  const pid = (await mesh.status()).nodes.find(({ name }) => name === 'n1')?.ztunnel?.pid;
  const [, kibibytes] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return {
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    mebibytes: Math.round(Number(kibibytes) / 1024),
  };
}

/** How long each ztunnel that was replaced took to end, in milliseconds. */
function drainsOf(mesh: Mesh): readonly number[] {
  const times = (message: string): readonly number[] =>
    mesh
      .logOf('ztunnel-n1')
      .split('\n')
      .filter((line) => line.includes(`"${message}"`))
      .map((line) => (JSON.parse(line) as { readonly time: number }).time);
  const ended = times('ztunnel ended');
  return times('ztunnel draining').map((began, at) => (ended[at] ?? Infinity) - began);
}

/** By kind and outcome, as the ztunnel of n1 has counted them: of the last restart. */
async function handedOver(mesh: Mesh): Promise<Readonly<Record<string, number>>> {
  const socketPath = join(mesh.state, 'run', 'n1', 'ztunnel.sock');
  const { body } = await callSocket({ socketPath, path: '/hand-over' });
  const met = Object.entries(body as Record<string, Record<string, number>>);
  return Object.fromEntries(
    met.flatMap(([kind, counts]) =>
      Object.entries(counts).map(([outcome, count]) => [`${kind} ${outcome}`, count]),
    ),
  );
}
