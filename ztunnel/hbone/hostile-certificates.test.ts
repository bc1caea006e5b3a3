import { createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TAG, writeDer } from '#certs/der.ts';
import { formatIdentity } from '#certs/identity.ts';
import { identityOfCertificate } from '#certs/peer.ts';
import type { Svid } from '#certs/svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import {
  type ForgedExtension,
  type ForgingSigner,
  forgeCertificate,
  forgedSvid,
  generalName,
  LEAF_EXTENSIONS,
  namesExtension,
  OID,
  otherName,
  usageExtension,
} from '#certs/testing-forge.ts';
import { connectHop } from './client.ts';
import { HboneError } from './error.ts';
import { createHboneServer } from './server.ts';
import { SETTINGS } from './testing.ts';

/** Certificates that an authority of the mesh has signed and never should have: shown to both ends of HBONE, over real TLS. */

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const ADMIN = 'spiffe://cluster.local/ns/kube-system/sa/admin';

let ca: TemporaryAuthority;
let cart: Svid;
let signer: ForgingSigner;
beforeAll(async () => {
  ca = await temporaryAuthority();
  cart = await ca.svid('spiffe://cluster.local/ns/shop/sa/cart');
  const key = createPrivateKey(await readFile(join(ca.directory, 'issuing.key'), 'utf8'));
  signer = { key, certificatePem: (await ca.signer()).certificatePem };
});
afterAll(async () => await ca[Symbol.asyncDispose]());

const { constraints, usage, extendedUsage } = LEAF_EXTENSIONS;
const uri = (value: string): Uint8Array => generalName('uri', value);
const leaf = (...names: readonly Uint8Array[]): readonly ForgedExtension[] => [
  constraints,
  usage,
  extendedUsage,
  namesExtension(...names),
];
const WITHOUT = leaf(uri(WEB));
const CRITICAL_UNKNOWN = { oid: '1.3.6.1.4.1.99999.1', isCritical: true, value: Buffer.from('0500', 'hex') };
const AUTHORITY = {
  oid: OID.constraints,
  isCritical: true,
  value: writeDer(TAG.sequence, Buffer.from('0101ff', 'hex')),
};
const CLIENT_ONLY = {
  oid: OID.extendedUsage,
  value: writeDer(TAG.sequence, writeDer(TAG.objectIdentifier, Buffer.from('2b06010505070302', 'hex'))),
};

/** Lists in lists, as many as fit into a certificate that TLS still carries. */
function deep(levels: number): Uint8Array {
  let bytes: Uint8Array = Buffer.alloc(0);
  for (let level = 0; level < levels; level += 1) bytes = writeDer(TAG.sequence, bytes);
  return bytes;
}

test('a forged certificate without a fault is taken by both ends: what follows is refused for its fault alone', async () => {
  const svid = forge(WITHOUT);
  expect(await asClient(svid)).toBe('accepted');
  expect(await asServer(svid)).toBe('accepted');
});

