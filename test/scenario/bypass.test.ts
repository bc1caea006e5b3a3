import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Attempt, addressOf, type Observer, startObserver, tryFrom } from '#test/kit/bypass.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, type MeshStatus, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml } from '#test/kit/yaml.ts';

/** What the mesh does with an attempt: carry it, or refuse it for that reason. `harmless`: the kernel itself sends nothing. */
type Expected = 'captured' | 'harmless' | string;

interface Row {
  readonly way: string;
  /** By whether the attempt is over IPv4 or IPv6; none: it is not made. */
  readonly v4?: Expected;
  readonly v6?: Expected;
  /** Nothing leaves a pod outside of the mesh either; the others prove that the observer would see it. */
  readonly unseen?: boolean;
}

const both = (expected: Expected): Pick<Row, 'v4' | 'v6'> => ({ v4: expected, v6: expected });

const ROWS: readonly Row[] = [
  { way: 'connect', ...both('captured') },
  { way: 'mark', ...both('captured') },
  { way: 'mptcp', ...both('captured') },
  { way: 'fast_open', ...both('captured') },
  { way: 'fast_open_at_connect', ...both('captured') },
  { way: 'mapped', v4: 'captured' },
  { way: 'device', ...both('captured') },
  { way: 'io_uring', ...both('captured') },
  { way: 'again', ...both('captured') },
  { way: 'bound', ...both('captured') },
  { way: 'bound_port', ...both('captured') },
  { way: 'transparent', ...both('harmless') },
  { way: 'loopback_source', ...both('captured'), unseen: true },
  { way: 'alias_source', v4: 'captured', unseen: true },
  { way: 'mesh_port_outbound', ...both('mesh_port_bound') },
  { way: 'mesh_port_inbound', ...both('mesh_port_bound') },
  { way: 'mesh_port_tunnel', ...both('mesh_port_bound') },
  { way: 'mesh_port_dns', ...both('mesh_port_bound') },
  { way: 'source_routed', v4: 'egress_tcp' },
  { way: 'segment_routed', v6: 'egress_fragment' },
  { way: 'destination_options', v6: 'captured' },
  { way: 'hop_options', v6: 'captured' },
  { way: 'datagram', ...both('udp_outbound') },
  { way: 'datagram_unconnected', ...both('udp_outbound') },
  { way: 'datagram_large', ...both('udp_outbound') },
  { way: 'datagram_source', ...both('udp_outbound') },
  { way: 'datagram_own_first', ...both('udp_outbound') },
  { way: 'datagram_io_uring', ...both('udp_outbound') },
  { way: 'source_routed_datagram', v4: 'udp_outbound' },
  { way: 'udplite', ...both('egress_protocol') },
  { way: 'raw_syn', ...both('egress_raw') },
  { way: 'raw_syn_data', ...both('egress_raw') },
  { way: 'raw_data', ...both('egress_raw') },
  { way: 'raw_transport_syn', ...both('egress_raw') },
  { way: 'raw_datagram', ...both('egress_raw') },
  { way: 'raw_sctp', ...both('egress_protocol') },
  { way: 'raw_unknown', ...both('egress_protocol') },
  { way: 'raw_fragments', v4: 'egress_fragment' },
  { way: 'raw_datagram_fragments', v4: 'egress_raw' },
  { way: 'raw_fragment_ipv6', v6: 'egress_fragment' },
  { way: 'raw_options_ipv6', v6: 'egress_fragment' },
  { way: 'frame_syn', ...both('egress_raw') },
  { way: 'frame_data', ...both('egress_raw') },
  { way: 'frame_datagram', ...both('egress_raw') },
  { way: 'frame_whole', ...both('egress_raw') },
  { way: 'frame_past_queue', ...both('egress_raw') },
  { way: 'frame_vlan', ...both('egress_protocol') },
  { way: 'frame_unknown', ...both('egress_protocol') },
  { way: 'frame_fragment', v4: 'egress_fragment' },
];

const CASES = ROWS.flatMap((row) =>
  (['v4', 'v6'] as const).flatMap((family) => {
    const expected = row[family];
    return expected === undefined ? [] : [{ way: row.way, family, expected, unseen: row.unseen === true }];
  }),
).map((row, index) => ({ ...row, name: `${row.way} over IP${row.family}`, port: 20_000 + index }));

type Case = (typeof CASES)[number];

/** What is not a reason. */
const KINDS: ReadonlySet<string> = new Set(['captured', 'harmless']);

/**
 * `shop/web-1` and `plain/web-1` on n1, the second outside of the mesh, may both make packets by hand (NET_RAW); both try
 * to reach `shop/catalog-1` on n2, which is strict. An observer sees what leaves the pods of n1.
 */
