import { expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { chooseShed, type HeldShare, type Holder, Ledger, type Shed } from './ledger.ts';

function share(owner: string, bytes: number): HeldShare {
  return { holder: { owner, held: () => bytes, shed: () => undefined }, bytes };
}

function chosen(shares: readonly HeldShare[], bytes: number): string[] {
  return chooseShed(shares, bytes).map(({ holder, bytes: size }) => `${holder.owner} ${size}`);
}

test.each([
  { when: 'one holds most', shares: [share('a', 10), share('b', 90)], bytes: 1, takes: ['b 90'] },
  {
    when: 'many small ones are more than a large one',
    shares: [share('a', 50), ...Array.from({ length: 8 }, () => share('b', 10))],
    bytes: 15,
    takes: ['b 10', 'b 10'],
  },
  {
    when: 'one has come down to the next',
    shares: [share('a', 30), share('a', 30), share('b', 40)],
    bytes: 60,
    takes: ['a 30', 'b 40'],
  },
  { when: 'there is not as much', shares: [share('a', 1)], bytes: 5, takes: ['a 1'] },
  { when: 'there is nothing', shares: [], bytes: 5, takes: [] },
])('the owner who holds most loses the largest when $when', ({ shares, bytes, takes }) => {
  expect(chosen(shares, bytes)).toEqual(takes);
});

test('nobody is asked before the budget could be reached, and one who holds little is left alone', async () => {
  const sheds: Shed[] = [];
  using ledger = new Ledger({ budgetBytes: 1_000, onShed: (shed) => sheds.push(shed) });
  let asked = 0;
  const held = new Map([
    ['small', 10],
    ['large', 995],
  ]);
  const ended: string[] = [];
  for (const owner of held.keys()) {
    const holder: Holder = {
      owner,
      held: () => {
        asked += 1;
        return held.get(owner) ?? 0;
      },
      shed: (why) => {
        ended.push(`${owner}: ${why}`);
        held.delete(owner);
      },
    };
    ledger.add(holder);
  }
  ledger.note(1_000);
  expect(asked).toBe(0);
  ledger.note(1);
  await eventually('somebody goes', () => ended.length > 0);
  expect(ended).toEqual(['large: the waypoint holds 0 of 0 MiB']);
  expect(sheds).toEqual([{ owner: 'large', holders: 1, bytes: 995 }]);
  expect(ledger.heldBytes).toBe(10);
});
