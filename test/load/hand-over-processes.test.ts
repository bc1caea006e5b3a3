import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { callSocket } from '#cli/unix-http.ts';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { listeningPorts, makeZtunnelBed, POD, resolveInPod, type ZtunnelBed } from '#test/kit/ztunnel-bed.ts';

const PROGRAM = join(import.meta.dirname, '../kit/programs/ztunnel.ts');
const NAME = 'cart.shop';
const ADDRESS = ['10.96.1.0'];
/** A worker's listening sockets for a pod, and the resolver's: two addresses, two protocols. */
const [PER_WORKER, OF_RESOLVER] = [3, 4];

let bed: ZtunnelBed;
let children: ChildProcess[];
beforeEach(async () => {
  children = [];
  bed = await makeZtunnelBed();
});
afterEach(async () => {
  await Promise.all(children.map((child) => endProcess(child, 'SIGKILL')));
  await bed[Symbol.asyncDispose]();
});

interface Ztunnel {
  readonly pid: number;
  readonly socket: string;
  readonly end: (signal: NodeJS.Signals) => Promise<unknown>;
  readonly child: ChildProcess;
  readonly log: () => string;
}

function start(predecessor?: string, workers = 1): Ztunnel {
  const path = join(bed.state, `ztunnel-${children.length}`);
  const socket = `${path}.sock`;
  const address = `https://127.0.0.1:${bed.port}`;
  const flags = ['--state', bed.state, '--node', 'n1', '--name-servers', '', '--admin-socket', socket];
  const more = predecessor === undefined ? [] : ['--predecessor', predecessor];
  const log = openSync(`${path}.log`, 'w');
  const child = spawn(process.execPath, [PROGRAM, address, ...flags, ...more, '--workers', `${workers}`], {
    stdio: ['ignore', log, log],
  });
  children.push(child);
  return {
    ...{ pid: child.pid ?? 0, socket, child },
    end: (signal) => endProcess(child, signal),
    log: () => readFileSync(`${path}.log`, 'utf8'),
  };
}

async function startReady(predecessor?: string, workers = 1): Promise<Ztunnel> {
  const ztunnel = start(predecessor, workers);
  await untilReady(ztunnel);
  return ztunnel;
}

async function untilReady({ socket }: Ztunnel): Promise<void> {
  await eventually(
    'the ztunnel is ready',
    async () => (await callSocket({ socketPath: socket, path: '/healthz/ready' })).status === 200,
    20_000,
  );
}

/** A listening socket in the pod. */
interface Listening {
  readonly inode: string;
  /** Processes that have it. */
  readonly pids: readonly number[];
  /** Connections, or bytes, that wait in it. */
  readonly waiting: number;
}

async function listening(): Promise<readonly Listening[]> {
  const lines = (await bed.pod.exec('ss', ['-Hlntupe']))
    .split('\n')
    .filter((line) => /:15\d{3}\s/.test(line));
  return lines.map((line) => ({
    inode: /\bino:(\d+)/.exec(line)?.[1] ?? line,
    pids: [...new Set([...line.matchAll(/\bpid=(\d+)/g)].map(([, pid]) => Number(pid)))],
    waiting: Number(line.trim().split(/\s+/)[2]),
  }));
}

async function inodes(): Promise<readonly string[]> {
  return (await listening()).map(({ inode }) => inode).toSorted();
}

/** Sockets that a process has. */
async function inodesOf({ pid }: Ztunnel): Promise<readonly string[]> {
  const own = (await listening()).filter(({ pids }) => pids.includes(pid));
  return own.map(({ inode }) => inode).toSorted();
}

/** Connects to the pod's port 15006 many times; each is accepted by somebody, who turns it away. */
async function dialMany(times: number): Promise<void> {
  const script = `let left = ${times};
    for (let i = 0; i < ${times}; i++) require('node:net').connect(15006, '127.0.0.1')
      .on('error', () => undefined).on('close', () => { if (--left === 0) console.log('done'); });`;
  expect(await bed.pod.exec(process.execPath, ['-e', script])).toBe('done\n');
}

