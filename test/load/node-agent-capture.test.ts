import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { probeTcp } from '#test/kit/netns-probe.ts';
import { type BedPod, type BedPodReport, makeNodeBed, type NodeBed } from '#test/kit/node-bed.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml } from '#test/kit/yaml.ts';

/** One pod that serves HTTP on 8080, which the node may probe, and echoes on 9000. Callers are on the node. */
let bed: NodeBed;
let catalog: BedPod;
const IN = namespaceYaml('shop', true);
const OUT = namespaceYaml('shop', false);

beforeAll(async () => {
  bed = await makeNodeBed('choice', OUT, 'auto');
  const probed = {
    ports: [{ name: 'http', containerPort: 8080 }],
    readinessProbe: { httpGet: { port: 'http' } },
  };
  catalog = await bed.addPod('shop', 'catalog-1', 'catalog', probed);
  const [command = '', ...args] = serverCommand('catalog-1');
  catalog.netns.spawn(command, args, { stdio: 'inherit' });
  bed.startAgent();
  await eventually('the server listens', async () => (await dial(9000)) === 'connected');
});

afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
});

function dial(port: number): Promise<string> {
  return probeTcp(bed.node, { host: '10.244.1.2', port });
}

/** How often an agent was ready. */
function ready(): number {
  return readFileSync(join(bed.state, 'logs/node-agent.log'), 'utf8').split('node agent ready').length - 1;
}

function report(): BedPodReport | undefined {
  return bed.report().find(({ uid }) => uid === catalog.uid);
}

async function enter(): Promise<void> {
  bed.configure(IN);
  await bed.until(catalog, 'enrolled');
}

async function leave(): Promise<void> {
  bed.configure(OUT);
  await bed.until(catalog, 'out');
}

test('a pod keeps the method by which it is captured until it leaves the mesh', async () => {
  await using _ztunnel = bed.startRelayZtunnel();
  await enter();
  expect(report()).toMatchObject({ capture: 'ebpf' });
  expect(report()).not.toHaveProperty('captureReason');
  await bed.stopAgent('SIGKILL');

  bed.startAgent('nftables');
  await eventually('the next one is ready', () => ready() === 2);
  expect(report()).toMatchObject({ capture: 'ebpf', state: 'enrolled' });
  expect(await catalog.netns.exec('nft', ['list', 'ruleset'])).toBe('');
  await leave();
  await enter();
  expect(report()).toMatchObject({ capture: 'nftables', captureReason: '--capture nftables' });
  expect(await catalog.netns.exec('nft', ['list', 'ruleset'])).toContain('redirect to :15006');
  await bed.stopAgent('SIGTERM');

  bed.startAgent('ebpf');
  await eventually('adopted', () => report()?.captureReason?.includes('by packet rules before'));
  expect(report()).toMatchObject({ capture: 'nftables', state: 'enrolled' });
  await leave();
  await enter();
  expect(report()?.capture).toBe('ebpf');
  await leave();
});

test('what policies deny to all callers without identity is refused by the kernel, counted, and let in again', async () => {
  await using _ztunnel = bed.startRelayZtunnel();
  await enter();
  expect(await dial(9000)).toBe('connected');
  const allow = '{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}';
  const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
  for (const policy of [strict, policyYaml('shop', 'callers', allow)]) {
    const before = report()?.refused?.['plaintext_refused'] ?? 0;
    bed.configure(IN + policy);
    await eventually('refused', async () => (await dial(9000)) === 'ECONNREFUSED', 2_000);
    await eventually('counted', () => (report()?.refused?.['plaintext_refused'] ?? 0) > before);
    bed.configure(IN);
    await eventually('let in', async () => (await dial(9000)) === 'connected', 2_000);
  }
});

test('the node may probe the port that the pod names, and no other', async () => {
  await using ztunnel = bed.startRelayZtunnel();
  bed.configure(IN + peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}'));
  await eventually('refused', async () => (await dial(9000)) === 'ECONNREFUSED');
  expect(await dial(8080)).toBe('connected');
  expect(await probeTcp(bed.node, { host: 'fd00:10:244:1::2', port: 8080 })).toBe('connected');
  expect(await probeTcp(bed.node, { host: 'fd00:10:244:1::2', port: 9000 })).toBe('ECONNREFUSED');
  expect(ztunnel.connections()).toEqual([]);
  await leave();
});

test('pods that cannot be captured are told apart from those that can, and leave nothing behind', async () => {
  await using _ztunnel = bed.startRelayZtunnel();
  const pods = (): readonly string[] => readdirSync(join(bed.ebpf.directory, 'v1/pods'));
  const none = join(bed.state, 'not-a-namespace');
  writeFileSync(none, '');
  const object = JSON.parse(readFileSync(join(bed.state, 'pods/shop_catalog-1.json'), 'utf8'));
  const { metadata } = object;
  const annotations = { 'tulle.dev/netns': none };
  const broken = { ...object, metadata: { ...metadata, name: 'broken-1', uid: 'uid-broken', annotations } };
  writeFileSync(join(bed.state, 'pods/shop_broken-1.json'), JSON.stringify(broken));
  await enter();
  const error = await eventually(
    'it is said why',
    () => bed.report().find(({ uid }) => uid === 'uid-broken')?.error,
  );
  expect(error).toContain(none);
  expect(pods()).toHaveLength(1);

  const brief = await bed.addPod('shop', 'brief-1', 'brief');
  await bed.removePod(brief);
  await eventually('forgotten', () => bed.report().every(({ uid }) => uid !== brief.uid));
  await leave();
  expect(pods()).toEqual([]);
});

test('a pod that went while there was no agent is forgotten, once nobody keeps its namespace', async () => {
  const ztunnel = bed.startRelayZtunnel();
  const pins = (): number => readdirSync(join(bed.ebpf.directory, 'v1/pods')).length;
  const brief = await bed.addPod('shop', 'short-1', 'short');
  bed.configure(IN);
  for (const pod of [catalog, brief]) await bed.until(pod, 'enrolled');
  await bed.stopAgent('SIGKILL');
  await bed.removePod(brief);
  bed.startAgent();
  await eventually('the ztunnel is told', () => !ztunnel.pods().includes(brief.uid));
  expect(pins()).toBe(2);
  await ztunnel[Symbol.asyncDispose]();
  await eventually('swept', () => pins() === 1);
  await leave();
});

test('where eBPF cannot be, auto takes packet rules and says why, and ebpf leaves the pod as it is', async () => {
  await using _ztunnel = bed.startRelayZtunnel();
  await bed.stopAgent('SIGTERM');
  const elsewhere = join(bed.state, 'no-bpffs');
  bed.startAgent('auto', elsewhere);
  await enter();
  expect(report()).toMatchObject({
    capture: 'nftables',
    captureReason: expect.stringContaining('is not on bpffs'),
  });
  await leave();
  await bed.stopAgent('SIGTERM');

  bed.startAgent('ebpf', elsewhere);
  bed.configure(IN);
  await eventually('it waits, and says why', () => report()?.error?.includes('is not on bpffs'));
  expect(report()?.state).toBe('pending');
  expect(await catalog.netns.exec('nft', ['list', 'ruleset'])).toBe('');
  bed.configure(OUT);
  await bed.until(catalog, 'out');
});
