import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { HostPort } from '#api/address.ts';
import type { Resource } from '#api/resource.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { CarriedNode } from '#test/kit/carried-node.ts';
import { eventually } from '#test/kit/eventually.ts';
import { LoopbackPods } from '#test/kit/loopback-pods.ts';
import { policy, workload } from '#test/kit/resources.ts';
import type { CarriedConnection } from './hand-over/carried.ts';
import { podLimits } from './limits.ts';
import type { ShedReport } from './shedding.ts';
import type { FromWorker } from './worker-messages.ts';

/** Two byte workers, as of a ztunnel and its successor, that serve the same pods: `web` calls `cart`, and what is outside. */

const [WEB, CART, OUTSIDE] = ['127.0.43.1', '127.0.43.2', '127.0.43.9'];
const IDS = ['web', 'cart'].map((name) => `spiffe://cluster.local/ns/default/sa/${name}`);
const web = workload({ name: 'web', serviceAccount: 'web', addresses: [WEB] });
const cart = workload({ name: 'cart', serviceAccount: 'cart', addresses: [CART] });
const CART_PORT = { ip: CART, port: 8080 };
const OUTSIDE_PORT = { ip: OUTSIDE, port: 80 };

/** What each kind of connection is made by. */
const KINDS: readonly {
  readonly kind: CarriedConnection['kind'];
  readonly to: HostPort;
  readonly call: () => Socket;
}[] = [
  { kind: 'passthrough', to: OUTSIDE_PORT, call: () => pods.call(WEB, OUTSIDE_PORT) },
  { kind: 'plaintext', to: CART_PORT, call: () => pods.callPlain(OUTSIDE, CART_PORT) },
  { kind: 'same-node', to: CART_PORT, call: () => pods.call(WEB, CART_PORT) },
];

let ca: TemporaryAuthority;
let pods: LoopbackPods;
let old: CarriedNode;
let next: CarriedNode;
let outcomes: string[];
let carried: CarriedConnection[];
let servers: Server[];
let sockets: Socket[];

beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});
beforeEach(() => {
  pods = new LoopbackPods();
  old = new CarriedNode(pods, 'n1');
  next = new CarriedNode(pods, 'n1');
  [outcomes, carried, servers, sockets] = [[], [], [], []];
  const note = (message: FromWorker): void => {
    if (message.kind === 'hand-over') outcomes.push(`${message.of} ${message.outcome}`);
    if (message.kind === 'carried') carried.push(message.connection);
  };
  old.onOther = note;
  next.onOther = note;
});
afterEach(async () => {
  for (const node of [old, next]) await node.request({ kind: 'drain', deadlineMs: 0 });
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
});

/** A node that serves both, with certificates. */
async function start(node: CarriedNode, ...policies: readonly Resource[]): Promise<void> {
  await node.learn(web, cart, ...policies);
  for (const id of IDS) await node.tell({ kind: 'svid', svid: await ca.svid(id) });
  await node.serve(web);
  await node.serve(cart);
}

async function echoAt(to: HostPort): Promise<void> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    sockets.push(socket);
    socket.pipe(socket);
  });
  servers.push(server);
  await pods.serve(server, to);
}

async function exchange(socket: Socket, text: string): Promise<void> {
  socket.write(text);
  expect(`${(await once(socket, 'data'))[0]}`).toBe(text);
}

/** A connection over the old one, with a few bytes over it, and then given up. */
async function giveUp(
  { to, call }: (typeof KINDS)[number],
  ...policies: readonly Resource[]
): Promise<Socket> {
  await start(old);
  await echoAt(to);
  const socket = call();
  sockets.push(socket);
  await exchange(socket, 'before');
  await start(next, ...policies);
  void old.request({ kind: 'drain', deadlineMs: 30_000, handOver: true });
  await eventually('it is given up', () => carried[0]);
  return socket;
}

async function settle(outcome: 'taken' | 'kept'): Promise<CarriedConnection> {
  const [connection] = carried;
  if (connection === undefined) throw new TypeError('nothing was given up');
  await old.tell({ kind: 'settled', id: connection.id, outcome });
  return connection;
}

test('the sockets of what is taken up are among those that its pod may have', async () => {
  const limits = { ...podLimits(20_000, 1), sockets: 2 };
  const shed: ShedReport[] = [];
  next = new CarriedNode(pods, 'n1', { limits }, (reports) => shed.push(...reports));
  const [passthrough] = KINDS;
  if (passthrough === undefined) throw new TypeError('there are no kinds');
  const socket = await giveUp(passthrough);
  await next.tell({ kind: 'adopt', connection: await settle('taken') });
  await exchange(socket, 'after');
  const another = passthrough.call();
  sockets.push(another);
  await eventually('a reset', () => another.destroyed);
  await eventually('a report', () => shed.find(({ shortage }) => shortage === 'pod-sockets'));
  socket.end();
  await once(socket, 'end');
  await eventually('room again', async () => (await next.record()).event === 'closed');
  const third = passthrough.call();
  sockets.push(third);
  await exchange(third, 'welcome');
});

