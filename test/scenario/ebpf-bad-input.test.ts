import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodePod, podKey, SIZES } from '#bpf/layout.ts';
import { BpfMap } from '#bpf/maps.ts';
import { signalCgroup } from '#cli/local/cgroups.ts';
import { addressOf } from '#test/kit/bypass.ts';
import { endProcess, startLogged } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, TULLE, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { PYTHON } from '#test/kit/socket-calls.ts';
import { namespaceYaml, peerAuthenticationYaml } from '#test/kit/yaml.ts';

const WITHOUT_BPF = [PYTHON, '-B', join(import.meta.dirname, '../kit/programs/without_bpf.py')];
const STRICT = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
const FILES = { 'mesh.yaml': namespaceYaml('shop', true) + STRICT };
const IDLE = ['sleep', 'infinity'];

/** An HTTP request of one workload to another; curl's exit code. */
async function curl(mesh: Mesh, from: string, to: WorkloadStatus): Promise<number> {
  const url = `http://${addressOf(to, 'v4')}:8080/`;
  return (await mesh.exec(from, ['curl', '-sS', '-o', '/dev/null', '-m', '5', url])).code;
}

/** `shop/catalog-1` on n2 and `shop/web-1` on n1 are in the mesh. */
describe('with eBPF', () => {
  let mesh: Mesh;
  let catalog: WorkloadStatus;
  let pins: string;

  beforeAll(async () => {
    mesh = await openMesh({ files: FILES, flags: ['--capture', 'ebpf'] });
    const server = serverCommand('c');
    [catalog] = await Promise.all([
      mesh.run({ namespace: 'shop', name: 'catalog-1', node: 'n2', command: server }, true),
      mesh.run({ namespace: 'shop', name: 'web-1', node: 'n1', command: IDLE }, true),
    ]);
    pins = join('/sys/fs/bpf/tulle', basename(dirname(dirname(catalog.cgroup))));
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  /** Starts a workload of `shop` on n1 without waiting for it. */
  function begin(name: string): { readonly child: ChildProcess; readonly log: () => string } {
    const file = join(mesh.directory, `${name}.log`);
    const identity = ['--namespace', 'shop', '--service-account', 'default', '--name', name, '--node', 'n1'];
    const child = startLogged([TULLE, 'run', '--state', mesh.state, ...identity, '--', ...IDLE], file);
    return { child, log: () => readFileSync(file, 'utf8') };
  }

  async function find(name: string): Promise<WorkloadStatus | undefined> {
    return (await mesh.status()).workloads.find((one) => one.name === name);
  }

  /** A workload that cannot be enrolled yet is not started, its pins are not there by half, and all who ask are told why. */
  async function staysOut(name: string, why: RegExp): Promise<{ readonly child: ChildProcess }> {
    const before = pods();
    const { child, log } = begin(name);
    await eventually('who started it is told why', () => why.test(log()), 20_000);
    expect(await find(name)).toMatchObject({ enrolled: false, pid: null });
    expect(pods()).toEqual(before);
    expect(await curl(mesh, 'shop/web-1', catalog)).toBe(0);
    return { child };
  }

  const pods = (): readonly string[] => readdirSync(join(pins, 'v1/pods')).sort();

  async function comesIn(name: string): Promise<void> {
    await mesh.until(
      `${name} is in the mesh`,
      ({ workloads }) => workloads.some((one) => one.name === name && one.enrolled && one.capture === 'ebpf'),
      60_000,
    );
    await eventually('it is carried', async () => (await curl(mesh, `shop/${name}`, catalog)) === 0);
  }

  test('while a map is full, a pod stays out of the mesh, and comes in when there is room', async () => {
    const map = BpfMap.openPinned(join(pins, 'v1/maps/pods'), { key: SIZES.cookie, value: SIZES.pod });
    const value = Buffer.from(encodePod({ flags: 0, ip4: undefined, ip6: undefined }));
    const filling: Buffer[] = [];
    let late: ChildProcess | undefined;
    try {
      for (let cookie = 1n << 40n; filling.length <= 4096; cookie++) {
        try {
          map.update(podKey(cookie), value, 1);
        } catch {
          break;
        }
        filling.push(Buffer.from(podKey(cookie)));
      }
      expect(filling.length).toBeGreaterThan(4_000);
      late = (await staysOut('late-1', /pods.*full/)).child;
    } finally {
      for (const key of filling) map.delete(key);
      map.close();
    }
    await comesIn('late-1');
    if (late !== undefined) await endProcess(late);
  });

  test('maps of a newer version are left alone: a pod stays out, those that are in stay in', async () => {
    mkdirSync(join(pins, 'v2'));
    const processes = join(dirname(dirname(catalog.cgroup)), 'processes');
    for (const node of ['n1', 'n2']) signalCgroup(join(processes, `node-agent-${node}`), 'SIGKILL');
    const { child } = await staysOut('newer-1', /v2/);
    expect(readdirSync(join(pins, 'v2'))).toEqual([]);
    rmdirSync(join(pins, 'v2'));
    await comesIn('newer-1');
    await endProcess(child);
  });

  test('pods that vanish while they are enrolled leave nothing, and hinder nobody', async () => {
    const before = pods();
    for (const name of ['brief-1', 'brief-2', 'brief-3', 'brief-4']) {
      const { child } = begin(name);
      const { cgroup } = await eventually('it begins', async () => await find(name));
      child.kill('SIGKILL');
      signalCgroup(cgroup, 'SIGKILL');
    }
    await mesh.until('they are gone', ({ workloads }) =>
      workloads.every(({ name }) => !name.startsWith('brief')),
    );
    await eventually('their pins are gone', () => pods().every((one) => before.includes(one)), 30_000);
    expect(await curl(mesh, 'shop/web-1', catalog)).toBe(0);
  });
});

describe('on a kernel that lets nobody use bpf(2)', () => {
  test('pods are captured by packet rules, and status says why', async () => {
    await using mesh = await openMesh({ files: FILES, by: WITHOUT_BPF });
    const catalog = await mesh.run(
      { namespace: 'shop', name: 'catalog-1', node: 'n2', command: serverCommand('c') },
      true,
    );
    const web = await mesh.run({ namespace: 'shop', name: 'web-1', node: 'n1', command: IDLE }, true);
    expect([web.capture, web.captureReason]).toEqual(['nftables', expect.stringMatching(/bpf.*EPERM/)]);
    expect((await mesh.tulle('status')).stdout).toMatch(/by packet rules: .*bpf.*EPERM/);
    await eventually('the mesh carries', async () => (await curl(mesh, 'shop/web-1', catalog)) === 0);
    await endProcess(web.child);
  });
});
