import { afterEach, beforeEach, expect, test } from 'vitest';
import { Parked } from './parked.ts';

const OWNER = 'spiffe://cluster.local/ns/shop/sa/web';
const OTHER = 'spiffe://cluster.local/ns/shop/sa/other';

interface Connection {
  readonly id: string;
  readonly claimant: string;
}

let unclaimed: string[];
let parked: Parked<Connection>;

beforeEach(() => {
  unclaimed = [];
  parked = open({});
});
afterEach(() => parked.close());

function open(settings: { readonly patienceMs?: number; readonly limit?: number }): Parked<Connection> {
  return new Parked({ ...settings, onUnclaimed: ({ id }, why) => unclaimed.push(`${id} ${why}`) });
}

function connection(id: string): Connection {
  return { id, claimant: OWNER };
}

test('one that waits is given to its claimant, once', async () => {
  parked.park(connection('a'));
  expect(await parked.claim('a', OWNER)).toEqual({ kind: 'claimed', connection: connection('a') });
  parked = open({ patienceMs: 1 });
  expect(await parked.claim('a', OWNER)).toEqual({ kind: 'absent' });
});

test('a claim waits for what it claims', async () => {
  const claim = parked.claim('a', OWNER);
  parked.park(connection('b'));
  parked.park(connection('a'));
  expect(await claim).toMatchObject({ kind: 'claimed', connection: { id: 'a' } });
  expect(parked.size).toBe(1);
});

test('another one is refused, whichever comes first, and it stays for its claimant', async () => {
  const early = parked.claim('a', OTHER);
  parked.park(connection('a'));
  expect(await early).toEqual({ kind: 'refused' });
  expect(await parked.claim('a', OTHER)).toEqual({ kind: 'refused' });
  expect(await parked.claim('a', OWNER)).toMatchObject({ kind: 'claimed' });
});

test('what nobody claims in time is given back', async () => {
  parked = open({ patienceMs: 1 });
  parked.park(connection('a'));
  expect(await parked.claim('b', OWNER)).toEqual({ kind: 'absent' });
  await expect.poll(() => unclaimed).toEqual(['a late']);
  expect(parked.size).toBe(0);
});

test('no more wait, and no more claims, than there may be', async () => {
  parked = open({ limit: 1 });
  parked.park(connection('a'));
  parked.park(connection('b'));
  expect(unclaimed).toEqual(['b full']);
  const waiting = parked.claim('c', OWNER);
  expect(await parked.claim('d', OWNER)).toEqual({ kind: 'moved' });
  parked.close();
  expect(await waiting).toEqual({ kind: 'absent' });
  expect(unclaimed).toEqual(['b full', 'a late']);
});

test('what moves to another process is not here any more, and who asks for it is sent there', async () => {
  parked.park(connection('a'));
  const early = parked.claim('b', OWNER);
  expect(parked.move()).toEqual([connection('a')]);
  expect(await early).toEqual({ kind: 'moved' });
  expect(await parked.claim('a', OWNER)).toEqual({ kind: 'moved' });
  // The other process did not take it after all.
  parked.park(connection('a'));
  expect(await parked.claim('a', OWNER)).toMatchObject({ kind: 'claimed' });
});

test('bytes that wait with connections are bounded, and those without any have room', async () => {
  const bytes = new Map([
    ['a', 60],
    ['b', 60],
    ['d', 40],
  ]);
  parked = new Parked({
    limitBytes: 100,
    bytesOf: ({ id }: Connection) => bytes.get(id) ?? 0,
    onUnclaimed: ({ id }, why) => unclaimed.push(`${id} ${why}`),
  });
  for (const id of ['a', 'b', 'c', 'd']) parked.park(connection(id));
  expect(unclaimed).toEqual(['b full']);
  await parked.claim('a', OWNER);
  parked.park(connection('b'));
  expect(unclaimed).toEqual(['b full']);
  expect(parked.move()).toHaveLength(3);
});
