import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { METHODS } from '#test/kit/capture-bed.ts';
import { mustRun } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { PYTHON } from '#test/kit/socket-calls.ts';
import { namespaceYaml, peerAuthenticationYaml } from '#test/kit/yaml.ts';

const PROGRAM = join(import.meta.dirname, '../kit/programs/crowd.py');

interface CrowdResult {
  readonly answered: number;
  readonly errors: Readonly<Record<string, number>>;
}

/**
 * A mesh of two nodes, strict: `web-1` on n1 calls `catalog-1` and `catalog-2` on n2, and `plain/server-1`, which is not in
 * the mesh. A process has at most 20,000 descriptors: 12,000 connections are 12,000 in the caller, 12,000 and a few tunnels
 * in each of the two ztunnels, and 6,000 in each server.
 */
describe.each(METHODS)('%s', (method) => {
  let mesh: Mesh;
  let web: WorkloadStatus;
  let catalogs: readonly WorkloadStatus[];
  let plain: WorkloadStatus;

  beforeAll(async () => {
    const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
    mesh = await openMesh({
      files: { 'mesh.yaml': namespaceYaml('shop', true) + namespaceYaml('plain', false) + strict },
      flags: ['--capture', method],
    });
    const serve = [PYTHON, PROGRAM, 'serve', '9000'];
    const shop = { namespace: 'shop', command: serve };
    [web, plain, ...catalogs] = await Promise.all([
      mesh.run({ ...shop, name: 'web-1', node: 'n1' }, true),
      mesh.run({ namespace: 'plain', name: 'server-1', node: 'n2', command: serve }, false),
      mesh.run({ ...shop, name: 'catalog-1', node: 'n2' }, true),
      mesh.run({ ...shop, name: 'catalog-2', node: 'n2' }, true),
    ]);
    await eventually(
      'all of them answer',
      async () => (await crowd({ targets: [...catalogs, plain], count: 3 })).answered === 3,
    );
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  async function crowd(options: {
    readonly targets: readonly WorkloadStatus[];
    readonly count: number;
    readonly bind_from?: number;
  }): Promise<CrowdResult> {
    const targets = options.targets.map(({ addresses }) => [addresses[0], 9000]);
    const call = JSON.stringify({ ...options, targets });
    const { stdout, stderr } = await mesh.exec('shop/web-1', [PYTHON, PROGRAM, 'call', call], 90_000);
    expect(stderr).toBe('');
    return JSON.parse(stdout) as CrowdResult;
  }

  /** Which ports connections of a workload's namespace start from, for the length of a test. */
  async function ports(workload: WorkloadStatus, range: string): Promise<AsyncDisposable> {
    const file = '/proc/sys/net/ipv4/ip_local_port_range';
    const within = ['ip', 'netns', 'exec', workload.netns];
    const before = await mustRun([...within, 'cat', file]);
    const set = (value: string) => mustRun([...within, 'sh', '-c', `echo ${value} > ${file}`]);
    await set(range);
    return { [Symbol.asyncDispose]: async () => void (await set(before.trim())) };
  }

  /** Errors of the connections that a node's ztunnel could not carry, since then. */
  function errorsSince(node: string, start: number): readonly string[] {
    return mesh
      .accessLog(node)
      .slice(start)
      .flatMap((record) => (typeof record['error'] === 'string' ? [record['error']] : []));
  }

  test('12,000 connections at once from one pod to two destinations need 7,000 ports', async () => {
    await using _ports = await ports(web, '32768 39767');
    expect(await crowd({ targets: catalogs, count: 12_000 })).toEqual({ answered: 12_000, errors: {} });
  });

  test('a caller that is out of ports is told so', async () => {
    await using _ports = await ports(web, '45000 45099');
    const { answered, errors } = await crowd({ targets: catalogs, count: 600 });
    expect(answered).toBeGreaterThanOrEqual(100);
    expect(errors).toEqual({ EADDRNOTAVAIL: 600 - answered });
  });

  test('a ztunnel that is out of ports says so', async () => {
    const start = mesh.accessLog('n1').length;
    await using _ports = await ports(web, '50000 50019');
    const { answered } = await crowd({ targets: [plain], count: 60, bind_from: 20_000 });
    expect(answered).toBeLessThanOrEqual(20);
    await eventually('the failed ones are in the log', () =>
      errorsSince('n1', start).some((error) => /has no port left/.test(error)),
    );
  });

  test.each([
    { node: 'n1', side: 'caller' },
    { node: 'n2', side: 'server' },
  ])(
    'a ztunnel on the side of the $side that is out of descriptors refuses, and goes on after',
    async ({ node }) => {
      const pid = (await mesh.status()).nodes.find(({ name }) => name === node)?.ztunnel?.pid ?? 0;
      const start = mesh.accessLog(node).length;
      const limit = ['prlimit', '--pid', `${pid}`];
      const before = (await mustRun([...limit, '--nofile', '--raw', '--noheadings', '-o', 'SOFT'])).trim();
      const open = readdirSync(`/proc/${pid}/fd`).length;
      await mustRun([...limit, `--nofile=${open + 40}:`]);
      try {
        const { answered, errors } = await crowd({ targets: catalogs, count: 200 });
        expect(answered).toBeGreaterThan(10);
        expect(answered).toBeLessThan(200);
        expect(errors).not.toHaveProperty('timeout');
        // What was accepted and could not be carried on has a record; what was not accepted has none.
        if (node === 'n2')
          await eventually('it says so', () =>
            errorsSince(node, start).some((error) => /descriptors of this process are in use/.test(error)),
          );
      } finally {
        await mustRun([...limit, `--nofile=${before}:`]);
      }
      await eventually(
        'it carries again',
        async () => (await crowd({ targets: catalogs, count: 200 })).answered === 200,
      );
    },
  );
});
