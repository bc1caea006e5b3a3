import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { identity, openState } from './testing-state.ts';

/** Who gets which certificate: of all that two nodes may ask for, one each, and only for as long as the workload is there. */

const WANTED = [
  identity('shop', 'cart'),
  identity('shop', 'web'),
  identity('shop', 'default'),
  identity('bank', 'cart'),
  identity('shop', 'tulle'),
  { ...identity('shop', 'cart'), trustDomain: 'other.example' },
  { ...identity('shop', 'cart'), trustDomain: 'cluster.local.evil' },
];

test('a node gets the identities of the workloads that run on it, and no other', async () => {
  await using state = openState();
  state.writePod('shop', 'cart-1', { node: 'n1', serviceAccount: 'cart' });
  state.writePod('shop', 'web-1', { node: 'n2', serviceAccount: 'web' });
  await using controlPlane = await state.open();
  const granted: string[] = [];
  for (const node of ['n1', 'n2'])
    for (const wanted of WANTED) {
      using signer = state.signer(controlPlane, node);
      const outcome = await signer.requestSvid(wanted, 3600).then(
        () => 'granted',
        (error: { code?: string }) => error.code,
      );
      if (outcome === 'granted')
        granted.push(`${node} ${wanted.trustDomain} ${wanted.namespace}/${wanted.serviceAccount}`);
      else expect(outcome).toBe('REFUSED');
    }
  expect(granted).toEqual(['n1 cluster.local shop/cart', 'n2 cluster.local shop/web']);
});

test('a workload that has moved or gone takes its identity along', async () => {
  await using state = openState();
  state.writePod('shop', 'cart-1', { node: 'n1', serviceAccount: 'cart' });
  await using controlPlane = await state.open();
  using n1 = state.signer(controlPlane, 'n1');
  using n2 = state.signer(controlPlane, 'n2');
  const ask = async (signer: typeof n1): Promise<string> =>
    await signer.requestSvid(identity('shop', 'cart'), 3600).then(
      () => 'granted',
      (error: { code?: string }) => String(error.code),
    );
  expect([await ask(n1), await ask(n2)]).toEqual(['granted', 'REFUSED']);

  state.writePod('shop', 'cart-1', { node: 'n2', serviceAccount: 'cart' });
  await eventually('the other node gets it', async () => (await ask(n2)) === 'granted');
  expect(await ask(n1)).toBe('REFUSED');

  rmSync(join(state.directory, 'pods', 'shop_cart-1.json'));
  await eventually('nobody gets it', async () => (await ask(n2)) === 'REFUSED');
  expect(await ask(n1)).toBe('REFUSED');
});
