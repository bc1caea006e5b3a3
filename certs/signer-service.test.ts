import { X509Certificate } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import { Client, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createSigningRequest } from './csr.ts';
import { IstioCertificateRequestSchema } from './gen/istio/v1/auth/ca_pb.ts';
import { formatIdentity } from './identity.ts';
import { readCertificateNames } from './leaf.ts';
import { createCertificateMethod, type SignerResponse } from './signer-protocol.ts';
import { CART, GATEWAY, HOUR_S, startSigner, type TestSigner, WEB } from './testing-signer.ts';

let signer: TestSigner;
beforeAll(async () => {
  signer = await startSigner();
});
afterAll(async () => await signer[Symbol.asyncDispose]());
beforeEach(() => {
  signer.recorded.length = 0;
  signer.logged.length = 0;
});

test('what was issued is signer.recorded, with who asked', async () => {
  await using client = signer.client();
  const { serial, notBeforeMs, notAfterMs } = await client.requestSvid(WEB, HOUR_S);
  expect(signer.recorded).toMatchObject([
    { serial, notBeforeMs, notAfterMs, identity: formatIdentity(WEB), node: 'n1' },
  ]);
});

test('the answer is the leaf, the intermediate, and last the roots', async () => {
  const { certificateChain } = await ask({ impersonated: formatIdentity(WEB) });
  const [leaf, issuing, root] = certificateChain.map((pem) => new X509Certificate(pem));
  expect(certificateChain).toHaveLength(3);
  expect(issuing && leaf?.checkIssued(issuing)).toBe(true);
  expect(root && issuing?.checkIssued(root)).toBe(true);
});

test('the name in the signing request does not count', async () => {
  const { csrPem } = await createSigningRequest(CART);
  const { certificateChain } = await ask({ csrPem, impersonated: formatIdentity(WEB) });
  expect(urisOf(certificateChain)).toEqual([formatIdentity(WEB)]);
});

test('without a name a caller gets its own', async () => {
  const { certificateChain } = await ask({ token: 'Bearer gateway', ttlSeconds: 60n });
  expect(urisOf(certificateChain)).toEqual([formatIdentity(GATEWAY)]);
});

test.each([
  {
    when: 'its credential is unknown',
    token: 'Bearer stranger',
    impersonated: formatIdentity(WEB),
    reason: 'no valid credential',
  },
  {
    when: 'the scheme is not Bearer',
    token: 'node-1',
    impersonated: formatIdentity(WEB),
    reason: 'no valid credential',
  },
  {
    when: 'no such workload is on its node',
    token: 'Bearer node-1',
    impersonated: formatIdentity(CART),
    reason: 'no workload of n1',
  },
  {
    when: 'it asks for another from another node',
    token: 'Bearer gateway',
    impersonated: formatIdentity(WEB),
    reason: 'no workload of n2',
  },
  {
    when: 'the trust domain is another',
    token: 'Bearer node-1',
    impersonated: 'spiffe://other/ns/shop/sa/web',
    reason: 'not of trust domain',
  },
  {
    when: 'the name is no SPIFFE ID',
    token: 'Bearer node-1',
    impersonated: 'spiffe://cluster.local/ns/shop/sa/web\0',
    reason: 'not a SPIFFE ID',
  },
  { when: 'the name is empty', token: 'Bearer node-1', impersonated: '', reason: 'not a SPIFFE ID' },
  {
    when: 'it has no identity of its own',
    token: 'Bearer node-1',
    impersonated: undefined,
    reason: 'no identity of its own',
  },
])(
  'a caller is refused without a reason when $when; the log has it',
  async ({ token, impersonated, reason }) => {
    const refusal = await refused({ token, ...(impersonated !== undefined && { impersonated }) });
    expect(refusal).toMatchObject({ code: status.UNAUTHENTICATED, details: 'request authenticate failure' });
    expect(signer.logged).toMatchObject([
      { msg: 'certificate refused', reason: expect.stringContaining(reason) },
    ]);
    expect(signer.recorded).toEqual([]);
  },
);