const REFUSED: readonly {
  readonly when: string;
  readonly extensions: readonly ForgedExtension[];
  /** Whether our reading of the bytes refuses it by itself, or OpenSSL's path validation does before. */
  readonly by: 'bytes' | 'path';
  readonly from?: number;
  readonly until?: number;
}[] = [
  { when: 'it has two URI names', extensions: leaf(uri(WEB), uri(ADMIN)), by: 'bytes' },
  { when: 'it has the same URI name twice', extensions: leaf(uri(WEB), uri(WEB)), by: 'bytes' },
  { when: 'another URI comes second', extensions: leaf(uri(WEB), uri('https://a.example')), by: 'bytes' },
  { when: 'a NUL ends its name', extensions: leaf(uri(`${WEB}\0`)), by: 'bytes' },
  { when: 'a NUL is in its name', extensions: leaf(uri(`${WEB}\0.evil`)), by: 'bytes' },
  {
    when: 'its URI is within a DNS name',
    extensions: leaf(generalName('dns', `a, URI:${WEB}`)),
    by: 'bytes',
  },
  { when: 'its URI is a DNS name', extensions: leaf(generalName('dns', WEB)), by: 'bytes' },
  { when: 'its URI is an e-mail address', extensions: leaf(generalName('email', WEB)), by: 'bytes' },
  {
    when: 'its URI is an otherName',
    extensions: leaf(otherName('1.3.6.1.4.1.311.20.2.3', WEB)),
    by: 'bytes',
  },
  { when: 'it has no names', extensions: [constraints, usage, extendedUsage], by: 'bytes' },
  {
    when: 'its name has a port',
    extensions: leaf(uri('spiffe://cluster.local:1/ns/shop/sa/web')),
    by: 'bytes',
  },
  {
    when: 'its name has a user',
    extensions: leaf(uri('spiffe://a@cluster.local/ns/shop/sa/web')),
    by: 'bytes',
  },
  { when: 'its name has a query', extensions: leaf(uri(`${WEB}?a`)), by: 'bytes' },
  { when: 'its name has a fragment', extensions: leaf(uri(`${WEB}#a`)), by: 'bytes' },
  { when: 'its name ends in a slash', extensions: leaf(uri(`${WEB}/`)), by: 'bytes' },
  {
    when: 'its name has an empty segment',
    extensions: leaf(uri('spiffe://cluster.local//ns/shop/sa/web')),
    by: 'bytes',
  },
  { when: 'its name goes up', extensions: leaf(uri('spiffe://cluster.local/ns/../sa/web')), by: 'bytes' },
  {
    when: 'its name is percent-encoded',
    extensions: leaf(uri('spiffe://cluster.local/ns/shop/sa/%77eb')),
    by: 'bytes',
  },
  {
    when: 'its scheme is in capitals',
    extensions: leaf(uri('SPIFFE://cluster.local/ns/shop/sa/web')),
    by: 'bytes',
  },
  {
    when: 'its trust domain is in capitals',
    extensions: leaf(uri('spiffe://Cluster.local/ns/shop/sa/web')),
    by: 'bytes',
  },
  {
    when: 'its trust domain has 256 characters',
    extensions: leaf(uri(`spiffe://${'a'.repeat(256)}/ns/b/sa/c`)),
    by: 'bytes',
  },
  { when: 'its name has 2049 characters', extensions: leaf(uri(WEB.padEnd(2049, 'x'))), by: 'bytes' },
  {
    when: 'it may sign certificates, by its constraints',
    extensions: [AUTHORITY, ...WITHOUT.slice(1)],
    by: 'bytes',
  },
  {
    when: 'it may sign certificates, by its usage',
    extensions: [constraints, usageExtension(0x84), ...WITHOUT.slice(2)],
    by: 'bytes',
  },
  {
    when: 'it may sign lists of revoked ones',
    extensions: [constraints, usageExtension(0x82), ...WITHOUT.slice(2)],
    by: 'bytes',
  },
  { when: 'an extension is there twice', extensions: [...WITHOUT, extendedUsage], by: 'bytes' },
  { when: 'its names are there twice', extensions: [...WITHOUT, namesExtension(uri(ADMIN))], by: 'bytes' },
  {
    when: 'it may not sign a handshake',
    extensions: [constraints, usageExtension(0x20), ...WITHOUT.slice(2)],
    by: 'bytes',
  },
  { when: 'an unknown extension is critical', extensions: [...WITHOUT, CRITICAL_UNKNOWN], by: 'path' },
  { when: 'it has ended', extensions: WITHOUT, by: 'path', from: -100, until: -1 },
  { when: 'it has not begun', extensions: WITHOUT, by: 'path', from: 600 },
];

test.each(REFUSED)('both ends refuse a certificate when $when', async ({ extensions, by, from, until }) => {
  const svid = forge(extensions, {
    ...(from !== undefined && { from }),
    ...(until !== undefined && { until }),
  });
  const { raw } = new X509Certificate(svid.certificateChainPem);
  expect(identityOfCertificate(raw).kind).toBe(by === 'bytes' ? 'refused' : 'accepted');
  expect(await asClient(svid)).toBe('refused');
  expect(await asServer(svid)).toBe('refused');
});

