import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { EMPTY_MATCH } from '#api/policy.ts';
import type { Resource } from '#api/resource.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { CarriedNode, workerConfig } from '#test/kit/carried-node.ts';
import { eventually } from '#test/kit/eventually.ts';
import { LoopbackPods } from '#test/kit/loopback-pods.ts';
import { policy, service, workload } from '#test/kit/resources.ts';
import { Carrier } from './carrier.ts';
import { connectHop } from './hbone/client.ts';
import type { FromWorker } from './worker-messages.ts';

/** Two byte workers, as of two nodes, without their threads: `web` on the first calls `cart` on the second. */

const WEB = '127.0.41.1';
const CART = '127.0.41.2';
const OUTSIDER = '127.0.41.9';
const CART_PORT = { ip: CART, port: 8080 };

const web = workload({ name: 'web', serviceAccount: 'web', addresses: [WEB] });
const cart = workload({
  name: 'cart',
  serviceAccount: 'cart',
  node: 'n2',
  addresses: [CART],
  services: { 'default/cart.default.svc.cluster.local': { 80: 8080 } },
});
const cartService = service({ name: 'cart', addresses: [{ network: '', ip: '10.96.7.7' }] });

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
  for (const node of nodes) await node.request({ kind: 'drain', deadlineMs: 0 });
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
});

function open(name: string): CarriedNode {
  const node = new CarriedNode(pods, name);
  nodes.push(node);
  return node;
}