test('each shares the sockets of the one before, whatever the numbers of their workers', async () => {
  const first = await startReady();
  const ofFirst = await inodes();
  expect(ofFirst).toHaveLength(PER_WORKER + OF_RESOLVER);
  const second = await startReady(first.socket, 3);
  await first.end('SIGTERM');
  const ofSecond = await inodes();
  expect(ofSecond).toHaveLength(3 * PER_WORKER + OF_RESOLVER);
  expect(ofSecond).toEqual(expect.arrayContaining([...ofFirst]));
  const third = await startReady(second.socket, 2);
  await second.end('SIGTERM');
  expect(await inodesOf(third)).toEqual(ofSecond);
  await dialMany(60);
  await eventually('nothing waits', async () => (await listening()).every(({ waiting }) => waiting === 0));
  expect(await resolveInPod(bed.pod, '[::1]', NAME, 'A')).toEqual(ADDRESS);
});

test.for(['SIGKILL', 'SIGTERM'] as const)(
  'a successor that ends by %s leaves its predecessor as it was',
  async (signal) => {
    const first = await startReady();
    const before = await inodes();
    const second = start(first.socket);
    await eventually(
      'it shares all sockets',
      async () => (await inodesOf(second)).length === before.length,
      20_000,
    );
    await second.end(signal);
    expect(await inodesOf(first)).toEqual(before);
    await dialMany(10);
    for (const server of ['127.0.0.1', '[::1]']) {
      expect(await resolveInPod(bed.pod, server, NAME, 'A')).toEqual(ADDRESS);
    }
  },
);

test('a predecessor may be killed once its sockets are shared', async () => {
  const first = await startReady();
  const before = await inodes();
  const second = await startReady(first.socket);
  await first.end('SIGKILL');
  expect(await inodesOf(second)).toEqual(before);
  await dialMany(10);
  expect(await resolveInPod(bed.pod, '127.0.0.1', NAME, 'A')).toEqual(ADDRESS);
});

test('three generations at once end with the sockets of the first in the hands of the last', async () => {
  const first = await startReady();
  const before = await inodes();
  const second = start(first.socket);
  await eventually(
    'the second takes orders',
    () => callSocket({ socketPath: second.socket, path: '/logging' }),
    20_000,
  );
  const third = await startReady(second.socket);
  await Promise.all([first.end('SIGTERM'), second.end('SIGTERM')]);
  expect(await inodesOf(third)).toEqual(before);
  await dialMany(10);
  expect(await resolveInPod(bed.pod, '127.0.0.1', NAME, 'A')).toEqual(ADDRESS);
});

test('one that hangs in the hand-over is given up, and sockets are opened beside its own', async () => {
  const first = await startReady();
  first.child.kill('SIGSTOP');
  const second = await startReady(first.socket);
  expect(second.log()).toContain('predecessor hands nothing over, opening own sockets beside its');
  await first.end('SIGKILL');
  expect(await inodesOf(second)).toHaveLength(PER_WORKER + OF_RESOLVER);
  expect(await resolveInPod(bed.pod, '127.0.0.1', NAME, 'A')).toEqual(ADDRESS);
});

test('what is no ztunnel that hands over is said once, and does not matter', async () => {
  const path = join(bed.state, 'other.sock');
  const other = createServer((_, response) => response.writeHead(404).end('not found\n')).listen(path);
  const second = await startReady(path);
  other.close();
  expect(second.log()).toContain('it answered 404: not found');
  const third = await startReady(join(bed.state, 'nowhere.sock'));
  expect(third.log()).toContain('no predecessor is there, opening own sockets');
  expect(await listeningPorts(bed.pod)).toHaveLength(4);
});

test('pods come and go while two ztunnels overlap', async () => {
  const first = await startReady();
  const second = await startReady(first.socket);
  await bed.agent.del(POD.uid);
  await eventually('nobody listens', async () => (await inodes()).length === 0);
  await bed.agent.add(POD, bed.pod.path);
  expect(await inodesOf(second)).toHaveLength(PER_WORKER + OF_RESOLVER);
  expect(await inodesOf(first)).toEqual([]);
  await second.end('SIGKILL');
  await eventually('the first serves it again', async () => (await inodesOf(first)).length > 0);
  expect(await resolveInPod(bed.pod, '127.0.0.1', NAME, 'A')).toEqual(ADDRESS);
});