describe('with eBPF', () => {
  let mesh: Mesh;
  let web: WorkloadStatus;
  let plain: WorkloadStatus;
  let catalog: WorkloadStatus;
  let observer: Observer;

  beforeAll(async () => {
    const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
    mesh = await openMesh({
      files: { 'mesh.yaml': namespaceYaml('shop', true) + namespaceYaml('plain', false) + strict },
      flags: ['--capture', 'ebpf'],
    });
    const flags = ['--cap-add', 'NET_RAW'];
    const idle = { node: 'n1', flags, command: ['sleep', 'infinity'] };
    [web, plain, catalog] = await Promise.all([
      mesh.run({ ...idle, namespace: 'shop', name: 'web-1' }, true),
      mesh.run({ ...idle, namespace: 'plain', name: 'web-1' }, false),
      mesh.run({ namespace: 'shop', name: 'catalog-1', node: 'n2', command: serverCommand('c') }, true),
    ]);
    await eventually('the mesh carries', async () => (await curl()).code === 0);
    const nodeNetns = (await mesh.status()).nodes.find(({ name }) => name === 'n1')?.netns ?? '';
    observer = await startObserver(nodeNetns);
    await Promise.all([
      tryFrom(mesh, 'shop/web-1', CASES.map(attemptOf(web))),
      tryFrom(mesh, 'plain/web-1', CASES.map(attemptOf(plain))),
    ]);
    const last = { way: 'datagram_unconnected', port: 29_999, host: addressOf(catalog, 'v4'), own: '' };
    await tryFrom(mesh, 'plain/web-1', [last]);
    await observer.until(last);
  });
  afterAll(async () => {
    await observer?.[Symbol.asyncDispose]();
    await mesh?.[Symbol.asyncDispose]();
  });

  const curl = (): ReturnType<Mesh['exec']> =>
    mesh.exec('shop/web-1', ['curl', '-gsS', '-m', '5', `http://${addressOf(catalog, 'v4')}:8080/`]);

  const attemptOf =
    (from: WorkloadStatus) =>
    ({ way, family, port }: Case): Attempt => {
      const [own, via] = [addressOf(from, family), addressOf(catalog, family)];
      const isRouted = way.startsWith('source_routed') || way.startsWith('segment_routed');
      return { way, port: from === web ? port : port + 1_000, own, via, host: isRouted ? own : via };
    };

  test.each(CASES)('$name leaves no strict pod: $expected', (tried) => {
    expect(observer.leakOf(attemptOf(web)(tried))).toEqual([]);
    if (!tried.unseen) expect(observer.leakOf(attemptOf(plain)(tried))).not.toEqual([]);
    const carried = mesh
      .accessLog('n1')
      .filter((record) =>
        [record['dst.addr'], record['dst.hbone_addr']].some((to) => String(to).endsWith(`:${tried.port}`)),
      );
    expect(carried.length > 0).toBe(tried.expected === 'captured');
  });

  test('ports of the ztunnel, its own and those of others, give a pod nothing', async () => {
    const hosts = [web, catalog].flatMap((one) => [addressOf(one, 'v4'), addressOf(one, 'v6')]);
    const ports = [15001, 15006, 15008, 15053, 15064];
    const before = mesh.accessLog('n1').length + mesh.accessLog('n2').length;
    const attempts = [...hosts, '127.0.0.1', '::1', '127.64.0.1'].flatMap((host) =>
      ports.map((port) => ({ way: 'connect', port, host, own: '' })),
    );
    const outcomes = await tryFrom(mesh, 'shop/web-1', attempts);
    expect(outcomes).not.toContain('answered');
    const last = { way: 'datagram_unconnected', port: 29_998, host: addressOf(catalog, 'v4'), own: '' };
    await tryFrom(mesh, 'plain/web-1', [last]);
    await observer.until(last);
    expect(observer.packets.filter(({ marker }) => ports.includes(marker))).toEqual([]);
    // Nor does one of them go round and round.
    const records = mesh.accessLog('n1').length + mesh.accessLog('n2').length - before;
    expect(records).toBeLessThanOrEqual(2 * attempts.length);
    expect((await curl()).code).toBe(0);
  });

  test('what was refused is counted by its reason', async () => {
    const wanted = new Map<string, number>();
    for (const { expected } of CASES) wanted.set(expected, (wanted.get(expected) ?? 0) + 1);
    const counted = (reason: string, { workloads }: MeshStatus): number =>
      workloads.find(({ netns }) => netns === web.netns)?.refused?.[reason] ?? 0;
    const reasons = [...wanted.keys()].filter((reason) => !KINDS.has(reason));
    const enough = (status: MeshStatus): boolean =>
      reasons.every((reason) => counted(reason, status) >= (wanted.get(reason) ?? 0));
    await mesh.until('all are counted', enough);
  });
});