test.each([
  { ttlSeconds: 0n, life: 24 * HOUR_S },
  { ttlSeconds: -1n, life: 24 * HOUR_S },
  { ttlSeconds: 10n, life: 10 },
  { ttlSeconds: BigInt(48 * HOUR_S), life: 48 * HOUR_S },
])('a validity of $ttlSeconds s gives a life of $life s', async ({ ttlSeconds, life }) => {
  await ask({ impersonated: formatIdentity(WEB), ttlSeconds });
  const [issued] = signer.recorded;
  expect(Math.abs((issued?.notAfterMs ?? 0) - (issued?.issuedMs ?? 0) - life * 1000)).toBeLessThanOrEqual(
    1000,
  );
});

test.each([
  { when: 'the validity is above the longest', wish: { ttlSeconds: BigInt(48 * HOUR_S) + 1n } },
  { when: 'the validity is absurd', wish: { ttlSeconds: 2n ** 63n - 1n } },
  { when: 'the signing request is rubbish', wish: { csrPem: 'rubbish' } },
  { when: 'there is no signing request', wish: { csrPem: '' } },
  { when: 'it is larger than 64 KiB', wish: { csrPem: 'x'.repeat(70_000) } },
  { when: 'it is no such message', wish: { raw: Buffer.from([0x0a, 0xff, 0xff]) } },
  { when: 'the name is a number', wish: { raw: withMetadata({ ImpersonatedIdentity: 7 }) } },
  { when: 'it is nested thousands deep', wish: { raw: nested(7000) } },
])('a request is refused as invalid when $when', async ({ wish }) => {
  expect(await refused({ impersonated: formatIdentity(WEB), ...wish })).toMatchObject({
    code: status.INVALID_ARGUMENT,
  });
});

interface Wish {
  readonly token?: string;
  readonly csrPem?: string;
  readonly impersonated?: string;
  readonly ttlSeconds?: bigint;
  /** The message itself, in place of all the above but the token. */
  readonly raw?: Uint8Array;
}

/** A request as any client may send it. */
async function ask({ token = 'Bearer node-1', ttlSeconds = 60n, ...wish }: Wish): Promise<SignerResponse> {
  const csrPem = wish.csrPem ?? (await createSigningRequest(WEB)).csrPem;
  const method = createCertificateMethod.createCertificate;
  const request = {
    csrPem,
    ttlSeconds,
    ...(wish.impersonated !== undefined && { impersonated: wish.impersonated }),
  };
  const bytes = wish.raw ?? method.requestSerialize({ kind: 'request', request });
  const headers = new Metadata();
  headers.set('authorization', token);
  const roots = Buffer.from(signer.ca.authority.bundlePem());
  const client = new Client(`localhost:${signer.port}`, credentials.createSsl(roots));
  const { promise, resolve, reject } = Promise.withResolvers<SignerResponse>();
  client.makeUnaryRequest(
    method.path,
    () => Buffer.from(bytes),
    method.responseDeserialize,
    undefined,
    headers,
    (error, response) => (response === undefined ? reject(error) : resolve(response)),
  );
  return await promise.finally(() => client.close());
}

async function refused(wish: Wish): Promise<ServiceError | undefined> {
  return await ask(wish).then(
    () => undefined,
    (error: ServiceError) => error,
  );
}

function urisOf(certificateChain: readonly string[]): readonly string[] {
  return readCertificateNames(new X509Certificate(certificateChain[0] ?? '').raw).uris;
}

function withMetadata(metadata: Record<string, number>): Uint8Array {
  const message = create(IstioCertificateRequestSchema, { metadata });
  return toBinary(IstioCertificateRequestSchema, message);
}

/** A metadata struct of lists in lists, written from the inside out. */
function nested(depth: number): Uint8Array {
  const field = (number: number, content: Uint8Array): Uint8Array =>
    Buffer.concat([Uint8Array.of((number << 3) | 2, ...varint(content.length)), content]);
  let value: Uint8Array = Uint8Array.of(0x08, 0x00);
  for (let level = 0; level < depth; level += 1) value = field(6, field(1, value));
  return field(4, field(1, Buffer.concat([field(1, Buffer.from('a')), field(2, value)])));
}

function varint(length: number): readonly number[] {
  return length < 0x80 ? [length] : [(length & 0x7f) | 0x80, ...varint(length >> 7)];
}
