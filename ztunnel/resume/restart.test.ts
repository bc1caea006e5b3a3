import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Resource } from '#api/resource.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { CarriedNode } from '#test/kit/carried-node.ts';
import { eventually } from '#test/kit/eventually.ts';
import { LoopbackPods } from '#test/kit/loopback-pods.ts';
import { policy, workload } from '#test/kit/resources.ts';

/** Two byte workers, as of two nodes, that are replaced while `web` on the first calls `cart` on the second. */

const MIB = 1 << 20;
const WEB = '127.0.46.1';
const CART = '127.0.46.2';
const CART_PORT = { ip: CART, port: 8080 };

const web = workload({ name: 'web', serviceAccount: 'web', addresses: [WEB] });
const cart = workload({ name: 'cart', serviceAccount: 'cart', node: 'n2', addresses: [CART] });
const deny = policy({ name: 'deny', action: 'DENY', rules: [{ clauses: [] }] });

let ca: TemporaryAuthority;
let pods: LoopbackPods;
let nodes: CarriedNode[];
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
  nodes = [];
  servers = [];
  sockets = [];
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  for (const node of nodes) await node.request({ kind: 'drain', deadlineMs: 0 });
  for (const server of servers) server.close();
});

type Name = 'n1' | 'n2';

async function start(name: Name, ...more: readonly Resource[]): Promise<CarriedNode> {
  const node = new CarriedNode(pods, name);
  nodes.push(node);
  await node.learn(web, cart, ...more);
  const [pod, account] = name === 'n1' ? [web, 'web'] : [cart, 'cart'];
  await node.tell({ kind: 'svid', svid: await ca.svid(`spiffe://cluster.local/ns/default/sa/${account}`) });
  await node.serve(pod);
  return node;
}

/** Both nodes as they are now. */
interface Mesh {
  n1: CarriedNode;
  n2: CarriedNode;
}

async function mesh(): Promise<Mesh> {
  return { n1: await start('n1'), n2: await start('n2') };
}

/** Replaces nodes, all at once; resolves when the old ones have drained. */
async function restart(all: Mesh, names: readonly Name[], ...more: readonly Resource[]): Promise<void> {
  const replaced: (readonly [old: CarriedNode, next: CarriedNode])[] = [];
  for (const name of names) {
    const old = all[name];
    all[name] = await start(name, ...more);
    replaced.push([old, all[name]]);
  }
  await Promise.all(replaced.map(([old, next]) => old.retire(next)));
}

/** The application behind `cart`: its end of the next connection. */
async function application(): Promise<{ readonly accepted: () => Promise<Socket> }> {
  const accepted: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    sockets.push(socket);
    accepted.push(socket);
  });
  servers.push(server);
  await pods.serve(server, CART_PORT);
  return { accepted: () => eventually('a call', () => accepted.shift()) };
}

interface Call {
  readonly all: Mesh;
  readonly caller: Socket;
  readonly callee: Socket;
}

async function connected(): Promise<Call> {
  const all = await mesh();
  const { accepted } = await application();
  const caller = pods.call(WEB, CART_PORT);
  sockets.push(caller);
  caller.write('x');
  const callee = await accepted();
  expect(String(await once(callee, 'data'))).toBe('x');
  return { all, caller, callee };
}

function reader(socket: Socket): { readonly hash: Promise<string>; readonly size: () => number } {
  const hash = createHash('sha256');
  let size = 0;
  socket.on('data', (bytes: Buffer) => {
    size += bytes.length;
    hash.update(bytes);
  });
  return { hash: once(socket, 'end').then(() => hash.digest('hex')), size: () => size };
}

