import pino from 'pino';
import { expect, test } from 'vitest';
import { ADDRESS_TYPE } from '#api/resource.ts';
import type { Svid } from '#certs/svid.ts';
import { eventually } from '#test/kit/eventually.ts';
import { policy, service, tablesOf, workload } from '#test/kit/resources.ts';
import type { CarriedConnection } from './hand-over/carried.ts';
import { createTables } from './tables/store.ts';
import type { Tables } from './tables/tables.ts';
import type { PodInfo } from './worker-messages.ts';
import { startWorkers, type Workers } from './workers.ts';

const SVID: Svid = {
  identity: { trustDomain: 'cluster.local', namespace: 'default', serviceAccount: 'web' },
  privateKeyPem: '',
  certificateChainPem: '',
  rootsPem: '',
  serial: '4711',
  notBeforeMs: 0,
  notAfterMs: 0,
};

interface Setup extends AsyncDisposable {
  readonly workers: Workers;
  readonly crashed: number[];
  readonly wanted: Set<string>;
  /** What each worker was told, in the order of their connections to this thread. */
  readonly told: () => Promise<readonly string[]>;
}

function start(count: number, tables: Tables = createTables(), svids: readonly Svid[] = []): Setup {
  const crashed: number[] = [];
  const wanted = new Set<string>();
  const workers = startWorkers({
    count,
    config: {
      node: 'n1',
      network: '',
      clusterId: 'Kubernetes',
      clusterDomain: 'cluster.local',
      missingPolicy: 'deny',
      fabricCidrs: [],
      originalSource: true,
      hbone: {
        streamWindowBytes: 65_535,
        connectionWindowBytes: 65_535,
        frameBytes: 16_384,
        maxStreamsPerConnection: 1,
        poolIdleMs: 1,
        pingIntervalMs: 1,
        pingTimeoutMs: 1,
      },
    },
    tables,
    svids: () => svids,
    onRecords: () => undefined,
    onNeedSvid: (identity) => wanted.add(identity),
    onHandOver: () => undefined,
    onShed: () => undefined,
    onCrash: (worker) => crashed.push(worker),
    logger: pino({ enabled: false }),
    url: new URL('./testing-worker.ts', import.meta.url),
  });
  return {
    workers,
    crashed,
    wanted,
    told: async () => (await workers.connections()).map(String),
    [Symbol.asyncDispose]: () => workers.drain(0),
  };
}

function pod(name: string): PodInfo {
  return { uid: `uid-${name}`, name, namespace: 'default', serviceAccount: 'default' };
}

test('every worker is told everything, in order', async () => {
  await using setup = start(2);
  setup.workers.apply({ type: ADDRESS_TYPE, updated: [workload({})], removed: [] });
  setup.workers.setSvid(SVID);
  setup.workers.forgetIdentity('someone');
  await setup.workers.addPod(pod('web'), 0);
  const each = ['tables Address 1', 'svid 4711', 'forget someone', 'add-pod web'];
  expect(await setup.told()).toEqual([...each, ...each]);
  expect(setup.workers.areReady()).toBe(true);
});

test('a pod that one worker cannot serve is served by none', async () => {
  await using setup = start(1);
  await expect(setup.workers.addPod(pod('refused'), 0)).rejects.toMatchObject({
    code: 'REFUSED',
    message: 'the port is taken',
  });
  expect(await setup.told()).toEqual(['add-pod refused', 'remove-pod refused cut']);
});

test('a pod is removed when its connections have ended', async () => {
  await using setup = start(1);
  await setup.workers.addPod(pod('web'), 0);
  await setup.workers.addPod(pod('busy'), 0);
  await setup.workers.removePod('uid-web');
  const order: string[] = [];
  void setup.workers.removePod('uid-busy').then(() => order.push('removed'));
  await setup.told();
  order.push('still there');
  expect(order).toEqual(['still there']);
});

test('a worker that crashes is replaced by one that knows and serves the same', async () => {
  const tables = tablesOf(policy({}), service({}), workload({}));
  await using setup = start(1, tables, [SVID]);
  await setup.workers.addPod(pod('web'), 0);
  await setup.workers.addPod(pod('gone'), 0);
  await setup.workers.removePod('uid-gone');
  setup.workers.forgetIdentity('crash');
  await eventually('the crash', () => setup.crashed.length === 1);
  await eventually('the successor', () => setup.workers.areReady());
  expect(await setup.told()).toEqual([
    'tables Authorization 1',
    'tables Address 2',
    'svid 4711',
    'add-pod web',
  ]);
});

test('while a worker is being replaced, the others take its share of offered sockets', async () => {
  await using setup = start(2);
  await setup.workers.addPod(pod('web'), 0);
  setup.workers.forgetIdentity('crash-0');
  await eventually('the crash', () => setup.crashed.length === 1);
  const address = { ip: '::', port: 15001 };
  const sockets = [20, 21].map((fd) => ({ protocol: 'tcp' as const, address, fd }));
  await setup.workers.addPod(pod('cart'), 0, { pidfd: 0, sockets });
  expect(await setup.told()).toContain('add-pod cart 15001 15001');
});

test('who waits for a worker that crashes does not wait for ever', async () => {
  await using setup = start(1);
  await setup.workers.addPod(pod('busy'), 0);
  const removed = setup.workers.removePod('uid-busy');
  setup.workers.forgetIdentity('crash');
  await removed;
  expect(await setup.workers.connections()).toEqual([]);
});

test("what a worker did not come to have before it crashed is somebody else's to do, once", async () => {
  await using setup = start(2);
  await eventually('both', () => setup.workers.areReady());
  const lost: string[] = [];
  const adopt = (podUid: string): boolean =>
    setup.workers.adopt(connectionOf(podUid), () => {
      lost.push(podUid);
      adopt(podUid);
    });
  expect(['first', 'second'].map(adopt)).toEqual([true, true]);
  await setup.told();
  setup.workers.forgetIdentity('crash-0');
  adopt('third');
  await eventually('the crash', () => setup.crashed.length === 1);
  expect(lost).toEqual(['third']);
  expect(await setup.told()).toEqual(['adopt second', 'forget crash-0', 'adopt third']);
});

function connectionOf(podUid: string): CarriedConnection {
  const peer = { address: '10.0.0.1:1' };
  return {
    ...{ id: 'a'.repeat(32), kind: 'passthrough', podUid, sockets: [] },
    record: {
      facts: { direction: 'outbound', source: peer, destination: peer, security: 'unknown' },
      info: { podUid, direction: 'outbound', source: '', destination: '', protocol: 'TCP' },
      openedAtMs: 1,
      told: { received: 0, sent: 0 },
    },
  };
}

test('a worker says which certificate it lacks', async () => {
  await using setup = start(1);
  await eventually('the wish', () => setup.wanted.has('spiffe://cluster.local/ns/default/sa/of-0'));
});

test('a drain ends the threads when they say so, or after the time', async () => {
  const quick = start(2);
  await quick.workers.drain(60_000);
  expect(quick.workers.areReady()).toBe(false);
  const slow = start(1);
  await slow.workers.addPod(pod('busy'), 0);
  await slow.workers.drain(0);
  expect([slow.workers.areReady(), slow.crashed]).toEqual([false, []]);
});
