import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { podAddress } from '#cli/local/addresses.ts';
import { buildFabric, type FabricNode } from '#cli/local/fabric.ts';
import { emptyInventory } from '#cli/local/inventory.ts';
import { lockForUp } from '#cli/local/lock.ts';
import { nodeNetns, podNetns } from '#cli/local/names.ts';
import { deleteNamespaces, listNamespaces, netnsPath } from '#cli/local/network-namespace.ts';
import { type PodRequest, Pods } from '#cli/local/pods.ts';
import { getProcess } from '#cli/local/process-id.ts';
import { createStateFolder, podFile, resolverFile, type StateFolder } from '#cli/local/state-folder.ts';
import { removeMesh } from '#cli/local/sweep.ts';
import { type CommandResult, mustRun, runCommand } from '#test/kit/command.ts';

const N1: FabricNode = { name: 'n1', number: 1, external: false };
const N2: FabricNode = { name: 'n2', number: 2, external: false };
const NODES = [N1, N2];

let folder: string;
let state: StateFolder;
let pods: Pods;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-fabric-'));
  state = createStateFolder(join(folder, 'state'));
  pods = new Pods(state, NODES, () => undefined);
});

afterEach(async () => {
  pods.close();
  await removeMesh(state, emptyInventory());
  rmSync(folder, { recursive: true, force: true });
});

function request(name: string, node?: string): PodRequest {
  return {
    namespace: 'shop',
    name,
    serviceAccount: 'default',
    node,
    labels: { app: name },
    ports: [],
    user: { name: 'root', uid: 0, gid: 0, home: '/root', shell: '/bin/sh' },
    capabilities: [],
    runner: getProcess(process.pid),
  };
}

/** Sends a line from one pod to another and back, by TCP. */
async function talk(from: string, to: { readonly pod: string; readonly ip: string }): Promise<CommandResult> {
  const serve = `require('net').createServer((s) => { s.pipe(s); s.on('close', () => process.exit(0)); }).listen(7000, '::', () => console.log('listening'))`;
  const call = `const s = require('net').connect(7000, '${to.ip}', () => s.write('hello')); s.on('data', (d) => { console.log(String(d)); s.end(); }); s.setTimeout(3000, () => process.exit(1))`;
  const inPod = (pod: string): string =>
    `nsenter --net=${netnsPath(podNetns(state.mesh, { namespace: 'shop', name: pod }))} ${process.execPath} -e`;
  const script = `${inPod(to.pod)} "${serve}" | { read line; ${inPod(from)} "${call}"; }`;
  return runCommand(['sh', '-c', script], 20_000);
}

test('workloads on two nodes reach each other over IPv4 and IPv6, by their own addresses', async () => {
  await buildFabric(state.mesh, NODES, new Set());
  await pods.add(request('a', 'n1'));
  await pods.add(request('b', 'n2'));
  const { v4, v6 } = podAddress(2, 2);
  for (const ip of [v4, v6]) {
    expect(await talk('a', { pod: 'b', ip })).toEqual({ code: 0, stdout: 'hello\n', stderr: '' });
  }
});

test('workloads on one node reach each other through their node', async () => {
  await buildFabric(state.mesh, NODES, new Set());
  await pods.add(request('a', 'n1'));
  await pods.add(request('b', 'n1'));
  const { stdout } = await talk('a', { pod: 'b', ip: podAddress(1, 3).v6 });
  expect(stdout).toBe('hello\n');
});

test('what is complete is left alone, what is not is made anew', async () => {
  const complete = new Set(await buildFabric(state.mesh, NODES, new Set()));
  await pods.add(request('a', 'n1'));
  const linksOf = (node: string): Promise<string> =>
    mustRun(['ip', '-n', nodeNetns(state.mesh, node), '-o', 'link']);
  const before = await linksOf('n1');
  await deleteNamespaces([nodeNetns(state.mesh, 'n2')]);
  complete.delete(nodeNetns(state.mesh, 'n2'));
  await buildFabric(state.mesh, NODES, complete);
  expect(await linksOf('n1')).toBe(before);
  await pods.add(request('b', 'n2'));
  const { stdout } = await talk('a', { pod: 'b', ip: podAddress(2, 2).v4 });
  expect(stdout).toBe('hello\n');
});

test('a node that is no longer one is gone, and its number free', async () => {
  const complete = new Set(await buildFabric(state.mesh, NODES, new Set()));
  const N3: FabricNode = { name: 'n3', number: 1, external: false };
  await buildFabric(state.mesh, [N2, N3], complete);
  expect(listNamespaces(state.mesh)).not.toContain(nodeNetns(state.mesh, 'n1'));
  const probe = [
    'nsenter',
    `--net=${netnsPath(nodeNetns(state.mesh, 'n2'))}`,
    'ip',
    'route',
    'get',
    '10.244.1.9',
  ];
  expect(await mustRun(probe)).toContain('via 10.240.0.11');
});

test('a name can be had once, and again when it is free', async () => {
  await buildFabric(state.mesh, NODES, new Set());
  const both = await Promise.allSettled([pods.add(request('a')), pods.add(request('a'))]);
  expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  await expect(pods.add(request('a'))).rejects.toThrow(/shop\/a runs already/);
  await pods.remove({ namespace: 'shop', name: 'a' });
  await pods.add(request('a'));
});

test('workloads are spread over the nodes, and an address rests before it is given out again', async () => {
  await buildFabric(state.mesh, NODES, new Set());
  const records = await Promise.all(['a', 'b', 'c', 'd'].map((name) => pods.add(request(name))));
  expect(records.map(({ node }) => node).sort()).toEqual(['n1', 'n1', 'n2', 'n2']);
  await pods.remove({ namespace: 'shop', name: 'a' });
  const again = await pods.add(request('a', records[0]?.node));
  expect(again.number).toBe(4);
});

test('a workload has a Pod object, ready once its command runs, and the resolver of its node', async () => {
  await buildFabric(state.mesh, NODES, new Set());
  const record = await pods.add(request('a', 'n2'));
  const readyNow = (): string =>
    (
      JSON.parse(readFileSync(podFile(state, record), 'utf8')) as {
        status: { conditions: { status: string }[] };
      }
    ).status.conditions[0]?.status ?? '';
  expect(readyNow()).toBe('False');
  pods.started(record, getProcess(process.pid), getProcess(process.pid));
  expect(readyNow()).toBe('True');
  expect(readFileSync(resolverFile(state, record), 'utf8')).toMatch(
    /^nameserver 10\.244\.2\.1\nsearch shop\.svc\.cluster\.local /,
  );
});

test('nothing is left when a mesh is removed, whatever was recorded of it', async () => {
  await buildFabric(state.mesh, NODES, new Set());
  await pods.add(request('a'));
  await removeMesh(state, emptyInventory());
  expect(listNamespaces(state.mesh)).toEqual([]);
  expect(
    (await runCommand(['sh', '-c', `ls -d /sys/fs/cgroup/*${state.mesh}* /sys/fs/cgroup/*/*${state.mesh}*`]))
      .stdout,
  ).toBe('');
});

test("a state folder is one process's at a time", async () => {
  const lock = await lockForUp(state);
  await expect(lockForUp(state)).rejects.toThrow(new RegExp(`in use by process ${process.pid}`));
  lock.release();
  (await lockForUp(state)).release();
});
