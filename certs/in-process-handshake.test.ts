import { afterAll, beforeAll, expect, test } from 'vitest';
import { haveShakenHands, shakeHands } from './in-process-handshake.ts';
import type { Svid } from './svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from './testing.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';

let ca: TemporaryAuthority;
let stranger: TemporaryAuthority;
let web: Svid;
let cart: Svid;

beforeAll(async () => {
  ca = await temporaryAuthority();
  stranger = await temporaryAuthority();
  web = await ca.svid(WEB);
  cart = await ca.svid(CART);
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
  await stranger[Symbol.asyncDispose]();
});

test('two SVIDs of one authority accept each other, and are remembered as this pair in this order', async () => {
  expect(haveShakenHands(web, cart)).toBe(false);
  expect(await Promise.all([shakeHands(web, cart), shakeHands(web, cart)])).toEqual([
    { kind: 'accepted' },
    { kind: 'accepted' },
  ]);
  expect(haveShakenHands(web, cart)).toBe(true);
  expect(haveShakenHands(cart, web)).toBe(false);
  expect(haveShakenHands({ ...web }, cart)).toBe(false);
});

test('a workload may call itself', async () => {
  expect(await shakeHands(web, web)).toEqual({ kind: 'accepted' });
});

test.each([
  ['of another authority on the client side', async () => [await stranger.svid(WEB), cart] as const],
  ['of another authority on the server side', async () => [web, await stranger.svid(CART)] as const],
  [
    'of another trust domain',
    async () => {
      await using other = await temporaryAuthority({ trustDomain: 'other.example' });
      const theirs = await other.svid('spiffe://other.example/ns/shop/sa/web');
      const rootsPem = theirs.rootsPem + cart.rootsPem;
      return [
        { ...theirs, rootsPem },
        { ...cart, rootsPem },
      ] as const;
    },
  ],
  [
    'that has expired',
    async () => {
      const then = Date.now() - 86_400_000;
      await using past = await temporaryAuthority({ now: () => then });
      const theirs = await past.svid(WEB);
      return [theirs, { ...(await past.svid(CART, 2 * 86_400_000)), rootsPem: theirs.rootsPem }] as const;
    },
  ],
  ['whose certificate names another', async () => [web, { ...cart, identity: web.identity }] as const],
  ['of a client that is another', async () => [{ ...web, identity: cart.identity }, cart] as const],
  ['whose key is another’s', async () => [{ ...web, privateKeyPem: cart.privateKeyPem }, cart] as const],
])('an SVID %s is refused, each time anew', async (_, pair) => {
  const [client, server] = await pair();
  for (const _try of [1, 2]) {
    expect(await shakeHands(client, server)).toMatchObject({
      kind: 'refused',
      reason: expect.stringMatching(/./),
    });
    expect(haveShakenHands(client, server)).toBe(false);
  }
});
