import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { CarriedNode, workerConfig } from '#test/kit/carried-node.ts';
import { digest, reader } from '#test/kit/digest.ts';
import { eventually } from '#test/kit/eventually.ts';
import { policy } from '#test/kit/resources.ts';
import type { ConnectionInfo } from '../connection-record.ts';
import { connectHop } from '../hbone/client.ts';
import type { Connection } from '../hbone/connection.ts';
import { CONNECTION_ID_HEADER, fieldOf, RESUME_HEADER } from '../hbone/headers.ts';
import type { Field } from '../hbone/hpack-tables.ts';
import type { Answer } from '../hbone/stream.ts';
import { watch } from '../hbone/testing.ts';
import { CART, type NodeName, RestartBed, WEB } from './testing.ts';

const MIB = 1 << 20;

const deny = policy({ name: 'deny', action: 'DENY', rules: [{ clauses: [] }] });

let ca: TemporaryAuthority;
let bed: RestartBed;

beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});
beforeEach(async () => {
  bed = await RestartBed.open(ca);
});
afterEach(async () => {
  await bed[Symbol.asyncDispose]();
});

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

async function exchange(from: Socket, to: Socket, text: string): Promise<void> {
  from.write(text);
  expect(String(await once(to, 'data'))).toBe(text);
}

test.each([[['n1']], [['n2']], [['n1', 'n2']]] satisfies [NodeName[]][])(
  'five restarts in a row of %j under load in both directions cut nothing and lose no byte',
  async (names) => {
    const { caller, callee } = await bed.call();
    const [up, down] = [randomBytes(12 * MIB), randomBytes(12 * MIB)];
    const [atCallee, atCaller] = [reader(callee), reader(caller)];
    // The end comes after the last restart, however fast the bytes are.
    caller.write(up);
    callee.write(down);
    for (let time = 1; time <= 5; time++) {
      await eventually('some more bytes', () => atCallee.size() > time * MIB);
      await bed.restart(names);
    }
    caller.end();
    callee.end();
    expect(await atCallee.hash).toBe(digest(up));
    expect(await atCaller.hash).toBe(digest(down));
    const [out, into] = [await bed.n1.record(), await bed.n2.record()];
    for (const record of [out, into]) {
      expect(record).toMatchObject({ event: 'closed', flags: '-', totalReceivedBytes: up.length + 1 });
      expect(record.totalSentBytes).toBe(down.length);
      expect(record.error).toBeUndefined();
    }
    expect(
      bed.nodes.flatMap(({ records }) => records.filter(({ event }) => event === 'closed')),
    ).toHaveLength(2);
  },
);

test('restarts of both ends that overlap in any way cut nothing', async () => {
  const { caller, callee } = await bed.call();
  const bytes = randomBytes(16 * MIB);
  const atCallee = reader(callee);
  caller.write(bytes);
  const random = seeded(7);
  const restartSome = async (name: NodeName): Promise<void> => {
    for (let time = 0; time < 6; time++) {
      await bed.restart([name]);
      for (let turn = Math.floor(random() * 30); turn > 0; turn--) await nextTurn();
    }
  };
  await Promise.all([restartSome('n1'), restartSome('n2')]);
  caller.end();
  expect(await atCallee.hash).toBe(digest(bytes));
});

test.each([[['n1']], [['n2']], [['n1', 'n2']]] satisfies [NodeName[]][])(
  'an idle connection outlives a restart of %j, and a half-closed one stays that',
  async (names) => {
    const { caller, callee } = await bed.call();
    await bed.restart(names);
    await exchange(caller, callee, 'still there');
    await exchange(callee, caller, 'and back');
    const ended = once(callee, 'end');
    caller.end();
    await ended;
    await bed.restart(names);
    const atCaller = reader(caller);
    callee.end('the answer');
    expect(await atCaller.hash).toBe(digest(Buffer.from('the answer')));
  },
);

test('bytes are counted once, by whoever carried them, and the record tells all', async () => {
  const { caller, callee } = await bed.call();
  await exchange(caller, callee, '12345');
  const before = bed.n1;
  await bed.restart(['n1']);
  await exchange(caller, callee, '678');
  caller.end();
  callee.end();
  const record = await bed.n1.record();
  expect(record.totalReceivedBytes).toBe(9);
  const sum = (node: CarriedNode): number =>
    node.records.reduce((total, { receivedBytes }) => total + receivedBytes, 0);
  expect([sum(before), sum(bed.n1)]).toEqual([6, 3]);
  expect(before.records.map(({ event }) => event)).toEqual(['opened', 'progress', 'left']);
  expect(bed.n1.outcomes).toEqual(['outbound-tunnel handed_over']);
});

test('a connection that a new policy denies ends with the restart', async () => {
  const { caller } = await bed.call();
  await bed.restart(['n2'], [deny]);
  await eventually('a reset', () => caller.destroyed);
  expect(await bed.n2.record()).toMatchObject({ event: 'closed', flags: 'DENY' });
  expect((await bed.n1.record()).error).toMatch(/not taken up after a restart: http status: 401/);
  expect(bed.n2.outcomes).toEqual(['inbound-tunnel reset_denied']);
});

test('what nobody takes up is reset at both ends', async () => {
  const { caller, callee } = await bed.call();
  // The next ztunnel takes it, and is gone.
  const lost = new CarriedNode(bed.pods, 'n1');
  void bed.n1.retire(lost);
  await eventually('a reset', () => caller.destroyed && callee.destroyed);
  expect(bed.n2.outcomes).toContain('inbound-tunnel unclaimed');
});

