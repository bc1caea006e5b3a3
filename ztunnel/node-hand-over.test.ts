import type { Socket } from 'node:net';
import pino from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import type { Entrusted } from './byte-worker.ts';
import { closeDescriptor } from './capture/in-pod-sockets.ts';
import type { CarriedConnection } from './hand-over/carried.ts';
import { duplicate } from './hand-over/descriptors.ts';
import type { Predecessor } from './hand-over/predecessor.ts';
import type { ReceiverOptions } from './hand-over/receive.ts';
import { attachSocket } from './hbone/attach-socket.ts';
import { SocketLeg } from './hbone/socket-leg.ts';
import { socketPair } from './hbone/testing.ts';
import { NodeHandOver } from './node-hand-over.ts';
import { isOfRestart } from './resume/inbound-tunnel.ts';

const OWNER = 'spiffe://cluster.local/ns/shop/sa/web';
const OTHER = 'spiffe://cluster.local/ns/shop/sa/other';

let told: [worker: number, notice: Entrusted][];
let handOver: NodeHandOver;
let sockets: Socket[];
let parked: string[];
let lose: () => void;
let hasWorker: boolean;

beforeEach(() => {
  [told, sockets, parked] = [[], [], []];
  hasWorker = false;
  handOver = new NodeHandOver({
    workers: () => ({
      tell: (worker, notice, onLost) => {
        told.push([worker, notice]);
        lose = onLost;
      },
      adopt: () => hasWorker,
      parked: (uid, count) => parked.push(`${uid} ${count}`),
    }),
    whyNot: () => undefined,
    onRecords: () => undefined,
    count: () => undefined,
    parkedBytes: 1 << 20,
    logger: pino({ level: 'silent' }),
  });
});
afterEach(() => {
  handOver.close();
  for (const socket of sockets) socket.destroy();
});

/** An application, and a connection of its socket's other end, let go of. */
async function carried(id: string): Promise<{ application: Socket; connection: CarriedConnection }> {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  near.on('error', () => undefined);
  const leg = new SocketLeg(far);
  const ignore = (): void => undefined;
  leg.start({ onData: ignore, onEnd: ignore, onDrain: ignore, onFinish: ignore, onAbort: ignore });
  if (typeof leg.descriptor !== 'number') throw new TypeError('the socket has closed');
  const peer = { address: '10.0.0.1:1' };
  const connection: CarriedConnection = {
    ...{ id, claimant: OWNER, kind: 'inbound-tunnel', podUid: 'pod' },
    record: {
      facts: { direction: 'inbound', source: peer, destination: peer, security: 'unknown' },
      info: { podUid: 'pod', direction: 'inbound', source: '', destination: '', protocol: 'HBONE' },
      openedAtMs: 1_700_000_000_000,
      told: { received: 0, sent: 0 },
    },
    sockets: [leg.detach(duplicate(leg.descriptor))],
  };
  return { application: near, connection };
}

test('what a worker claimed before it crashed is not for the one that replaces it, but for its owner', async () => {
  const [mine, others] = ['a'.repeat(32), 'b'.repeat(32)];
  handOver.hear(0, { kind: 'claim', claim: 0, id: mine, claimant: OWNER });
  handOver.workerCrashed(0);
  // Another thread, which numbers its claims anew.
  handOver.hear(0, { kind: 'claim', claim: 0, id: others, claimant: OTHER });
  const { application, connection } = await carried(mine);
  handOver.hear(1, { kind: 'park', connection });
  handOver.hear(1, { kind: 'claim', claim: 7, id: mine, claimant: OWNER });
  const [worker, notice] = await eventually('an answer', () => told[0]);
  expect([worker, notice]).toMatchObject([
    1,
    { kind: 'claimed', claim: 7, answer: { kind: 'claimed', connection: { id: mine } } },
  ]);
  expect(told).toHaveLength(1);
  expect(application.destroyed).toBe(false);
  for (const socket of connection.sockets) attachSocket(socket).abort();
});

test('what a worker claimed, and crashed before it had it, waits for its owner again', async () => {
  const { application, connection } = await carried('a'.repeat(32));
  handOver.hear(0, { kind: 'park', connection });
  handOver.hear(0, { kind: 'claim', claim: 0, id: connection.id, claimant: OWNER });
  await eventually('an answer', () => told.length === 1);
  handOver.workerCrashed(0);
  lose();
  handOver.hear(1, { kind: 'claim', claim: 0, id: connection.id, claimant: OWNER });
  await eventually('another', () => told.length === 2);
  expect(told[1]).toMatchObject([1, { kind: 'claimed', answer: { kind: 'claimed' } }]);
  expect(application.destroyed).toBe(false);
  for (const socket of connection.sockets) attachSocket(socket).abort();
});

