import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { HostPort } from '#api/address.ts';
import { AUTHORIZATION_TYPE, type Resource } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { CarriedNode } from '#test/kit/carried-node.ts';
import { eventually } from '#test/kit/eventually.ts';
import { LoopbackPods } from '#test/kit/loopback-pods.ts';
import { policy, rule, service, workload } from '#test/kit/resources.ts';

/** One byte worker, without its thread, that serves both `web`, which calls, and `cart`. */

const WEB = '127.0.42.1';
const CART = '127.0.42.2';
const CART_PORT = { ip: CART, port: 8080 };
const WEB_ID = 'spiffe://cluster.local/ns/default/sa/web';
const CART_ID = 'spiffe://cluster.local/ns/default/sa/cart';

const web = workload({ name: 'web', serviceAccount: 'web', addresses: [WEB] });
const cart = workload({
  name: 'cart',
  serviceAccount: 'cart',
  addresses: [CART],
  services: { 'default/cart.default.svc.cluster.local': { 80: 8080 } },
});
const cartService = service({ name: 'cart', addresses: [{ network: '', ip: '10.96.7.7' }] });
const deny = policy({ name: 'deny', action: 'DENY', rules: [{ clauses: [] }] });

let ca: TemporaryAuthority;
let pods: LoopbackPods;
let node: CarriedNode;
let servers: Server[];
let sockets: Socket[];

beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});
beforeEach(async () => {
  pods = new LoopbackPods();
  node = new CarriedNode(pods, 'n1');
  servers = [];
  sockets = [];
});
afterEach(async () => {
  await node.request({ kind: 'drain', deadlineMs: 0 });
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
});

async function serve(...served: readonly Workload[]): Promise<void> {
  for (const each of served) await node.serve(each);
}

async function certify(identity: string, ttlMs?: number): Promise<void> {
  await node.tell({ kind: 'svid', svid: await ca.svid(identity, ttlMs) });
}

async function mesh(...resources: readonly Resource[]): Promise<void> {
  await node.learn(web, cart, cartService, ...resources);
  await certify(WEB_ID);
  await certify(CART_ID);
  await serve(web, cart);
}

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