/** Both nodes, knowing both workloads and these policies, with certificates. */
async function mesh(
  ...policies: readonly Resource[]
): Promise<{ readonly near: CarriedNode; readonly far: CarriedNode }> {
  const near = open('n1');
  const far = open('n2');
  for (const node of [near, far]) await node.learn(web, cart, cartService, ...policies);
  await near.tell({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/web') });
  await far.tell({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/cart') });
  await near.serve(web);
  await far.serve(cart);
  return { near, far };
}

/** The application behind `cart`. */
async function application(onConnection: (socket: Socket) => void): Promise<void> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    sockets.push(socket);
    onConnection(socket);
  });
  servers.push(server);
  await pods.serve(server, CART_PORT);
}

async function echo(): Promise<void> {
  await application((socket) => socket.pipe(socket));
}

function call(to = CART_PORT): Socket {
  const socket = pods.call(WEB, to);
  sockets.push(socket);
  return socket;
}

async function exchange(socket: Socket, text: string): Promise<string> {
  socket.write(text);
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  return bytes.toString();
}

/** How the caller's connection ends: `end`, or the code of an error. */
async function ending(socket: Socket): Promise<string> {
  const seen: string[] = [];
  socket.once('end', () => seen.push('end'));
  socket.once('error', (error: NodeJS.ErrnoException) => seen.push(error.code ?? error.message));
  socket.resume();
  return await eventually('an ending', () => seen[0]);
}

const deny = policy({ name: 'deny', action: 'DENY', rules: [{ clauses: [] }] });
const strict = policy({
  name: 'strict',
  action: 'DENY',
  rules: [{ clauses: [{ matches: [{ ...EMPTY_MATCH, notPrincipals: [{ kind: 'presence' }] }] }] }],
});

test('a call goes through a tunnel, and both logs tell of it under one ID', async () => {
  const { near, far } = await mesh();
  const seen: string[] = [];
  await application((socket) => {
    seen.push(socket.remoteAddress ?? '');
    socket.end('welcome');
    socket.resume();
  });
  const socket = call();
  socket.end('good day');
  expect(await ending(socket)).toBe('end');
  const [out, into] = [await near.record(), await far.record()];
  expect(seen).toEqual([`${WEB}`]);
  expect(out).toMatchObject({
    event: 'closed',
    direction: 'outbound',
    source: { identity: 'spiffe://cluster.local/ns/default/sa/web', workload: { name: 'web' } },
    destination: { identity: 'spiffe://cluster.local/ns/default/sa/cart', address: `${CART}:15008` },
    hboneAddress: `${CART}:8080`,
    security: 'mutual_tls',
    totalReceivedBytes: 8,
    totalSentBytes: 7,
    flags: '-',
  });
  expect(out.error).toBeUndefined();
  expect(into).toMatchObject({
    event: 'closed',
    direction: 'inbound',
    source: { identity: 'spiffe://cluster.local/ns/default/sa/web', workload: { name: 'web' } },
    service: { hostname: 'cart.default.svc.cluster.local' },
    hboneAddress: `${CART}:8080`,
    totalReceivedBytes: 8,
    totalSentBytes: 7,
  });
  expect(into.connectionId).toMatch(/^[0-9a-f]{32}$/);
  expect(into.connectionId).toBe(out.connectionId);
});

test('a short connection has one record, a longer one a record of its opening as well', async () => {
  const { near } = await mesh();
  await echo();
  call().end('short');
  const short = await near.record();
  expect(near.records).toEqual([short]);
  expect(short.includesOpening).toBe(true);
  const socket = call();
  await exchange(socket, 'longer');
  await eventually('its opening', () => near.records.at(-1)?.event === 'opened');
  socket.end();
  const closed = await eventually('its end', () => near.ended()[1]);
  expect(closed.includesOpening).toBeUndefined();
});

test("a call to a service goes to one of its endpoints, at the port behind the service's", async () => {
  const { near } = await mesh();
  await echo();
  const socket = call({ ip: '10.96.7.7', port: 80 });
  expect(await exchange(socket, 'hello')).toBe('hello');
  socket.end();
  expect(await near.record()).toMatchObject({
    hboneAddress: `${CART}:8080`,
    service: { hostname: 'cart.default.svc.cluster.local' },
  });
});

test('megabytes come back whole', async () => {
  await mesh();
  await echo();
  const bytes = Buffer.alloc(20_000_000, 'all of it ');
  const socket = call();
  const hash = createHash('sha256');
  socket.on('data', (piece: Buffer) => hash.update(piece));
  socket.end(bytes);
  await once(socket, 'end');
  expect(hash.digest('hex')).toBe(createHash('sha256').update(bytes).digest('hex'));
});

test("a pod that takes another's address gets nothing of its sessions", async () => {
  const { near } = await mesh();
  const other = workload({ name: 'web-2', serviceAccount: 'web', addresses: ['127.0.41.3'] });
  await near.learn(web, other, cart, cartService);
  await near.serve(other);
  const seen: string[] = [];
  await application((socket) => {
    seen.push(socket.remoteAddress ?? '');
    socket.pipe(socket);
  });
  expect(await exchange(call(), 'x')).toBe('x');
  const liar = pods.call('127.0.41.3', CART_PORT, WEB);
  sockets.push(liar);
  expect(await exchange(liar, 'x')).toBe('x');
  expect(seen).toEqual([WEB, '127.0.41.3']);
});

test('a pod that comes back under its uid, elsewhere, gets nothing of the sessions that it had', async () => {
  const { near } = await mesh();
  const seen: string[] = [];
  await application((socket) => {
    seen.push(socket.remoteAddress ?? '');
    socket.pipe(socket);
  });
  expect(await exchange(call(), 'x')).toBe('x');
  const removed = near.request({ kind: 'remove-pod', uid: web.uid, cut: false });
  const again = { ...web, addresses: ['127.0.41.4'] };
  await near.learn(again, cart, cartService);
  await near.serve(again);
  const socket = pods.call('127.0.41.4', CART_PORT);
  sockets.push(socket);
  expect(await exchange(socket, 'x')).toBe('x');
  expect(seen).toEqual([WEB, '127.0.41.4']);
  for (const each of sockets) each.end();
  await removed;
});

test('three hundred calls at once are all served, a hundred on a session', async () => {
  const { far } = await mesh();
  await echo();
  const calls = Array.from({ length: 300 }, () => call());
  const answers = await Promise.all(calls.map((socket, index) => exchange(socket, `${index}`)));
  expect(answers).toEqual(calls.map((_, index) => `${index}`));
  const list = (await far.request({ kind: 'list-connections' })).value as readonly unknown[];
  expect(list).toHaveLength(300);
  for (const socket of calls) socket.end();
  await eventually('all have ended', () => far.ended().length === 300);
});

test('a call that policy denies is reset, and both ends say so', async () => {
  const { near, far } = await mesh(deny);
  await echo();
  expect(await ending(call())).toBe('ECONNRESET');
  expect(await far.record()).toMatchObject({
    event: 'closed',
    flags: 'DENY',
    policy: 'default/deny',
    reason: 'denied-by-policy',
    error: 'connection closed due to policy rejection: explicitly denied by: default/deny',
  });
  expect(await near.record()).toMatchObject({ event: 'closed', error: 'http status: 401 Unauthorized' });
});

test('a connection that is let in says why, and what a policy in dry run would have done', async () => {
  const { far } = await mesh({ ...deny, dryRun: true });
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  socket.end();
  expect(await far.record()).toMatchObject({
    event: 'closed',
    flags: '-',
    reason: 'no-allow-policy',
    dryRun: 'default/deny would deny',
  });
});

test('a closed port of the application is a reset to the caller', async () => {
  const { near, far } = await mesh();
  expect(await ending(call())).toBe('ECONNRESET');
  expect(await far.record()).toMatchObject({
    error: 'connection failed: Connection refused (os error 111)',
    flags: 'CONNECT',
  });
  expect(await near.record()).toMatchObject({ error: 'http status: 503 Service Unavailable' });
});

test('a port of the ztunnel itself is refused as a call to ourselves', async () => {
  const { near } = await mesh();
  expect(await ending(call({ ip: WEB, port: 15001 }))).toBe('ECONNRESET');
  expect(await near.record()).toMatchObject({ event: 'failed', reason: 'self-call' });
});

test('a hop that is somebody else is not given the call', async () => {
  const near = open('n1');
  const far = open('n2');
  const impostor = { ...cart, serviceAccount: 'impostor' };
  await near.learn(web, cart);
  await far.learn(impostor);
  await near.tell({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/web') });
  await far.tell({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/impostor') });
  await near.serve(web);
  await far.serve(impostor);
  await echo();
  expect(await ending(call())).toBe('ECONNRESET');
  const record = await near.record();
  expect(record).toMatchObject({ flags: 'TLS_FAILURE' });
  expect(record.error).toContain('sa/impostor, expected spiffe://cluster.local/ns/default/sa/cart');
});

test('a caller of another trust domain is no caller', async () => {
  const foreign = await temporaryAuthority({ trustDomain: 'other.example' });
  const { near, far } = await mesh();
  await near.tell({
    kind: 'svid',
    svid: {
      ...(await foreign.svid('spiffe://other.example/ns/default/sa/web')),
      identity: { trustDomain: 'cluster.local', namespace: 'default', serviceAccount: 'web' },
    },
  });
  expect(await ending(call())).toBe('ECONNRESET');
  expect(await near.record()).toMatchObject({ event: 'closed' });
  expect((await far.ended()).every(({ event }) => event === 'failed')).toBe(true);
  await foreign[Symbol.asyncDispose]();
});

test("plain text is let in where nothing forbids it, with the caller's address, and kept out of a strict pod", async () => {
  const { far } = await mesh();
  const seen: string[] = [];
  await application((socket) => {
    seen.push(socket.remoteAddress ?? '');
    socket.pipe(socket);
  });
  const socket = pods.callPlain(OUTSIDER, CART_PORT);
  sockets.push(socket);
  expect(await exchange(socket, 'hello')).toBe('hello');
  expect(seen).toEqual([OUTSIDER]);
  socket.end();
  const [record] = await eventually('a record', () => far.ended().length > 0 && far.ended());
  expect(record).toMatchObject({ direction: 'inbound', security: 'unknown', totalReceivedBytes: 5 });
  expect(record?.source.identity).toBeUndefined();

  await far.learn(strict);
  const denied = pods.callPlain(OUTSIDER, CART_PORT);
  sockets.push(denied);
  expect(await ending(denied)).toBe('ECONNRESET');
  expect(await exchange(call(), 'with a certificate')).toBe('with a certificate');
});

test('a policy that comes cuts what it denies, at once, and nothing else', async () => {
  const { near, far } = await mesh();
  await echo();
  const tunnelled = call();
  const plain = pods.callPlain(OUTSIDER, CART_PORT);
  sockets.push(plain);
  await exchange(tunnelled, 'x');
  await exchange(plain, 'x');
  const started = performance.now();
  await far.learn(strict);
  expect(await ending(plain)).toBe('ECONNRESET');
  expect(performance.now() - started).toBeLessThan(500);
  expect(await exchange(tunnelled, 'still here')).toBe('still here');
  await far.learn(deny);
  expect(await ending(tunnelled)).toBe('ECONNRESET');
  expect(await near.record()).toMatchObject({ error: 'upstream: stream reset by the peer: CONNECT_ERROR' });
  const denied = await eventually('its record', () =>
    far.ended().find(({ policy: by }) => by === 'default/deny'),
  );
  expect(denied.flags).toBe('DENY');
});

test('a workload that gets another policy has its connections looked at again, too', async () => {
  const selected = policy({
    name: 'selected',
    scope: 'WORKLOAD_SELECTOR',
    action: 'DENY',
    rules: [{ clauses: [] }],
  });
  const { far } = await mesh(selected);
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  await far.learn({ ...cart, authorizationPolicies: ['default/selected'] });
  expect(await ending(socket)).toBe('ECONNRESET');
});

test('a named policy that is missing cuts no live connection, and keeps new ones out', async () => {
  const { far } = await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  await far.learn({ ...cart, authorizationPolicies: ['default/absent'] });
  const late = call();
  expect(await ending(late)).toBe('ECONNRESET');
  expect(await far.record()).toMatchObject({ reason: 'missing-policy', policy: 'default/absent' });
  expect(await exchange(socket, 'still here')).toBe('still here');
});

test('a named policy that comes late is waited for', async () => {
  const { far } = await mesh();
  await echo();
  await far.learn({ ...cart, authorizationPolicies: ['default/late'] });
  const socket = call();
  const answer = exchange(socket, 'patience');
  await eventually('the call has arrived', () => far.records.length > 0);
  await far.learn(policy({ name: 'late', scope: 'WORKLOAD_SELECTOR', action: 'ALLOW' }));
  expect(await answer).toBe('patience');
});

test('a call waits for addresses, policies and certificates that are on their way', async () => {
  const near = open('n1');
  const far = open('n2');
  await near.serve(web);
  await far.serve(cart);
  await echo();
  const socket = call();
  const answer = exchange(socket, 'early');
  await near.learn(web, cart);
  await far.learn(web, cart);
  await eventually('it asks for the certificate', () => near.needed.length > 0);
  expect(near.needed).toEqual(['spiffe://cluster.local/ns/default/sa/web']);
  await near.tell({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/web') });
  await far.tell({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/cart') });
  expect(await answer).toBe('early');
});

test('a renewed certificate serves new sessions, and old ones go on', async () => {
  const { near, far } = await mesh();
  await echo();
  const old = call();
  await exchange(old, 'x');
  await far.tell({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/cart') });
  await near.tell({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/web') });
  expect(await exchange(call(), 'new')).toBe('new');
  expect(await exchange(old, 'old')).toBe('old');
});

test('a caller that gives up while the application does not answer frees the far end', async () => {
  const { near, far } = await mesh();
  await far.learn({ ...cart, authorizationPolicies: ['default/absent'] });
  const socket = call();
  await eventually('the call has arrived', () => far.records.some(({ event }) => event === 'opened'));
  socket.resetAndDestroy();
  expect((await near.record()).error).toContain('the application has closed its connection');
});

test('a drain lets what is in flight finish, and takes nothing new', async () => {
  const { far } = await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  let isDrained = false;
  const drained = far.request({ kind: 'drain', deadlineMs: 60_000 }).then(() => {
    isDrained = true;
  });
  expect(await exchange(socket, 'still here')).toBe('still here');
  expect(isDrained).toBe(false);
  await eventually(
    'nobody listens',
    async () => (await ending(pods.callPlain(OUTSIDER, CART_PORT))) === 'ECONNREFUSED',
  );
  socket.end();
  await drained;
  expect((await far.record()).error).toBeUndefined();
});

test('a drain waits for what has come in and is nothing yet', async () => {
  const far = open('n2');
  await far.serve(cart);
  await echo();
  const socket = pods.callPlain(OUTSIDER, CART_PORT);
  await once(socket, 'connect');
  let isDrained = false;
  const drained = far.request({ kind: 'drain', deadlineMs: 60_000 }).then(() => {
    isDrained = true;
  });
  await far.learn(web, cart, cartService);
  expect(await exchange(socket, 'late')).toBe('late');
  expect(isDrained).toBe(false);
  socket.end();
  await drained;
});

test('a session that comes about during a drain is told to go', async () => {
  const { far } = await mesh();
  const socket = connect(pods.portOf({ ip: CART, port: 15008 }), CART);
  sockets.push(socket);
  await once(socket, 'connect');
  const drained = far.request({ kind: 'drain', deadlineMs: 60_000 });
  const closed = Promise.withResolvers<string>();
  await connectHop({
    hop: { ip: CART, port: 15008 },
    svid: await ca.svid('spiffe://cluster.local/ns/default/sa/web'),
    expected: [{ trustDomain: 'cluster.local', namespace: 'default', serviceAccount: 'cart' }],
    dial: () => socket,
    settings: workerConfig('n1').hbone,
    timeoutMs: 5_000,
    onClose: closed.resolve,
  });
  await drained;
  expect(await closed.promise).toBe('drained');
});

test('at the deadline of a drain the rest is cut, as a reset', async () => {
  const { near, far } = await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  await Promise.all([
    far.request({ kind: 'drain', deadlineMs: 100 }),
    expect(ending(socket)).resolves.toBe('ECONNRESET'),
  ]);
  expect(await far.record()).toMatchObject({ error: 'connection closed due to connection drain' });
  expect((await near.record()).error).toContain('CONNECT_ERROR');
});

test('a pod that is removed keeps its connections until they end; the answer comes then', async () => {
  const { near } = await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  let isRemoved = false;
  const removed = near.request({ kind: 'remove-pod', uid: web.uid, cut: false }).then(() => {
    isRemoved = true;
  });
  expect(await exchange(socket, 'still here')).toBe('still here');
  expect(isRemoved).toBe(false);
  socket.end();
  await removed;
});

test('a pod that is gone has its connections cut', async () => {
  const { far } = await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  await Promise.all([
    far.request({ kind: 'remove-pod', uid: cart.uid, cut: true }),
    expect(ending(socket)).resolves.toBe('ECONNRESET'),
  ]);
});

test('bytes are counted while a connection lives', async () => {
  const { near } = await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'twelve bytes');
  const progress = await eventually('progress', () => near.records.find(({ event }) => event === 'progress'));
  expect(progress).toMatchObject({ receivedBytes: 12, sentBytes: 12 });
  await exchange(socket, 'three');
  socket.end();
  const closed = await near.record();
  expect(closed.totalReceivedBytes).toBe(17);
  const counted = near.records.reduce((sum, { receivedBytes }) => sum + receivedBytes, 0);
  expect(counted).toBe(17);
});

test("a pod is refused while its node has eBPF maps of another version's alone", async () => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-maps-'));
  mkdirSync(join(directory, 'v99'));
  const answers: FromWorker[] = [];
  const carrier = new Carrier({
    config: { ...workerConfig('n1'), bpf: { directory, workers: 1 } },
    send: (message) => answers.push(message),
  });
  const { uid, name, namespace, serviceAccount } = web;
  const pod = { uid, name, namespace, serviceAccount };
  await carrier.handle({ kind: 'add-pod', request: 1, pod, netnsFd: 0 });
  expect(answers).toEqual([
    { kind: 'done', request: 1, error: expect.stringMatching(/maps of v99, .*v1: run/) },
  ]);
  await carrier.handle({ kind: 'drain', request: 2, deadlineMs: 0 });
  rmSync(directory, { recursive: true });
});
