import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import {
  bytesFlow,
  errorsOf,
  handedOver,
  LONG_LIVED_CONNECTIONS,
  startLongLived,
} from '#test/kit/long-lived.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { longLivedServerCommand, trafficServerCommand } from '#test/kit/programs/programs.ts';
import { startTraffic } from '#test/kit/traffic.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';

/** Ztunnels of one round, which are restarted at once; both ends of all connections are on the two nodes. */
const ROUNDS = [['n1'], ['n2'], ['n1', 'n2'], ['n2', 'n1'], ['n1', 'n2']] as const;

describe.for(['auto', 'nftables'])('with --capture %s', (capture) => {
  let mesh: Mesh;

  beforeAll(async () => {
    const yaml = [namespaceYaml('shop', true), serviceYaml('shop', 'server'), serviceYaml('shop', 'answers')];
    mesh = await openMesh({ flags: ['--capture', capture], files: { 'mesh.yaml': yaml.join('') } });
    const at = { namespace: 'shop', node: 'n2' };
    const server = { name: 'server', labels: { app: 'server' }, command: longLivedServerCommand(9000) };
    const answers = { name: 'answers', labels: { app: 'answers' }, command: trafficServerCommand('answers') };
    await mesh.run({ ...at, ...server }, true);
    await mesh.run({ ...at, ...answers }, true);
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  test(`${ROUNDS.length} rounds of restarts, of either end and of both, cut no connection through a tunnel`, {
    timeout: 300_000,
  }, async ({ annotate }) => {
    const at = { namespace: 'shop', node: 'n1' };
    const client = await startLongLived(mesh, { ...at, name: 'calls', host: 'server.shop', isInMesh: true });
    const host = 'answers.shop.svc.cluster.local';
    const traffic = await startTraffic(mesh, { ...at, name: 'traffic' }, [
      { name: 'new', kind: 'new', target: `${host}:8080`, pauseMs: 5 },
      { name: 'kept', kind: 'kept', target: `${host}:8080`, pauseMs: 5, count: 4 },
      { name: 'websocket', kind: 'websocket', target: `${host}:8080`, pauseMs: 20, count: 4 },
    ]);
    const took: number[] = [];
    for (const nodes of ROUNDS) {
      const startedAt = performance.now();
      const restarts = nodes.map((node) => mesh.tulle('restart', `ztunnel/${node}`));
      for (const { code } of await Promise.all(restarts)) expect(code).toBe(0);
      took.push(Math.round(performance.now() - startedAt));
      await bytesFlow([client]);
    }
    // The last words of a process that has ended may be on their way still.
    const allOf = (node: string, kind: string): Promise<Readonly<Record<string, number>>> =>
      eventually(`what ${node} handed over`, async () => {
        const met = await handedOver(mesh, node);
        return (met[`${kind} handed_over`] ?? 0) >= LONG_LIVED_CONNECTIONS && met;
      });
    const counts = { n1: await allOf('n1', 'outbound-tunnel'), n2: await allOf('n2', 'inbound-tunnel') };
    const lines = traffic.read();
    await traffic.end();
    const seen = await client.end();
    await annotate(`${capture}: restarts took ${took} ms; ${JSON.stringify(counts)}`);
    await annotate(`${capture}: ${JSON.stringify(seen)}`);
    for (const line of lines)
      if (line.what === 'stall') await annotate(`${line.loop} stood still ${line.ms} ms`);
    expect(errorsOf(seen)).toEqual([]);
    expect(lines.filter(({ what }) => what === 'failed' || what === 'cut')).toEqual([]);
    const others = Object.values(counts).flatMap((each) => Object.keys(each));
    expect(others.filter((each) => !each.endsWith('handed_over'))).toEqual([]);
  });
});