test.for(KINDS)('a $kind connection goes on, with one record of it all', async (kind) => {
  const socket = await giveUp(kind);
  socket.write('meanwhile');
  const connection = await settle('taken');
  expect(connection).toMatchObject({ kind: kind.kind, record: { told: { received: 6, sent: 6 } } });
  await next.tell({ kind: 'adopt', connection });
  expect(`${(await once(socket, 'data'))[0]}`).toBe('meanwhile');
  await exchange(socket, 'after');
  socket.end();
  await once(socket, 'end');
  const record = await next.record();
  expect(record).toMatchObject({ event: 'closed', totalReceivedBytes: 20, totalSentBytes: 20, flags: '-' });
  expect(record.durationMs).toBeGreaterThan(Date.now() - connection.record.openedAtMs - 1_000);
  expect(record).not.toHaveProperty('includesOpening');
  await eventually('the old one has let go of it', () => old.records.at(-1)?.event === 'left');
  expect(old.records.map(({ event }) => event)).toEqual(['opened', 'progress', 'left']);
  expect(next.records[0]?.event).toBe('joined');
  expect(outcomes).toEqual([`${kind.kind} handed_over`]);
  const bytes = [...old.records, ...next.records].reduce((sum, each) => sum + each.receivedBytes, 0);
  expect(bytes).toBe(20);
});

test.for(KINDS)('a $kind connection that is not taken goes on where it was', async (kind) => {
  const socket = await giveUp(kind);
  await settle('kept');
  await exchange(socket, 'after');
  socket.end();
  await once(socket, 'end');
  expect(await old.record()).toMatchObject({ event: 'closed', totalReceivedBytes: 11, flags: '-' });
  expect(carried).toHaveLength(1);
});

test.for(KINDS.slice(1))('a $kind connection that policy denies by then is reset', async (kind) => {
  const deny = policy({ name: 'deny', action: 'DENY', rules: [{ clauses: [] }] });
  const socket = await giveUp(kind, deny);
  const error = once(socket, 'error');
  const connection = await settle('taken');
  await next.tell({ kind: 'adopt', connection });
  expect((await error)[0]).toMatchObject({ code: 'ECONNRESET' });
  expect(await next.record()).toMatchObject({ event: 'closed', flags: 'DENY', totalReceivedBytes: 6 });
  expect(outcomes).toEqual([`${kind.kind} reset_denied`]);
});

test.for(KINDS)('a $kind connection of a pod that has gone is reset', async (kind) => {
  const socket = await giveUp(kind);
  for (const { uid } of [web, cart]) await next.request({ kind: 'remove-pod', uid, cut: true });
  const error = once(socket, 'error');
  const connection = await settle('taken');
  await next.tell({ kind: 'adopt', connection });
  expect((await error)[0]).toMatchObject({ code: 'ECONNRESET' });
  expect(await next.record()).toMatchObject({
    event: 'closed',
    error: expect.stringContaining('not served here'),
  });
  expect(outcomes).toEqual([`${kind.kind} reset_gone`]);
});

test('an adopted connection is listed, and cut by a new policy', async () => {
  const [, plaintext] = KINDS;
  if (plaintext === undefined) throw new TypeError('it is the second');
  const socket = await giveUp(plaintext);
  const connection = await settle('taken');
  await next.tell({ kind: 'adopt', connection });
  await exchange(socket, 'after');
  const { value } = await next.request({ kind: 'list-connections' });
  expect(value).toEqual([connection.record.info]);
  const error = once(socket, 'error');
  await next.learn(policy({ name: 'deny', action: 'DENY', rules: [{ clauses: [] }] }));
  expect((await error)[0]).toMatchObject({ code: 'ECONNRESET' });
  expect(await next.record()).toMatchObject({ flags: 'DENY' });
});

test('a cut that comes while it is between two processes holds when it is kept', async () => {
  const [passthrough] = KINDS;
  if (passthrough === undefined) throw new TypeError('it is the first');
  const socket = await giveUp(passthrough);
  const error = once(socket, 'error');
  const cut = old.request({ kind: 'drain', deadlineMs: 0 });
  await settle('kept');
  expect((await error)[0]).toMatchObject({ code: 'ECONNRESET' });
  await cut;
});
