import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Explanation } from '#cli/explain/explanation.ts';
import { endProcess, runCommand } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, type MeshStatus, openMesh, TULLE } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';

describe('the command line with a mesh that runs', () => {
  let mesh: Mesh;

  beforeAll(async () => {
    const policy = policyYaml(
      'shop',
      'p',
      '{selector: {matchLabels: {app: catalog}}, rules: [{from: [{source: {principals: ["*/sa/web"]}}]}]}',
    );
    mesh = await openMesh({
      files: {
        'shop.yaml':
          namespaceYaml('shop', true) +
          namespaceYaml('outside', false) +
          serviceYaml('shop', 'catalog') +
          policy,
      },
      flags: ['--external-node', 'other'],
    });
    const idle = { command: ['sleep', 'infinity'] };
    await mesh.run(
      {
        namespace: 'shop',
        name: 'catalog-1',
        node: 'n2',
        labels: { app: 'catalog' },
        command: serverCommand('c'),
      },
      true,
    );
    await mesh.run({ namespace: 'shop', name: 'web-1', serviceAccount: 'web', ...idle }, true);
    await mesh.run({ namespace: 'shop', name: 'job-1', serviceAccount: 'job', ...idle }, true);
    await mesh.run({ namespace: 'outside', name: 'outsider', ...idle }, false);
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  test('a port of the host leads into a workload, past its policies', async () => {
    const forward = spawn(TULLE, ['forward', '--state', mesh.state, 'shop/catalog-1', '0:8080'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      const [line] = (await once(forward.stdout, 'data')) as [Buffer];
      const [, port = ''] = /^127\.0\.0\.1:(\d+) -> shop\/catalog-1/.exec(line.toString()) ?? [];
      const answer = await fetch(`http://127.0.0.1:${port}/bytes/100000`);
      expect((await answer.arrayBuffer()).byteLength).toBe(100_000);
    } finally {
      expect(await endProcess(forward)).toBe(0);
    }
  });

  test.each([
    { from: 'shop/web-1', outcome: 'allowed', kind: 'allow', reason: 'allowed-by-policy' },
    { from: 'shop/job-1', outcome: 'refused', kind: 'deny', reason: 'no-allow-matched' },
    { from: 'outside/outsider', outcome: 'refused', kind: 'deny', reason: 'no-allow-matched' },
  ])('what is explained for $from is what happens', async ({ from, outcome, kind, reason }) => {
    const { stdout } = await mesh.tulle('explain', '--from', from, '--to', 'catalog.shop:8080', '-o', 'json');
    const explanation = JSON.parse(stdout) as Explanation;
    expect(explanation.outcome).toBe(outcome);
    expect(explanation.routes.map(({ verdict }) => verdict)).toEqual([
      expect.objectContaining({ kind, reason, policy: 'AuthorizationPolicy shop/p' }),
    ]);
    expect(explanation.routes[0]?.verdict?.position).toMatch(/shop\.yaml:\d+:\d+$/);
    const call = await mesh.exec(from, [
      'curl',
      '-s',
      '-m',
      '5',
      '-o',
      '/dev/null',
      'http://catalog.shop:8080/',
    ]);
    expect(call.code === 0).toBe(outcome === 'allowed');
  });

  test('a reset passes through a forwarded port as a reset', async () => {
    const forward = spawn(TULLE, ['forward', '--state', mesh.state, 'shop/catalog-1', '0:9000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      const [line] = (await once(forward.stdout, 'data')) as [Buffer];
      const [, port = ''] = /:(\d+) ->/.exec(line.toString()) ?? [];
      const socket = net.connect(Number(port), '127.0.0.1');
      socket.write('reset\n');
      await expect(once(socket, 'end')).rejects.toMatchObject({ code: 'ECONNRESET' });
    } finally {
      await endProcess(forward);
    }
  });

  test('what a workload leaves running and lets go of is reaped', async () => {
    // A zombie still answers to signal 0.
    const script =
      'orphan=$(sh -c "sleep 0.1 >/dev/null & echo \\$!"); while kill -0 $orphan 2>/dev/null; do sleep 0.05; done; echo reaped';
    expect((await mesh.exec('outside/outsider', ['sh', '-c', script], 10_000)).stdout).toBe('reaped\n');
  });

  test("a node's credential is printed as it is in its file, and a node that is not there is named", async () => {
    const { stdout } = await mesh.tulle('token', '--node', 'n1');
    expect(stdout).toBe(readFileSync(join(mesh.state, 'tokens', 'n1'), 'utf8'));
    expect(statSync(join(mesh.state, 'tokens', 'n1')).mode & 0o777).toBe(0o600);
    expect(await mesh.tulle('token', '--node', 'n9')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/n9/),
    });
  });

  test('an external node has all that a ztunnel of another make reads', async () => {
    const text = readFileSync(join(mesh.state, 'run', 'other', 'ztunnel.env'), 'utf8');
    const environment = new Map(
      text
        .trim()
        .split('\n')
        .map((line) => line.split('=', 2) as [string, string]),
    );
    expect(environment.get('NODE_NAME')).toBe('other');
    for (const name of ['XDS_ROOT_CA', 'CA_ROOT_CA', 'AUTH_TOKEN', 'INPOD_UDS']) {
      expect(statSync(environment.get(name) ?? '').size).toBeGreaterThanOrEqual(0);
    }
    const { nodes } = await mesh.status();
    expect(nodes.find(({ name }) => name === 'other')?.ztunnel).toBeNull();
  });

  test('a workload runs as who it is told to, with what it is allowed, and status shows it', async () => {
    const child = startRun(mesh, 'as-nobody', '--user', 'nobody', '--cap-add', 'NET_RAW', '--label', 'a=b');
    try {
      await mesh.until('it runs', ({ workloads }) =>
        workloads.some(({ name, pid }) => name === 'as-nobody' && pid > 0),
      );
      const { stdout } = await mesh.exec('outside/as-nobody', [
        'sh',
        '-c',
        'id -un; grep CapEff /proc/self/status; echo $HOME',
      ]);
      expect(stdout).toBe('nobody\nCapEff:\t0000000000002400\n/nonexistent\n');
      const status = await mesh.tulle('status', '-o', 'json');
      const { workloads } = JSON.parse(status.stdout) as MeshStatus;
      const found = workloads.find(({ name }) => name === 'as-nobody');
      expect(found).toMatchObject({ capabilities: ['NET_RAW'], labels: { a: 'b' } });
    } finally {
      await endProcess(child);
    }
  });

  test.each([
    {
      what: 'a name that is taken',
      flags: ['--name', 'outsider'],
      code: 1,
      says: /outside\/outsider runs already/,
    },
    {
      what: 'a node that is not there',
      flags: ['--name', 'x', '--node', 'n9'],
      code: 1,
      says: /no node n9; nodes are n1, n2, other/,
    },
    { what: 'a name that is none', flags: ['--name', 'No_Name'], code: 2, says: /is not a name/ },
    {
      what: 'a user that is not there',
      flags: ['--name', 'x', '--user', 'nosuchuser'],
      code: 2,
      says: /no such user/,
    },
  ])('$what is refused', async ({ flags, code, says }) => {
    const answer = await mesh.tulle(
      'run',
      '--namespace',
      'outside',
      '--service-account',
      'x',
      ...flags,
      '--',
      'true',
    );
    expect(answer).toMatchObject({ code, stderr: expect.stringMatching(says) });
  });

  test('a workload that is to be in the mesh does not start before it is, and says what it waits for', async () => {
    expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
    const log: string[] = [];
    const child = spawn(TULLE, [...runFlags(mesh, 'shop', 'waits'), '--', 'echo', 'started'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => log.push(chunk.toString()));
    }
    const ended = once(child, 'close');
    await eventually('it says that it waits', () =>
      log.join('').includes('shop/waits waits to be in the mesh'),
    );
    expect(log.join('')).not.toContain('started');
    expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
    expect(await ended).toEqual([0, null]);
    expect(log.join('')).toContain('started');
  });
});

test('everything that the sample mesh promises holds', async () => {
  const { code, stdout, stderr } = await runCommand([TULLE, 'demo', '--check'], 100_000);
  const failed = stdout.split('\n').filter((line) => line.startsWith('FAILED'));
  // On a machine that has much else to do, pods say that they wait.
  const said = stderr
    .split('\n')
    .filter((line) => line !== '' && !line.includes(' waits to be in the mesh: '));
  expect({ code, failed, said }).toEqual({ code: 0, failed: [], said: [] });
  expect(stdout).toMatch(/all \d\d promises held/);
});

function runFlags(mesh: Mesh, namespace: string, name: string): readonly string[] {
  return ['run', '--state', mesh.state, '--namespace', namespace, '--service-account', 'x', '--name', name];
}

function startRun(mesh: Mesh, name: string, ...flags: readonly string[]): ChildProcess {
  return spawn(TULLE, [...runFlags(mesh, 'outside', name), ...flags, '--', 'sleep', 'infinity'], {
    stdio: 'ignore',
  });
}