test('a connection that waits to be taken up can be cut', async () => {
  const { caller } = await bed.call();
  const [{ podUid }] = (await bed.n1.request({ kind: 'list-connections' })).value as [ConnectionInfo];
  const late = await bed.start('n2', [], false);
  const drained = bed.n2.retire(late);
  await eventually('a session that waits for a certificate', () => late.needed.length > 0);
  await bed.n1.request({ kind: 'remove-pod', uid: podUid, cut: true });
  await eventually('a reset', () => caller.destroyed);
  expect((await bed.n1.record()).error).toBe('connection closed because the workload is gone');
  await drained;
});

test('a connection that comes about while its ztunnel ends goes over, too', async () => {
  const early = await bed.start('n1', [], false);
  // It waits for the certificate of its pod.
  const opening = bed.call();
  await eventually('a call that waits', () => early.needed.length > 0);
  const next = await bed.start('n1');
  const drained = early.retire(next);
  await bed.certify(early, 'n1');
  const { caller, callee } = await opening;
  await drained;
  await exchange(caller, callee, 'still there');
  expect(next.outcomes).toEqual(['outbound-tunnel handed_over']);
});

test('a restart without a successor drains, and the connection stays', async () => {
  const { caller, callee } = await bed.call();
  const old = bed.n2;
  await bed.start('n2');
  const drained = old.request({ kind: 'drain', deadlineMs: 20_000 });
  await exchange(caller, callee, 'still the old one');
  caller.end();
  callee.end();
  await drained;
  expect((await old.record()).error).toBeUndefined();
});

test('with the successor gone a caller goes on where it was', async () => {
  const { caller, callee } = await bed.call();
  const drained = bed.n1.retire();
  await exchange(caller, callee, 'by the same one');
  caller.end();
  callee.end();
  await drained;
  expect((await bed.n1.record()).error).toBeUndefined();
});

const WEB_ID = 'spiffe://cluster.local/ns/default/sa/web';
const OTHER_ID = 'spiffe://cluster.local/ns/default/sa/other';

test.each([
  { who: 'another identity', identity: OTHER_ID, from: WEB, port: 8080 },
  { who: 'another address', identity: WEB_ID, from: '127.0.46.9', port: 8080 },
  { who: 'its caller, for another port,', identity: WEB_ID, from: WEB, port: 9090 },
])('$who gets nothing by an ID, and takes nothing from its owner', async ({ identity, from, port }) => {
  const { caller, callee } = await bed.call();
  const late = await bed.start('n1', [], false);
  const drained = bed.n1.retire(late);
  await eventually('a connection that waits', () => bed.n2.parked.size === 1);
  const id = bed.n1.records[0]?.connectionId ?? '';
  expect(await resumeAs({ identity, from, port, id })).toBe('401');
  await bed.certify(late, 'n1');
  await exchange(caller, callee, 'as before');
  await drained;
});

test('who asked and has gone does not take the connection from who asks again', async () => {
  const { caller, callee } = await bed.call();
  const id = bed.n1.records[0]?.connectionId ?? '';
  const late = await bed.start('n1', [], false);
  const session = await sessionOf(WEB_ID, WEB);
  const stream = session.request(
    [
      [':method', 'CONNECT'],
      [':authority', `${CART}:8080`],
      [RESUME_HEADER, id],
    ],
    () => undefined,
  );
  // Answered after the one before it has been looked at.
  expect(await resumeAs({ identity: WEB_ID, from: WEB, port: 0, id })).toBe('400');
  stream.abort();
  const drained = bed.n1.retire(late);
  await eventually('a connection that waits', () => bed.n2.parked.size === 1);
  await bed.certify(late, 'n1');
  await exchange(caller, callee, 'as before');
  session.close('done');
  await drained;
});

/** Asks `cart` for a connection by its ID; the answer's status. */
async function resumeAs({
  identity,
  from,
  port,
  id,
}: {
  readonly identity: string;
  readonly from: string;
  readonly port: number;
  readonly id: string;
}): Promise<string | undefined> {
  const session = await sessionOf(identity, from);
  const { promise, resolve } = Promise.withResolvers<Answer>();
  session.request(
    [
      [':method', 'CONNECT'],
      [':authority', `${CART}:${port}`],
      [CONNECTION_ID_HEADER, id],
      [RESUME_HEADER, id],
    ],
    resolve,
  );
  const answer = await promise;
  session.close('answered');
  return answer.kind === 'answered' ? fieldOf(answer.fields, ':status') : answer.reason;
}

async function sessionOf(identity: string, from: string): Promise<Connection> {
  return await connectHop({
    hop: { ip: CART, port: 15008 },
    svid: await ca.svid(identity),
    expected: [{ trustDomain: 'cluster.local', namespace: 'default', serviceAccount: 'cart' }],
    dial: (to) => bed.pods.socketsOf(from).dialOutside(to),
    settings: workerConfig('n1').hbone,
    timeoutMs: 5_000,
    onClose: () => undefined,
  });
}

test('a tunnel of a client that knows no hand-over drains with GOAWAY, and is counted', async () => {
  const session = await sessionOf(WEB_ID, WEB);
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const stream = session.request(CONNECT_CART, resolve);
  expect(await promise).toMatchObject({
    fields: [
      [':status', '200'],
      ['baggage', expect.anything()],
    ],
  });
  const callee = await bed.accept();
  const old = bed.n2;
  const drained = bed.restart(['n2']);
  await eventually('GOAWAY', () => !session.isOpen);
  stream.write(Buffer.from('still the old one'));
  expect(String(await once(callee, 'data'))).toBe('still the old one');
  const seen = watch(stream);
  stream.end();
  callee.end();
  await seen.until('finish');
  await drained;
  expect(old.outcomes).toEqual(['inbound-tunnel drained_peer']);
});

const CONNECT_CART: readonly Field[] = [
  [':method', 'CONNECT'],
  [':authority', `${CART}:8080`],
];
