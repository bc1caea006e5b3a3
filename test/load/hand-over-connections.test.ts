import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  bytesFlow,
  errorsOf,
  handedOver,
  LONG_LIVED_CONNECTIONS,
  startLongLived,
} from '#test/kit/long-lived.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { longLivedServerCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';

const RESTARTS = 5;
/** A ztunnel that has to wait for a connection ends after so long. */
const LONGEST_DRAIN_MS = 9_000;
/** Who calls whom, so that the connections of each are of one kind at the ztunnel of n1. */
const CALLERS = [
  {
    kind: 'passthrough',
    ...{ namespace: 'shop', name: 'calls-out', node: 'n1', host: 'server.outside', isInMesh: true, idle: 0 },
  },
  {
    kind: 'plaintext',
    ...{ namespace: 'outside', name: 'calls-in', node: 'n2', host: 'server.shop', isInMesh: false, idle: 0 },
  },
  {
    kind: 'same-node',
    ...{
      namespace: 'shop',
      name: 'calls-beside',
      node: 'n1',
      host: 'server.shop',
      isInMesh: true,
      idle: 500,
    },
  },
] as const;

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
    const callers = await Promise.all(CALLERS.map((caller) => startLongLived(mesh, caller)));
    const held: { readonly descriptors: number; readonly mebibytes: number }[] = [];
    for (let restart = 0; restart < RESTARTS; restart++) {
      expect((await mesh.tulle('restart', 'ztunnel/n1')).code).toBe(0);
      held.push(await heldBy(mesh));
      await bytesFlow(callers);
    }
    const counts = await handedOver(mesh, 'n1');
    const outcomes = await Promise.all(callers.map(({ end }) => end()));
    for (const [at, outcome] of outcomes.entries())
      await annotate(`${capture}, ${CALLERS[at]?.kind}: ${JSON.stringify(outcome)}`);
    const drains = drainsOf(mesh);
    await annotate(`${capture}: drains of ${drains} ms; ${JSON.stringify({ held, counts })}`);
    expect(outcomes.flatMap(errorsOf)).toEqual([]);
    for (const { kind, idle } of CALLERS)
      expect(counts[`${kind} handed_over`]).toBe(LONG_LIVED_CONNECTIONS + idle);
    expect(Object.keys(counts).filter((each) => !each.endsWith('handed_over'))).toEqual([]);
    expect(drains).toHaveLength(RESTARTS);
    expect(Math.max(...drains)).toBeLessThan(LONGEST_DRAIN_MS);
    const descriptors = held.map((each) => each.descriptors);
    expect(Math.max(...descriptors) - Math.min(...descriptors)).toBeLessThan(20);
  });
});

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