test('a certificate for one of the two roles does not do for the other', async () => {
  const svid = forge([constraints, usage, CLIENT_ONLY, namesExtension(uri(WEB))]);
  expect(await asClient(svid)).toBe('accepted');
  expect(await asServer(svid)).toBe('refused');
});

test('a certificate with lists in lists is read or refused, and neither end falls', async () => {
  for (const levels of [100, 5000]) {
    const svid = forge([...WITHOUT, { oid: '1.3.6.1.4.1.99999.2', value: deep(levels) }]);
    expect(await asClient(svid)).toBe('accepted');
    expect(await asServer(svid)).toBe('accepted');
  }
  const names = forge([constraints, usage, extendedUsage, { oid: OID.names, value: deep(5000) }]);
  expect([await asClient(names), await asServer(names)]).toEqual(['refused', 'refused']);
});

test('what a workload signs is nobody', async () => {
  const own = await ca.svid(WEB);
  const [certificatePem = ''] = own.certificateChainPem.split(/(?<=-----END CERTIFICATE-----\n)/);
  const byLeaf = { key: createPrivateKey(own.privateKeyPem), certificatePem };
  const child = forgeCertificate({ signer: byLeaf, extensions: leaf(uri(ADMIN)) });
  const svid = forgedSvid(child, {
    identity: ADMIN,
    chainPem: own.certificateChainPem,
    rootsPem: own.rootsPem,
  });
  expect([await asClient(svid), await asServer(svid)]).toEqual(['refused', 'refused']);
});

test('a certificate of another trust domain, signed by the same authority, is no client', async () => {
  expect(await asClient(forge(leaf(uri('spiffe://other.example/ns/shop/sa/web'))))).toBe('refused');
});

function forge(extensions: readonly ForgedExtension[], times: { from?: number; until?: number } = {}): Svid {
  const forged = forgeCertificate({ signer, extensions, ...times });
  return forgedSvid(forged, {
    identity: WEB,
    chainPem: signer.certificatePem,
    rootsPem: ca.authority.bundlePem(),
  });
}

/** What a server of ours makes of it. */
async function asClient(svid: Svid): Promise<string> {
  return (await meet(cart, svid, cart)).server;
}

/** What a client of ours makes of it. */
async function asServer(svid: Svid): Promise<string> {
  return (await meet(svid, cart, svid)).client;
}

interface Meeting {
  readonly server: string;
  readonly client: string;
}

async function meet(server: Svid, client: Svid, expected: Svid): Promise<Meeting> {
  const seen = Promise.withResolvers<string>();
  const sockets: Socket[] = [];
  const hbone = createHboneServer(server, {
    settings: SETTINGS,
    handshakeTimeoutMs: 10_000,
    onSession: ({ peer }) =>
      seen.resolve(formatIdentity(peer) === formatIdentity(client.identity) ? 'accepted' : 'other'),
    onRequest: () => undefined,
    onSessionClose: () => undefined,
    onRefused: () => seen.resolve('refused'),
  });
  const listener = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => socket.destroy());
    hbone.accept(socket);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as { port: number };
  const outcome = await connectHop({
    hop: { ip: '127.0.0.1', port },
    svid: client,
    expected: [expected.identity],
    dial: (to) => connect({ host: to.ip, port: to.port }),
    settings: SETTINGS,
    timeoutMs: 10_000,
    onClose: () => undefined,
  }).catch((error: unknown) => error);
  const result = {
    server: await seen.promise,
    client: outcome instanceof HboneError ? 'refused' : 'accepted',
  };
  if (!(outcome instanceof Error)) (outcome as { close: (reason: string) => void }).close('done');
  for (const socket of sockets) socket.destroy();
  listener.close();
  return result;
}