function call(to: HostPort = CART_PORT): Socket {
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

test('a call between two pods of the node has one record, with both ends in it, and no tunnel', async () => {
  await mesh();
  const seen: string[] = [];
  await application((socket) => {
    seen.push(socket.remoteAddress ?? '');
    socket.end('welcome');
    socket.resume();
  });
  const socket = call({ ip: '10.96.7.7', port: 80 });
  socket.end('good day');
  expect(await ending(socket)).toBe('end');
  expect(seen).toEqual([WEB]);
  expect(await node.record()).toMatchObject({
    event: 'closed',
    direction: 'outbound',
    source: { identity: WEB_ID, workload: { name: 'web' } },
    destination: { identity: CART_ID, workload: { name: 'cart' }, address: `${CART}:8080` },
    service: { hostname: 'cart.default.svc.cluster.local' },
    security: 'same_node',
    reason: 'no-allow-policy',
    totalReceivedBytes: 8,
    totalSentBytes: 7,
    flags: '-',
  });
  expect(node.ended()).toHaveLength(1);
  expect(node.records[0]).not.toHaveProperty('hboneAddress');
});

test('who has bound its port alone, and so comes from a loopback address, has the address of its pod', async () => {
  await mesh();
  const seen: string[] = [];
  await application((socket) => {
    seen.push(socket.remoteAddress ?? '');
    socket.end();
  });
  const socket = pods.call(WEB, CART_PORT, '127.0.0.1');
  await once(socket, 'connect');
  const address = `${WEB}:${socket.localPort}`;
  socket.end();
  expect(await node.record()).toMatchObject({ security: 'same_node', source: { address } });
  expect(seen).toEqual([WEB]);
});

test('a pod that reaches itself by a service sees its own address, and has one record', async () => {
  const key = 'default/own.default.svc.cluster.local';
  await mesh(
    { ...web, services: new Map([[key, [{ servicePort: 80, targetPort: 8080 }]]]) },
    service({ name: 'own', addresses: [{ network: '', ip: '10.96.7.8' }] }),
  );
  const seen: string[] = [];
  const server = createServer((socket) => {
    seen.push(socket.remoteAddress ?? '');
    socket.end();
  });
  servers.push(server);
  await pods.serve(server, { ip: WEB, port: 8080 });
  const socket = call({ ip: '10.96.7.8', port: 80 });
  expect(await ending(socket)).toBe('end');
  socket.end();
  expect(await node.record()).toMatchObject({
    source: { identity: WEB_ID },
    destination: { identity: WEB_ID, address: `${WEB}:8080` },
    flags: '-',
  });
  expect([seen, node.ended().length]).toEqual([[WEB], 1]);
});

test('a pod that is addressed itself is counted by the destination for the service that it is of', async () => {
  await mesh();
  await echo();
  call().end('x');
  const record = await node.record();
  expect(record.service).toBe(undefined);
  expect(record.impliedService).toMatchObject({ name: 'cart' });
});

test('megabytes come back whole, each direction ending by itself', async () => {
  await mesh();
  const bytes = Buffer.alloc(20_000_000, 'all of it ');
  let isHeard = false;
  await application((socket) => {
    const pieces: Buffer[] = [];
    socket.on('data', (piece: Buffer) => pieces.push(piece));
    // Answers only when all has been said.
    socket.on('end', () => {
      isHeard = true;
      socket.end(Buffer.concat(pieces));
    });
  });
  const socket = call();
  const hash = createHash('sha256');
  socket.on('data', (piece: Buffer) => {
    expect(isHeard).toBe(true);
    hash.update(piece);
  });
  socket.end(bytes);
  await once(socket, 'end');
  expect(hash.digest('hex')).toBe(createHash('sha256').update(bytes).digest('hex'));
});

test('a reset of either end is a reset at the other', async () => {
  await mesh();
  await application((socket) => socket.once('data', () => socket.resetAndDestroy()));
  const first = call();
  first.write('x');
  expect(await ending(first)).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({ error: expect.stringContaining('upstream') });
});

test.each([
  ['the caller', { ...web, sameNode: 'tunnel' as const }],
  ['the destination', { ...cart, sameNode: 'tunnel' as const }],
])('%s may ask for a tunnel, from the next connection on, and take it back', async (_, asking) => {
  await mesh();
  await echo();
  const kinds = async (): Promise<readonly string[]> => {
    node.records.length = 0;
    const socket = call();
    expect(await exchange(socket, 'x')).toBe('x');
    socket.end();
    return await eventually('its records', () => {
      const ended = node.ended().map(({ direction, security }) => `${direction} ${security}`);
      return ended.length > 0 && (ended.length > 1 || ended[0]?.endsWith('same_node')) && ended.sort();
    });
  };
  expect(await kinds()).toEqual(['outbound same_node']);
  await node.learn(asking);
  expect(await kinds()).toEqual(['inbound mutual_tls', 'outbound mutual_tls']);
  await node.learn(web, cart);
  expect(await kinds()).toEqual(['outbound same_node']);
});

test('a destination that is not served yet gets a tunnel, which nobody here answers', async () => {
  await node.learn(web, cart);
  await certify(WEB_ID);
  await serve(web);
  expect(await ending(call())).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({ security: 'mutual_tls', flags: 'CONNECT' });
});

test('policy denies by the identity of the pod that calls, and says so', async () => {
  const notWeb = policy({
    name: 'not-web',
    action: 'DENY',
    rules: [rule({ principals: [{ kind: 'exact', value: 'cluster.local/ns/default/sa/web' }] })],
  });
  await mesh(notWeb);
  await echo();
  expect(await ending(call())).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({
    event: 'closed',
    flags: 'DENY',
    policy: 'default/not-web',
    reason: 'denied-by-policy',
    error: 'connection closed due to policy rejection: explicitly denied by: default/not-web',
    security: 'same_node',
  });
});

test('a policy that its destination names and nobody has sent denies', async () => {
  await mesh({ ...cart, authorizationPolicies: ['default/missing'] });
  await echo();
  expect(await ending(call())).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({ reason: 'missing-policy', flags: 'DENY' });
});

test('when the caller has gone while its policy is waited for, nobody is dialled', async () => {
  await mesh({ ...cart, authorizationPolicies: ['default/late'] });
  const seen: string[] = [];
  await application((socket) => seen.push(socket.remoteAddress ?? ''));
  const socket = call();
  await eventually('it is open', () => node.records.some(({ event }) => event === 'opened'));
  socket.resetAndDestroy();
  const { error } = await node.record();
  await node.learn(policy({ name: 'late', action: 'DENY' }));
  await expect(eventually('a call', () => seen[0], 300)).rejects.toThrow();
  expect(error).toContain('the application has closed its connection');
});

test('a connection is cut when a policy comes to deny it, and one that dry-runs is told of', async () => {
  await mesh({ ...deny, dryRun: true });
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  await node.learn(deny);
  expect(await ending(socket)).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({
    flags: 'DENY',
    policy: 'default/deny',
    dryRun: 'default/deny would deny',
  });
});

test.each([
  ['the caller', WEB_ID],
  ['the destination', CART_ID],
])('without a certificate of %s nothing is carried; with one, what waits goes on', async (_, missing) => {
  await node.learn(web, cart);
  await certify(missing === WEB_ID ? CART_ID : WEB_ID);
  await serve(web, cart);
  await echo();
  const socket = call();
  socket.write('waiting');
  await eventually('it is asked for', () => node.needed.includes(missing));
  await certify(missing);
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  expect(bytes.toString()).toBe('waiting');
});

test('certificates that would not stand a handshake carry nothing', async () => {
  await using stranger = await temporaryAuthority();
  await mesh();
  await node.tell({ kind: 'svid', svid: await stranger.svid(WEB_ID) });
  await echo();
  expect(await ending(call())).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({
    flags: 'TLS_FAILURE',
    error: expect.stringContaining('do not accept each other'),
    security: 'same_node',
  });
});

test.each([
  ['the caller', WEB_ID],
  ['the destination', CART_ID],
])('a connection is cut when the certificate of %s has expired, not when it is renewed', async (_, which) => {
  await mesh();
  await echo();
  await certify(which, 2_500);
  const kept = call();
  await exchange(kept, 'x');
  await certify(which);
  const short = await ca.svid(which, 2_500);
  await eventually('the first has ended', () => Date.now() > short.notAfterMs, 10_000);
  expect(await exchange(kept, 'y')).toBe('y');
  const ends = await ca.svid(which, 2_500);
  await node.tell({ kind: 'svid', svid: ends });
  expect(await ending(kept)).toBe('ECONNRESET');
  expect(Date.now() - ends.notAfterMs).toBeLessThan(1_000);
  expect(await node.record()).toMatchObject({
    flags: 'IDENTITY_ERROR',
    error: `connection closed because the certificate of ${which} is no longer valid here`,
  });
});

test('a connection is cut when an identity is taken away', async () => {
  await mesh();
  await echo();
  const cut = call();
  await exchange(cut, 'x');
  await node.tell({ kind: 'forget-identity', identity: WEB_ID });
  expect(await ending(cut)).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({
    flags: 'IDENTITY_ERROR',
    error: expect.stringContaining(WEB_ID),
  });
});

test.each([WEB_ID, CART_ID])(
  'a connection is cut when the certificate that was shown for %s is revoked',
  async (of) => {
    await mesh();
    const used = await ca.svid(of);
    await node.tell({ kind: 'svid', svid: used });
    await echo();
    const cut = call();
    await exchange(cut, 'x');
    await certify(of); // It has another by now, which is not revoked.
    await node.tell({ kind: 'revoked', list: { identities: [], serials: [used.serial] } });
    expect(await ending(cut)).toBe('ECONNRESET');
    expect(await node.record()).toMatchObject({
      flags: 'IDENTITY_ERROR',
      error: `connection closed because the certificate ${used.serial} of ${of} is revoked`,
    });
    expect(await exchange(call(), 'y')).toBe('y');
    await node.tell({ kind: 'revoked', list: { identities: [], serials: [] } });
  },
);

test('a connection goes on when the identity goes because its pod is released', async () => {
  await mesh();
  await echo();
  const released = call();
  await exchange(released, 'x');
  await node.tell({ kind: 'forget-identity', identity: CART_ID });
  const removed = node.request({ kind: 'remove-pod', uid: cart.uid, cut: false });
  await expect(eventually('an end', () => released.destroyed || node.ended()[0], 700)).rejects.toThrow();
  expect(await exchange(released, 'y')).toBe('y');
  released.end();
  await removed;
});

test.each([
  ['the caller', web],
  ['the destination', cart],
])('when the pod of %s is cut, so is the connection', async (_, pod) => {
  await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  await node.request({ kind: 'remove-pod', uid: pod.uid, cut: true });
  expect(await ending(socket)).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({ error: expect.stringContaining('the workload is gone') });
});

test.each([
  ['the caller', web],
  ['the destination', cart],
])('the pod of %s is released when the connection has ended', async (_, pod) => {
  await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  let isReleased = false;
  const removal = node.request({ kind: 'remove-pod', uid: pod.uid, cut: false }).then(() => {
    isReleased = true;
  });
  expect(await exchange(socket, 'still there')).toBe('still there');
  expect(isReleased).toBe(false);
  socket.end();
  await removal;
});

test('a port of the mesh is refused, and an application’s closed port is a reset', async () => {
  await mesh();
  expect(await ending(call({ ip: CART, port: 15008 }))).toBe('ECONNRESET');
  expect(await node.record()).toMatchObject({
    event: 'failed',
    error: expect.stringContaining('attempted recursive call to ourselves'),
  });
  expect(await ending(call())).toBe('ECONNRESET');
  await eventually('its record', () => node.ended().length === 2);
  expect(node.ended()[1]).toMatchObject({
    error: 'connection failed: Connection refused (os error 111)',
    flags: 'CONNECT',
  });
});

test('a policy that comes after all policies were known has no window', async () => {
  await mesh();
  await echo();
  await node.tell({ kind: 'tables', update: { type: AUTHORIZATION_TYPE, updated: [deny], removed: [] } });
  expect(await ending(call())).toBe('ECONNRESET');
});

test('a proxy behind the destination is told who calls before the first byte', async () => {
  await mesh({ ...cart, applicationTunnel: { protocol: 'PROXY', port: 15088 } });
  const heard = Promise.withResolvers<Buffer>();
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.once('data', heard.resolve);
  });
  servers.push(server);
  await pods.serve(server, { ip: '127.0.0.1', port: 15088 });
  const socket = call();
  await once(socket, 'connect');
  socket.write('hello');
  const bytes = await heard.promise;
  const { localPort } = socket;
  expect(bytes.subarray(0, 12).toString('hex')).toBe('0d0a0d0a000d0a515549540a');
  // Source and destination address, then their ports.
  expect([...bytes.subarray(16, 24)].join('.')).toBe(`${WEB}.${CART}`);
  expect([bytes.readUInt16BE(24), bytes.readUInt16BE(26)]).toEqual([localPort, 8080]);
  expect(bytes.subarray(31, 31 + WEB_ID.length).toString()).toBe(WEB_ID);
});

test('admin lists it for both pods', async () => {
  await mesh();
  await echo();
  const socket = call();
  await exchange(socket, 'x');
  expect((await node.request({ kind: 'list-connections' })).value).toMatchObject([
    {
      podUid: web.uid,
      destinationPodUid: cart.uid,
      direction: 'outbound',
      destination: `${CART}:8080`,
      identity: WEB_ID,
      protocol: 'SAME_NODE',
    },
  ]);
  socket.end();
});
