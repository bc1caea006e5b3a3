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

function connection(id: string, claimant = OWNER): Connection {
  return { id, claimant };
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

test('who fills it gives way to others, with the oldest, and to them alone', async () => {
  const [few, many] = [`${OWNER} 10.0.0.1`, `${OTHER} 10.0.0.2`];
  parked = open({ limit: 4 });
  for (const id of ['a', 'b', 'c', 'd']) parked.park(connection(id, `${many} to ${id}`));
  parked.park(connection('e', `${many} to e`));
  expect(unclaimed).toEqual(['e full']);
  parked.park(connection('f', `${few} to f`));
  parked.park(connection('g', `${few} to g`));
  expect(unclaimed).toEqual(['e full', 'a full', 'b full']);
  // Both have as much now.
  parked.park(connection('h', `${few} to h`));
  expect(unclaimed).toEqual(['e full', 'a full', 'b full', 'h full']);
  expect(await parked.claim('f', `${few} to f`)).toMatchObject({ kind: 'claimed' });
  expect(await parked.claim('c', `${many} to c`)).toMatchObject({ kind: 'claimed' });
});

test('who guesses at very many gives way to who asks for one', async () => {
  parked = open({ limit: 2 });
  const guesses = ['a', 'b', 'c'].map((id) => parked.claim(id, OTHER));
  expect(await guesses[2]).toEqual({ kind: 'moved' });
  const claim = parked.claim('d', OWNER);
  expect(await guesses[0]).toEqual({ kind: 'moved' });
  parked.park(connection('d'));
  expect(await claim).toMatchObject({ kind: 'claimed' });
  parked.close();
  expect(await guesses[1]).toEqual({ kind: 'absent' });
});

test('who fills the room for bytes gives way to one with few', () => {
  parked = new Parked({
    limitBytes: 100,
    bytesOf: ({ id }: Connection) => (id === 'none' ? 0 : 30),
    onUnclaimed: ({ id }, why) => unclaimed.push(`${id} ${why}`),
  });
  for (const id of ['none', 'a', 'b', 'c', 'd']) parked.park(connection(id, OTHER));
  parked.park(connection('e'));
  expect(unclaimed).toEqual(['d full', 'a full']);
});
