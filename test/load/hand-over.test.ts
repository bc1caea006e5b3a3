import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endProcess, mustRun } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { newConnectionsCommand, serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, serviceYaml } from '#test/kit/yaml.ts';

const RESTARTS = 10;
/** One client dials through the ztunnel of its node, another comes in plain text to the ztunnel of the server's. */
const CLIENTS = [
  { namespace: 'shop', name: 'dials-out', host: 'catalog.shop.svc.cluster.local' },
  { namespace: 'outside', name: 'dials-in', host: 'catalog.open.svc.cluster.local' },
];

interface NewConnections {
  readonly connections: Counted;
  readonly queries: Counted;
}

interface Counted {
  readonly ok: number;
  readonly errors: readonly string[];
  readonly longestMs: number;
}

describe.for(['auto', 'nftables'])('with --capture %s', (capture) => {
  let mesh: Mesh;

  beforeAll(async () => {
    const namespaces = [
      namespaceYaml('shop', true),
      namespaceYaml('open', true),
      namespaceYaml('outside', false),
    ];
    const services = [serviceYaml('shop', 'catalog'), serviceYaml('open', 'catalog')];
    const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
    mesh = await openMesh({
      flags: ['--capture', capture],
      files: { 'mesh.yaml': [...namespaces, ...services, strict].join('') },
    });
    for (const namespace of ['shop', 'open']) {
      const server = { namespace, name: 'catalog-1', node: 'n2', labels: { app: 'catalog' } };
      await mesh.run({ ...server, command: serverCommand('c') }, true);
    }
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  test(`${RESTARTS} restarts at both ends refuse or reset no new connection, and lose no query`, {
    timeout: 300_000,
  }, async ({ annotate }) => {
    const loads = await Promise.all(CLIENTS.map((client) => startLoad(mesh, client)));
    await withoutMigration(mesh);
    const before = await socketsOfZtunnels(mesh);
    for (let restart = 0; restart < RESTARTS; restart++) {
      const done = loads.map(({ soFar }) => soFar().connections.ok);
      const results = await Promise.all(
        ['ztunnel/n1', 'ztunnel/n2'].map((name) => mesh.tulle('restart', name)),
      );
      expect(results.map(({ code }) => code)).toEqual([0, 0]);
      await eventually('the load goes on', () =>
        loads.every(({ soFar }, index) => soFar().connections.ok > (done[index] ?? 0) + 50),
      );
    }
    const after = await socketsOfZtunnels(mesh);
    const outcomes = await Promise.all(loads.map(({ end }) => end()));
    for (const [index, outcome] of outcomes.entries()) {
      await annotate(`${capture}, ${CLIENTS[index]?.name}: ${JSON.stringify(outcome)}`);
    }
    expect(
      outcomes.flatMap(({ connections, queries }) => [...connections.errors, ...queries.errors]),
    ).toEqual([]);
    expect(before.length).toBeGreaterThanOrEqual(3 * 7);
    expect(after).toEqual(before);
  });
});

interface Load {
  readonly soFar: () => NewConnections;
  readonly end: () => Promise<NewConnections>;
}

async function startLoad(mesh: Mesh, { namespace, name, host }: (typeof CLIENTS)[number]): Promise<Load> {
  const file = join(mesh.directory, `${name}.json`);
  const read = (path: string): NewConnections => JSON.parse(readFileSync(path, 'utf8')) as NewConnections;
  const command = newConnectionsCommand(host, 8080, 8, file);
  const { child } = await mesh.run({ namespace, name, node: 'n1', command }, namespace === 'shop');
  await eventually('the load runs', () => read(`${file}.live`).connections.ok > 50, 20_000);
  return {
    soFar: () => read(`${file}.live`),
    end: async () => {
      await endProcess(child);
      return read(file);
    },
  };
}

/** Has the kernel throw away what waits in a listening socket when it is closed, as it does unless told otherwise. */
async function withoutMigration(mesh: Mesh): Promise<void> {
  for (const { netns } of (await mesh.status()).workloads) {
    await inNetns(netns, ['sh', '-c', 'echo 0 > /proc/sys/net/ipv4/tcp_migrate_req']);
  }
}

/** The sockets in the enrolled workloads' namespaces that ztunnels listen on, by their inodes. */
async function socketsOfZtunnels(mesh: Mesh): Promise<readonly string[]> {
  const enrolled = (await mesh.status()).workloads.filter((workload) => workload.enrolled);
  const listed = await Promise.all(enrolled.map(({ netns }) => inNetns(netns, ['ss', '-Hlntue'])));
  const own = listed.flatMap((lines) => lines.split('\n').filter((line) => /:15\d{3}\s/.test(line)));
  return own.map((line) => /\bino:(\d+)/.exec(line)?.[1] ?? line).toSorted();
}

async function inNetns(netns: string, command: readonly string[]): Promise<string> {
  return mustRun(['nsenter', `--net=/run/netns/${netns}`, ...command]);
}