test('what a worker kept that has crashed since is reset, not left to whoever replaces it', async () => {
  const { application, connection } = await carried('c'.repeat(32));
  handOver.hear(0, { kind: 'carried', connection });
  handOver.workerCrashed(0);
  await eventually('a reset', () => application.destroyed);
  expect(told).toEqual([]);
});

test.each([
  { what: 'waits for its caller', claimant: OWNER },
  { what: 'is to go on', claimant: undefined },
])('what comes late and $what goes on to the next process', async ({ claimant }) => {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  let said = '';
  near.on('data', (bytes) => {
    said += bytes;
  });
  let received: ReceiverOptions['onConnection'] = () => undefined;
  await handOver.receiveFrom({
    receive: async ({ onConnection }) => {
      received = onConnection;
    },
  });
  handOver.accept(far);
  expect(handOver.retire()).toBe(true);
  const { application, connection } = await carried('d'.repeat(32));
  const { claimant: _, ...unclaimed } = connection;
  received(claimant === undefined ? unclaimed : connection);
  await eventually('an offer', () => said.includes('"offer"'));
  const [descriptor] = connection.sockets.map(({ fd }) => duplicate(fd ?? -1));
  near.write(`{"type":"taken","number":1}\n`);
  await handOver.untilMoved();
  await eventually('the last word', () => said.includes('"go"'));
  expect(told).toEqual([]);
  expect(application.destroyed).toBe(false);
  if (descriptor !== undefined) closeDescriptor(descriptor);
});

test("sockets that wait here count for their pod, until each is somebody else's", async () => {
  const [one, two] = [await carried('e'.repeat(32)), await carried('f'.repeat(32))];
  for (const { connection } of [one, two]) handOver.hear(0, { kind: 'park', connection });
  await eventually('both are told', () => parked.includes('pod 2'));
  handOver.hear(1, { kind: 'claim', claim: 1, id: one.connection.id, claimant: OWNER });
  await eventually('one is left', () => parked.at(-1) === 'pod 1');
  handOver.close();
  await eventually('none is', () => parked.at(-1) === 'pod 0');
  for (const socket of one.connection.sockets) attachSocket(socket).abort();
});

test('what waited for its caller in the process before is of the restart, and what came to wait here is not', async () => {
  let received: ReceiverOptions['onConnection'] = () => undefined;
  await handOver.receiveFrom({
    receive: async ({ onConnection }) => {
      received = onConnection;
    },
  });
  const [before, here] = [await carried('a'.repeat(32)), await carried('b'.repeat(32))];
  received(before.connection);
  handOver.hear(0, { kind: 'park', connection: here.connection });
  for (const { connection } of [before, here])
    handOver.hear(0, { kind: 'claim', claim: 0, id: connection.id, claimant: OWNER });
  await eventually('both', () => told.length === 2);
  const answers = told.flatMap(([, notice]) => (notice.kind === 'claimed' ? notice.answer : []));
  const connections = answers.flatMap((each) => (each.kind === 'claimed' ? each.connection : []));
  expect(connections.map(isOfRestart)).toEqual([true, false]);
  for (const { sockets: own } of connections) for (const socket of own) attachSocket(socket).abort();
});

test('a restart is over when its predecessor has ended and all that came from it is decided', async () => {
  expect(handOver.met()).toEqual({ isOver: true, met: {} });
  let predecessor: Parameters<Predecessor['receive']>[0] | undefined;
  await handOver.receiveFrom({
    receive: async (options) => {
      predecessor = options;
    },
  });
  const connection = { ...(await carried('a'.repeat(32))).connection, kind: 'plaintext' as const };
  const { claimant: _, ...unclaimed } = connection;
  hasWorker = true;
  predecessor?.onConnection(unclaimed);
  predecessor?.onOutcome('plaintext', 'drained_closing');
  handOver.hear(0, { kind: 'hand-over', of: 'plaintext', outcome: 'handed_over' });
  const met = { plaintext: { drained_closing: 1, handed_over: 1 } };
  handOver.hear(0, { kind: 'decided', id: unclaimed.id });
  expect(handOver.met()).toEqual({ isOver: false, met });
  hasWorker = false;
  predecessor?.onConnection(connection);
  predecessor?.onEnd();
  expect(handOver.met()).toEqual({ isOver: false, met });
  handOver.close();
  expect(handOver.met()).toMatchObject({ isOver: true, met: { plaintext: { reset_late: 1 } } });
});
