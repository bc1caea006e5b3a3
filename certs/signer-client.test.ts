import { X509Certificate } from 'node:crypto';
import { createServer as createTcpServer } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createSigningRequest, readSigningRequest, type SigningRequest } from './csr.ts';
import { formatIdentity, type Identity } from './identity.ts';
import { readCertificateNames } from './leaf.ts';
import { splitPem } from './pem.ts';
import { readResponse } from './signer-client.ts';
import type { SignerResponse } from './signer-protocol.ts';
import { temporaryAuthority } from './testing.ts';
import { CART, HOUR_S, startSigner, type TestSigner, WEB } from './testing-signer.ts';

let signer: TestSigner;
beforeAll(async () => {
  signer = await startSigner();
});
afterAll(async () => await signer[Symbol.asyncDispose]());
beforeEach(() => {
  signer.recorded.length = 0;
  signer.logged.length = 0;
});

test.each(['127.0.0.1', '[::1]', 'localhost'])(
  'a node gets an SVID from an authority at %s',
  async (host) => {
    await using client = signer.client({ address: `https://${host}:${signer.port}` });
    const svid = await client.requestSvid(WEB, HOUR_S);
    const leaf = new X509Certificate(svid.certificateChainPem);
    expect(readCertificateNames(leaf.raw).uris).toEqual([formatIdentity(WEB)]);
    expect(svid).toMatchObject({ identity: WEB, rootsPem: signer.ca.authority.bundlePem() });
    expect(svid.notAfterMs - Date.now()).toBeGreaterThan((HOUR_S - 60) * 1000);
  },
);

test('no private key is ever signer.logged', async () => {
  await using client = signer.client();
  const { privateKeyPem } = await client.requestSvid(WEB, HOUR_S);
  const secret = privateKeyPem.split('\n')[1] ?? '';
  expect(JSON.stringify(signer.logged)).toContain('certificate issued');
  expect(JSON.stringify(signer.logged)).not.toContain(secret);
});

test('a client tells a refusal from an authority that cannot be reached', async () => {
  await using stranger = signer.client({ headers: async () => ({ authorization: 'Bearer stranger' }) });
  await expect(stranger.requestSvid(WEB, HOUR_S)).rejects.toMatchObject({ code: 'REFUSED' });
  await using lost = signer.client({ address: 'https://127.0.0.1:1', timeoutMs: 2000 });
  await expect(lost.requestSvid(WEB, HOUR_S)).rejects.toMatchObject({ code: 'UNREACHABLE' });
});

test('an authority that does not answer is given up in time', async () => {
  const silent = createTcpServer((socket) => socket.on('error', () => socket.destroy()).resume());
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const address = silent.address();
  await using client = signer.client({
    address: `https://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
    timeoutMs: 200,
  });
  await expect(client.requestSvid(WEB, HOUR_S)).rejects.toMatchObject({ code: 'UNREACHABLE' });
  silent.close();
});

test('an authority with the certificate of another is not asked', async () => {
  await using other = await temporaryAuthority();
  await using client = signer.client({ rootsPem: () => other.authority.bundlePem(), timeoutMs: 1000 });
  await expect(client.requestSvid(WEB, HOUR_S)).rejects.toMatchObject({ code: 'UNREACHABLE' });
  expect(signer.logged).toEqual([]);
});

test('an authority whose certificate has another name is not asked, but for the alternative name', async () => {
  const elsewhere = { address: `https://127.0.0.2:${signer.port}`, timeoutMs: 1000 };
  await using client = signer.client(elsewhere);
  await expect(client.requestSvid(WEB, HOUR_S)).rejects.toMatchObject({ code: 'UNREACHABLE' });
  await using told = signer.client({ ...elsewhere, alternativeName: 'istiod.example' });
  expect((await told.requestSvid(WEB, HOUR_S)).identity).toEqual(WEB);
});

test('roots that change are used from the next request on', async () => {
  await using other = await temporaryAuthority();
  let roots = other.authority.bundlePem();
  await using client = signer.client({ rootsPem: () => roots, timeoutMs: 1000 });
  await expect(client.requestSvid(WEB, HOUR_S)).rejects.toMatchObject({ code: 'UNREACHABLE' });
  roots = signer.ca.authority.bundlePem();
  expect((await client.requestSvid(WEB, HOUR_S)).identity).toEqual(WEB);
});

test('a request that is no longer wanted ends', async () => {
  await using client = signer.client({ address: 'https://127.0.0.1:1' });
  const abort = new AbortController();
  const asking = expect(client.requestSvid(WEB, HOUR_S, abort.signal)).rejects.toMatchObject({
    code: 'ABORTED',
  });
  abort.abort();
  await asking;
});

test('clear text is refused', () => {
  expect(() => signer.client({ address: 'http://127.0.0.1:15012' })).toThrow('not an https URL');
});

test.each([
  { when: 'it is empty', change: () => [] },
  { when: 'it lacks the roots', change: ([leaf = '']: readonly string[]) => [leaf] },
  {
    when: 'its roots are rubbish',
    change: ([leaf = '', issuing = '']: readonly string[]) => [leaf, issuing, 'x'],
  },
  {
    when: 'its intermediate is missing',
    change: ([leaf = '', , roots = '']: readonly string[]) => [leaf, roots],
  },
  {
    when: 'its leaf is an authority',
    change: ([, issuing = '', roots = '']: readonly string[]) => [issuing, roots],
  },
  {
    when: 'its leaf cannot be read',
    change: ([leaf = '', ...rest]: readonly string[]) => [leaf.replace('MII', 'AAA'), ...rest],
  },
])("an authority's answer is refused when $when", async ({ change }) => {
  const request = await createSigningRequest(WEB);
  const answer = await answerTo(request, WEB);
  expect(readResponse(answer, WEB, request).identity).toEqual(WEB);
  expect(() => readResponse({ certificateChain: change(answer.certificateChain) }, WEB, request)).toThrow(
    expect.objectContaining({ code: 'BAD_RESPONSE' }),
  );
});

test('a certificate for somebody else, or for another key, is refused', async () => {
  const request = await createSigningRequest(WEB);
  const answer = await answerTo(request, WEB);
  const badResponse = expect.objectContaining({ code: 'BAD_RESPONSE' });
  expect(() => readResponse(answer, CART, request)).toThrow(badResponse);
  const other = await createSigningRequest(WEB);
  expect(() => readResponse(answer, WEB, other)).toThrow(badResponse);
});

test('an authority without an intermediate, and with two roots, is understood', async () => {
  const request = await createSigningRequest(WEB);
  const { certificateChain } = await answerTo(request, WEB);
  const [leaf = '', issuing = '', root = ''] = certificateChain;
  const svid = readResponse({ certificateChain: [leaf, issuing + root] }, WEB, request);
  expect([splitPem(svid.certificateChainPem).length, splitPem(svid.rootsPem).length]).toEqual([1, 2]);
});

/** What an authority answers to such a request. */
async function answerTo({ csrPem }: SigningRequest, identity: Identity): Promise<SignerResponse> {
  const { publicKeySpki } = readSigningRequest(csrPem);
  const { chainPem, rootsPem } = await signer.ca.authority.issue({ publicKeySpki, identity, ttlMs: 60_000 });
  return { certificateChain: [...chainPem, rootsPem] };
}
