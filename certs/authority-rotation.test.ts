import { X509Certificate } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openAuthority, type RotatingAuthority } from './authority.ts';
import { shakeHands } from './in-process-handshake.ts';
import { makeSigningFiles } from './make-authority.ts';
import { splitPem } from './pem.ts';
import { issueSvid, temporaryAuthority } from './testing.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';

const reopen = async (directory: string): Promise<RotatingAuthority> =>
  await openAuthority({ directory, trustDomain: 'cluster.local' });
const next = (): ReturnType<typeof makeSigningFiles> => makeSigningFiles('cluster.local', Date.now());

/** Who signs, how many are trusted, and which phase it is. */
function shape(authority: RotatingAuthority): unknown {
  return {
    signing: authority.signing().issuingPem,
    trusted: splitPem(authority.bundlePem()).length,
    phase: authority.rotation().kind,
  };
}

test('certificates of each phase accept those of the phase before and after', async () => {
  await using ca = await temporaryAuthority();
  const { authority } = ca;
  const svids = [await ca.svid(WEB)];
  authority.distribute(await next());
  svids.push(await ca.svid(CART));
  authority.signWithNext(Date.now());
  svids.push(await ca.svid(WEB));
  authority.retire();
  svids.push(await ca.svid(CART));
  const [first, second, third, fourth] = svids;
  if (!first || !second || !third || !fourth) throw new Error('a certificate is missing');
  for (const [client, server] of [
    [first, second],
    [second, third],
    [third, fourth],
  ] as const) {
    expect(await shakeHands(client, server)).toEqual({ kind: 'accepted' });
  }
  // Who has not got the new root: that is what acknowledgements are for. And what the old one signed is over.
  expect(await shakeHands(first, third)).toMatchObject({ kind: 'refused' });
  expect(await shakeHands(first, fourth)).toMatchObject({ kind: 'refused' });
});

test('in every phase an authority that is opened again goes on where it was', async () => {
  await using ca = await temporaryAuthority();
  const { authority, directory } = ca;
  expect(shape(await reopen(directory))).toEqual(shape(authority));
  const files = await next();
  authority.distribute(files);
  expect(shape(authority)).toMatchObject({ trusted: 2, phase: 'distributing' });
  expect(shape(await reopen(directory))).toEqual(shape(authority));
  authority.signWithNext(Date.now());
  expect(shape(authority)).toEqual({ signing: files.issuingPem, trusted: 2, phase: 'retiring' });
  expect(shape(await reopen(directory))).toEqual(shape(authority));
  authority.retire();
  expect(shape(authority)).toEqual({ signing: files.issuingPem, trusted: 1, phase: 'none' });
  expect(shape(await reopen(directory))).toEqual(shape(authority));
  expect(await readFile(join(directory, 'root.pem'), 'utf8')).toBe(files.rootPem);
  expect((await stat(join(directory, 'rotation.json'))).mode & 0o777).toBe(0o600);
});

test.each(['root.pem', 'root.key', 'issuing.pem', 'issuing.key', 'bundle.pem'])(
  'a change that was cut off before %s is carried out when it opens again',
  async (name) => {
    await using ca = await temporaryAuthority();
    const { authority, directory } = ca;
    const before = await readFile(join(directory, name), 'utf8');
    authority.distribute(await next());
    authority.signWithNext(Date.now());
    await writeFile(join(directory, name), before);
    const again = await reopen(directory);
    expect(shape(again)).toEqual(shape(authority));
    expect(await readFile(join(directory, name), 'utf8')).not.toBe(before);
  },
);

test('a rotation that is under way is not begun again, and its file is not guessed at', async () => {
  await using ca = await temporaryAuthority();
  const { authority, directory } = ca;
  authority.distribute(await next());
  const files = await next();
  expect(() => authority.distribute(files)).toThrow(expect.objectContaining({ code: 'BUSY' }));
  await writeFile(join(directory, 'rotation.json'), '{"kind":"distr');
  await expect(reopen(directory)).rejects.toMatchObject({
    code: 'UNREADABLE',
    message: expect.stringContaining('rotation.json'),
  });
});

test('what signs and what is sent with it are of one authority, also while that changes', async () => {
  await using ca = await temporaryAuthority();
  const { authority } = ca;
  authority.distribute(await next());
  const issuing = Promise.all(Array.from({ length: 20 }, () => issueSvid(authority, WEB)));
  authority.signWithNext(Date.now());
  for (const { certificateChainPem } of await issuing) {
    const [leaf, issuer] = splitPem(certificateChainPem).map((pem) => new X509Certificate(pem));
    expect(issuer && leaf?.verify(issuer.publicKey)).toBe(true);
  }
});
