import { X509Certificate } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import { haveShakenHands, shakeHands } from './in-process-handshake.ts';
import { identityOfCertificate } from './peer.ts';
import { splitPem } from './pem.ts';
import { isRevoked, setRevoked } from './revoked.ts';
import { createSvidManager } from './svid-manager.ts';
import { temporaryAuthority } from './testing.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';

afterEach(() => setRevoked({ identities: [], serials: [] }));

test.each([
  { what: 'identity of the client', list: { identities: [WEB], serials: [] }, bySerial: undefined },
  { what: 'identity of the server', list: { identities: [CART], serials: [] }, bySerial: undefined },
  { what: 'certificate of the client', list: { identities: [], serials: [] }, bySerial: 'web' },
  { what: 'certificate of the server', list: { identities: [], serials: [] }, bySerial: 'cart' },
] as const)(
  'a handshake is refused by the $what, also when it was accepted before',
  async ({ list, bySerial }) => {
    await using ca = await temporaryAuthority();
    const svids = { web: await ca.svid(WEB), cart: await ca.svid(CART) };
    expect(await shakeHands(svids.web, svids.cart)).toEqual({ kind: 'accepted' });
    setRevoked(bySerial === undefined ? list : { identities: [], serials: [svids[bySerial].serial] });
    expect(haveShakenHands(svids.web, svids.cart)).toBe(false);
    expect(await shakeHands(svids.web, svids.cart)).toMatchObject({
      kind: 'refused',
      reason: expect.stringContaining('revoked'),
    });
    setRevoked({ identities: [], serials: [] });
    expect(await shakeHands(svids.web, svids.cart)).toEqual({ kind: 'accepted' });
  },
);

test('another certificate of the same identity is good', async () => {
  await using ca = await temporaryAuthority();
  const [first, second] = [await ca.svid(WEB), await ca.svid(WEB)];
  setRevoked({ identities: [], serials: [first.serial] });
  expect([isRevoked(first), isRevoked(second)]).toEqual([true, false]);
  const [leaf = ''] = splitPem(first.certificateChainPem);
  expect(identityOfCertificate(new X509Certificate(leaf).raw)).toMatchObject({ reason: 'revoked' });
});

test('whoever holds a certificate that is revoked asks for another at once', async () => {
  await using ca = await temporaryAuthority();
  const svids = [await ca.svid(WEB), await ca.svid(WEB)];
  const [first, second] = svids;
  if (!first || !second) throw new Error('a certificate is missing');
  let asked = 0;
  const manager = createSvidManager({
    request: async () => svids[asked++] ?? second,
    onSvid: () => undefined,
    onError: () => undefined,
  });
  manager.want(first.identity);
  expect(await manager.waitFor(first.identity, 1000)).toBe(first);
  setRevoked({ identities: [], serials: [first.serial] });
  expect(manager.get(first.identity)).toBeUndefined();
  expect(manager.list()[0]?.state).toBe('Unavailable: the certificate is revoked');
  manager.replaceRevoked();
  expect(await manager.waitFor(first.identity, 1000)).toBe(second);
  expect(asked).toBe(2);
  manager.close();
});