/** From 0 to below 1, the same in each run. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function exchange(from: Socket, to: Socket, text: string): Promise<void> {
  from.write(text);
  expect(String(await once(to, 'data'))).toBe(text);
}

test.each([[['n1']], [['n2']], [['n1', 'n2']]] satisfies [Name[]][])(
  'five restarts in a row of %j under load in both directions cut nothing and lose no byte',
  async (names) => {
    const { all, caller, callee } = await connected();
    const [up, down] = [randomBytes(40 * MIB), randomBytes(40 * MIB)];
    const [atCallee, atCaller] = [reader(callee), reader(caller)];
    caller.end(up);
    callee.end(down);
    for (let time = 1; time <= 5; time++) {
      await eventually('some more bytes', () => atCallee.size() > time * 3 * MIB);
      await restart(all, names);
    }
    expect(await atCallee.hash).toBe(digest(up));
    expect(await atCaller.hash).toBe(digest(down));
    const [out, into] = [await all.n1.record(), await all.n2.record()];
    for (const record of [out, into]) {
      expect(record).toMatchObject({ event: 'closed', flags: '-', totalReceivedBytes: up.length + 1 });
      expect(record.totalSentBytes).toBe(down.length);
      expect(record.error).toBeUndefined();
    }
    expect(nodes.flatMap(({ records }) => records.filter(({ event }) => event === 'closed'))).toHaveLength(2);
  },
);

test('restarts of both ends that overlap in any way cut nothing', async () => {
  const { all, caller, callee } = await connected();
  const bytes = randomBytes(40 * MIB);
  const atCallee = reader(callee);
  caller.write(bytes);
  const random = seeded(7);
  const restartSome = async (name: Name): Promise<void> => {
    for (let time = 0; time < 6; time++) {
      await restart(all, [name]);
      for (let turn = Math.floor(random() * 30); turn > 0; turn--) await nextTurn();
    }
  };
  await Promise.all([restartSome('n1'), restartSome('n2')]);
  caller.end();
  expect(await atCallee.hash).toBe(digest(bytes));
});

test.each([[['n1']], [['n2']], [['n1', 'n2']]] satisfies [Name[]][])(
  'an idle connection outlives a restart of %j, and a half-closed one stays that',
  async (names) => {
    const { all, caller, callee } = await connected();
    await restart(all, names);
    await exchange(caller, callee, 'still there');
    await exchange(callee, caller, 'and back');
    const ended = once(callee, 'end');
    caller.end();
    await ended;
    await restart(all, names);
    const atCaller = reader(caller);
    callee.end('the answer');
    expect(await atCaller.hash).toBe(digest(Buffer.from('the answer')));
  },
);

test('bytes are counted once, by whoever carried them, and the record tells all', async () => {
  const { all, caller, callee } = await connected();
  await exchange(caller, callee, '12345');
  const before = all.n1;
  await restart(all, ['n1']);
  await exchange(caller, callee, '678');
  caller.end();
  callee.end();
  const record = await all.n1.record();
  expect(record.totalReceivedBytes).toBe(9);
  const sum = (node: CarriedNode): number =>
    node.records.reduce((total, { receivedBytes }) => total + receivedBytes, 0);
  expect([sum(before), sum(all.n1)]).toEqual([6, 3]);
  expect(before.records.map(({ event }) => event)).toEqual(['opened', 'progress', 'left']);
  expect(all.n1.outcomes).toEqual(['outbound-tunnel handed_over']);
});

test('a connection that a new policy denies ends with the restart', async () => {
  const { all, caller } = await connected();
  await restart(all, ['n2'], deny);
  await eventually('a reset', () => caller.destroyed);
  expect(await all.n2.record()).toMatchObject({ event: 'closed', flags: 'DENY' });
  expect((await all.n1.record()).error).toMatch(/not taken up after a restart: http status: 401/);
  expect(all.n2.outcomes).toEqual(['inbound-tunnel reset_denied']);
});

test('what nobody takes up is reset at both ends', async () => {
  const { all, caller, callee } = await connected();
  // The next ztunnel takes it, and is gone.
  const lost = new CarriedNode(pods, 'n1');
  void all.n1.retire(lost);
  await eventually('a reset', () => caller.destroyed && callee.destroyed);
  expect(all.n2.outcomes).toContain('inbound-tunnel unclaimed');
});

test('a restart without a successor drains, and the connection stays', async () => {
  const { all, caller, callee } = await connected();
  const old = all.n2;
  all.n2 = await start('n2');
  const drained = old.request({ kind: 'drain', deadlineMs: 20_000 });
  await exchange(caller, callee, 'still the old one');
  caller.end();
  callee.end();
  await drained;
  expect((await old.record()).error).toBeUndefined();
});

test('with the successor gone a caller goes on where it was', async () => {
  const { all, caller, callee } = await connected();
  const drained = all.n1.retire();
  await exchange(caller, callee, 'by the same one');
  caller.end();
  callee.end();
  await drained;
  expect((await all.n1.record()).error).toBeUndefined();
});
