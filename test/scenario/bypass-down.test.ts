import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inCgroup } from '#cli/local/cgroups.ts';
import { type Attempt, addressOf, type Observer, startObserver, tryInside } from '#test/kit/bypass.ts';
import { endProcess, mustRun, runCommand, startLogged } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { PYTHON, SOCKETS } from '#test/kit/socket-calls.ts';
import { namespaceYaml, peerAuthenticationYaml } from '#test/kit/yaml.ts';

const NAMES = ['shop/web-1', 'shop/catalog-1', 'loose/web-1', 'loose/catalog-1', 'plain/web-1'] as const;
type Name = (typeof NAMES)[number];

/**
 * `shop` is strict and `loose` permissive, both in the mesh; `plain` is not. `web-1` of each is on n1, `catalog-1` on n2. An
 * observer sees what leaves the pods of n1.
 */
describe('with eBPF', () => {
  let mesh: Mesh;
  let observer: Observer;
  const workloads = new Map<Name, WorkloadStatus>();
  let port = 22_000;

  beforeAll(async () => {
    const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
    const namespaces =
      namespaceYaml('shop', true) + namespaceYaml('loose', true) + namespaceYaml('plain', false);
    mesh = await openMesh({ files: { 'mesh.yaml': namespaces + strict }, flags: ['--capture', 'ebpf'] });
    await Promise.all(NAMES.map(async (name) => workloads.set(name, await start(name))));
    const { nodes } = await mesh.status();
    observer = await startObserver(nodes.find(({ name }) => name === 'n1')?.netns ?? '');
    await eventually('the mesh carries', async () => (await curl('shop/web-1', 'shop/catalog-1')) === 0);
  });
  afterAll(async () => {
    await observer?.[Symbol.asyncDispose]();
    await mesh?.[Symbol.asyncDispose]();
  });

  function start(full: Name): Promise<WorkloadStatus> {
    const [namespace = '', name = ''] = full.split('/');
    const isWeb = name === 'web-1';
    const command = isWeb ? ['sleep', 'infinity'] : serverCommand(full);
    return mesh.run({ namespace, name, node: isWeb ? 'n1' : 'n2', command }, namespace !== 'plain');
  }

  function workload(name: Name): WorkloadStatus {
    const found = workloads.get(name);
    if (found === undefined) throw new Error(`there is no ${name}`);
    return found;
  }

  /** One HTTP request, as a process of that pod; curl's exit code. */
  async function curl(from: Name, to: Name, targetPort = 8080): Promise<number> {
    const url = `http://${addressOf(workload(to), 'v4')}:${targetPort}/`;
    return (await runAs(from, ['curl', '-gsS', '-o', '/dev/null', '-m', '3', url])).code;
  }

  /** Runs a command as a process of a pod, without asking the mesh for it. */
  function runAs(name: Name, command: readonly string[]): ReturnType<typeof runCommand> {
    const { netns, cgroup } = workload(name);
    return runCommand(inCgroup(cgroup, ['ip', 'netns', 'exec', netns, ...command]));
  }

  /** Attempts of one pod on another, each to a port of its own. */
  function attempts(from: Name, to: Name, ways: readonly string[]): readonly Attempt[] {
    return ways.flatMap((way) =>
      (way === 'mapped' ? (['v4'] as const) : (['v4', 'v6'] as const)).map((family) => ({
        way,
        port: port++,
        host: addressOf(workload(to), family),
        own: addressOf(workload(from), family),
      })),
    );
  }

  async function refusedBy(name: Name, reason: string): Promise<number> {
    const { netns } = workload(name);
    return (await mesh.status()).workloads.find((one) => one.netns === netns)?.refused?.[reason] ?? 0;
  }

  /** Waits until that many more were counted. */
  async function counted(name: Name, reason: string, before: number, more: number): Promise<void> {
    await eventually(`${more} of ${reason}`, async () => (await refusedBy(name, reason)) >= before + more);
  }

  /** Has the observer see everything that has left a pod by now. */
  async function caughtUp(): Promise<void> {
    const [last] = attempts('plain/web-1', 'shop/catalog-1', ['datagram_unconnected']);
    if (last === undefined) return;
    await tryInside(workload('plain/web-1'), 'member', [last]);
    await observer.until(last);
  }

  /** Kills a node's ztunnel, and has nobody start another one until disposed. */
  async function withoutZtunnel(node: string): Promise<AsyncDisposable> {
    const pid = (await mesh.status()).nodes.find(({ name }) => name === node)?.ztunnel?.pid ?? 0;
    mesh.up.kill('SIGSTOP');
    process.kill(pid, 'SIGKILL');
    return {
      [Symbol.asyncDispose]: async () => {
        mesh.up.kill('SIGCONT');
        await mesh.until('there is another one', ({ nodes }) =>
          nodes.some(({ name, ztunnel }) => name === node && ztunnel?.ready === true && ztunnel.pid !== pid),
        );
      },
    };
  }

  const WAYS = ['connect', 'mark', 'mapped', 'mptcp', 'fast_open', 'device', 'io_uring', 'bound'];
  const MESH_PORTS = ['mesh_port_outbound', 'mesh_port_inbound', 'mesh_port_tunnel', 'mesh_port_dns'];
  const BY_HAND = ['raw_syn_data', 'raw_data', 'frame_whole'];

  test('who has entered the network of a strict pod from outside does not get out of it', async () => {
    const tcp = attempts('shop/web-1', 'shop/catalog-1', WAYS);
    const udp = attempts('shop/web-1', 'shop/catalog-1', ['datagram', 'datagram_unconnected']);
    const raw = attempts('shop/web-1', 'shop/catalog-1', BY_HAND);
    const outcomes = await tryInside(workload('shop/web-1'), 'intruder', [...tcp, ...udp, ...raw]);
    expect(outcomes).not.toContain('answered');
    for (const refused of outcomes.slice(0, tcp.length)) expect(refused).toBe('ECONNREFUSED');
    await caughtUp();
    for (const attempt of [...tcp, ...udp, ...raw]) expect(observer.leakOf(attempt)).toEqual([]);
    await counted('shop/web-1', 'egress_tcp', 0, tcp.length);
    await counted('shop/web-1', 'udp_outbound', 0, udp.length);
    await counted('shop/web-1', 'egress_raw', 0, raw.length);
  });

  test('a server of somebody who has entered a strict pod is behind the mesh, too', async () => {
    const { netns } = workload('shop/catalog-1');
    const command = ['ip', 'netns', 'exec', netns, PYTHON, '-B', SOCKETS, 'serve', '7000'];
    const server = startLogged(command, '/dev/null');
    const target = [{ host: addressOf(workload('shop/catalog-1'), 'v4'), port: 7000 }];
    const call = async (from: Name): Promise<string> =>
      (await runAs(from, [PYTHON, '-B', SOCKETS, 'call', JSON.stringify(target)])).stdout;
    try {
      await eventually('the mesh reaches it', async () => (await call('shop/web-1')).includes('pingend'));
      expect(await call('plain/web-1')).not.toContain('pingend');
    } finally {
      await endProcess(server, 'SIGKILL');
    }
  });

  test('without a ztunnel nothing leaves a strict pod, and nobody takes the ports of the mesh; a permissive one is open', async () => {
    const before = await refusedBy('shop/web-1', 'outbound_without_ztunnel');
    const bound = await refusedBy('shop/web-1', 'mesh_port_bound');
    const tcp = attempts('shop/web-1', 'shop/catalog-1', WAYS);
    const ports = attempts('shop/web-1', 'shop/catalog-1', MESH_PORTS);
    const seen = await refusedBy('loose/web-1', 'egress_seen');
    const entered = attempts('shop/web-1', 'shop/catalog-1', MESH_PORTS);
    const other = attempts('shop/web-1', 'shop/catalog-1', [...BY_HAND, 'datagram', 'datagram_unconnected']);
    {
      await using _down = await withoutZtunnel('n1');
      const outcomes = await tryInside(workload('shop/web-1'), 'member', [...tcp, ...ports, ...other]);
      for (const refused of outcomes.slice(0, tcp.length + ports.length)) expect(refused).toBe('EPERM');
      expect(outcomes).not.toContain('answered');
      expect(await tryInside(workload('shop/web-1'), 'intruder', entered)).not.toContain('answered');
      expect(await curl('loose/web-1', 'loose/catalog-1')).toBe(0);
      await caughtUp();
    }
    for (const attempt of [...tcp, ...ports, ...entered, ...other])
      expect(observer.leakOf(attempt)).toEqual([]);
    await counted('shop/web-1', 'outbound_without_ztunnel', before, tcp.length);
    await counted('shop/web-1', 'mesh_port_bound', bound, ports.length);
    await counted('loose/web-1', 'egress_seen', seen, 1);
    await eventually('it is carried again', async () => (await curl('shop/web-1', 'shop/catalog-1')) === 0);
  });

  test('without a ztunnel a strict pod takes nothing from outside, also on the ports of the mesh; a permissive one does', async () => {
    const before = await refusedBy('shop/catalog-1', 'inbound_without_ztunnel');
    const plaintext = await refusedBy('shop/catalog-1', 'plaintext_refused');
    const dialled = await refusedBy('shop/catalog-1', 'mesh_port_dialled');
    const { netns } = workload('shop/catalog-1');
    {
      await using _down = await withoutZtunnel('n2');
      const listen =
        "for (const p of [15001, 15006, 15008]) require('net').createServer((s) => s.end('HTTP/1.0 200 OK\\r\\n\\r\\n')).listen(p, '::')";
      const squatter = startLogged(
        ['ip', 'netns', 'exec', netns, process.execPath, '-e', listen],
        '/dev/null',
      );
      try {
        await eventually('it listens', async () =>
          (await mustRun(['ip', 'netns', 'exec', netns, 'ss', '-Hltn'])).includes(':15008'),
        );
        const refused = 7; // ECONNREFUSED
        for (const own of [8080, 15001, 15006, 15008]) {
          expect([own, await curl('plain/web-1', 'shop/catalog-1', own)]).toEqual([own, refused]);
        }
      } finally {
        await endProcess(squatter, 'SIGKILL');
      }
      expect(await curl('plain/web-1', 'loose/catalog-1')).toBe(0);
    }
    await counted('shop/catalog-1', 'inbound_without_ztunnel', before, 1);
    await counted('shop/catalog-1', 'plaintext_refused', plaintext, 1);
    await counted('shop/catalog-1', 'mesh_port_dialled', dialled, 2);
    await eventually('it is carried again', async () => (await curl('shop/web-1', 'shop/catalog-1')) === 0);
  });

  test('nothing leaves a strict pod while its ztunnel is killed and started again', async () => {
    const { pid } = (await mesh.status()).nodes.find(({ name }) => name === 'n1')?.ztunnel ?? { pid: 0 };
    const [one] = attempts('shop/web-1', 'shop/catalog-1', ['connect']);
    if (one === undefined) return;
    process.kill(pid, 'SIGKILL');
    await eventually('it is carried again', async () => {
      const outcomes = await tryInside(workload('shop/web-1'), 'member', new Array<Attempt>(50).fill(one));
      return outcomes.every((outcome) => outcome === 'ECONNRESET'); // nobody listens there; so the ztunnel says
    });
    await caughtUp();
    expect(observer.leakOf(one)).toEqual([]);
  });
});
