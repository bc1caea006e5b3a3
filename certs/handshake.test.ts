import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect, createServer, type Server, TLSSocket } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { formatIdentity, parseIdentity } from './identity.ts';
import { checkClientSocket, clientTlsOptions, type PeerCheck, secureContextFor, tlsOptions } from './peer.ts';
import type { Svid } from './svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from './testing.ts';
import { importSigningKey, signCertificate } from './x509.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';

let ca: TemporaryAuthority;
let web: Svid;
let cart: Svid;
beforeAll(async () => {
  ca = await temporaryAuthority();
  web = await ca.svid(WEB);
  cart = await ca.svid(CART);
});
afterAll(async () => await ca[Symbol.asyncDispose]());

test('two workloads of one mesh meet over TLS 1.3, h2, without a server name', async () => {
  const { server, client, socket } = await meet(cart, asClient(web));
  expect(server).toEqual({ kind: 'accepted', identity: parseIdentity(WEB) });
  expect(client).toBe('connected');
  expect([socket?.getProtocol(), socket?.alpnProtocol, servernameOf(socket)]).toEqual([
    'TLSv1.3',
    'h2',
    false,
  ]);
});

test('two workloads of one mesh agree on a key that a quantum computer cannot find', async () => {
  await using server = await listening(createServer(tlsOptions(cart)));
  const socket = connect({ port: server.port, ...asClient(web) });
  await once(socket, 'secureConnect');
  expect(socket.getEphemeralKeyInfo()).toMatchObject({ name: 'X25519MLKEM768' });
  socket.destroy();
});

test.each(['X25519MLKEM768', 'X25519', 'P-256'])(
  'a client that offers only the group %s is served',
  async (group) => {
    const { server } = await meet(cart, alter(web, { ecdhCurve: group }));
    expect(server).toMatchObject({ kind: 'accepted' });
  },
);

test.each(['TLS_AES_256_GCM_SHA384', 'TLS_AES_128_GCM_SHA256'])('the suite %s is served', async (suite) => {
  const { server, socket } = await meet(cart, alter(web, { ciphers: suite }));
  expect([server, socket?.getCipher().name]).toMatchObject([{ kind: 'accepted' }, suite]);
});

test.each([
  {
    when: 'it speaks TLS 1.2',
    options: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256' },
  },
  { when: 'it offers only ChaCha20', options: { ciphers: 'TLS_CHACHA20_POLY1305_SHA256' } },
  { when: 'it offers only another group', options: { ecdhCurve: 'P-521' } },
  { when: 'it has no certificate', options: { key: undefined, cert: undefined } },
] satisfies { when: string; options: ConnectionOptions }[])(
  'a client is turned away when $when',
  async ({ options }) => {
    expect((await meet(cart, alter(web, options))).server).toBe('no handshake');
  },
);

test('a client with the certificate of another authority is turned away', async () => {
  await using other = await temporaryAuthority();
  const stranger = await other.svid(WEB);
  expect((await meet(cart, alter(stranger, { ca: cart.rootsPem }))).server).toBe('no handshake');
});

test('a server with the certificate of another authority is turned away', async () => {
  await using other = await temporaryAuthority();
  const stranger = await other.svid(CART);
  const { client } = await meet({ ...stranger, rootsPem: web.rootsPem }, asClient(web));
  expect(client).toMatchObject({ code: 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' });
});

test('a server that is somebody else is turned away, by name', async () => {
  const { client } = await meet(web, asClient(web));
  expect(client).toMatchObject({ code: 'unexpected-identity', message: expect.stringContaining(CART) });
});

test('a client whose certificate has expired is turned away', async () => {
  const expired = await forged({ notAfterMs: Date.now() - 1000 });
  expect((await meet(cart, alter(expired, {}))).server).toBe('no handshake');
});

test('a client whose certificate is not yet valid is turned away', async () => {
  const early = await forged({ notBeforeMs: Date.now() + 600_000 });
  expect((await meet(cart, alter(early, {}))).server).toBe('no handshake');
});

test('a server whose certificate has expired is turned away', async () => {
  const expired = await forged({ notAfterMs: Date.now() - 1000, identity: CART });
  expect((await meet(expired, asClient(web))).client).toMatchObject({ code: 'CERT_HAS_EXPIRED' });
});

test('a workload cannot certify another', async () => {
  const signer = { key: importSigningKey(web.privateKeyPem), certificatePem: web.certificateChainPem };
  const child = await forged({ identity: 'spiffe://cluster.local/ns/kube-system/sa/admin', signer });
  const chain = { ...child, certificateChainPem: child.certificateChainPem + web.certificateChainPem };
  expect((await meet(cart, alter(chain, {}))).server).toBe('no handshake');
});

test('the certificate of an authority is no workload', async () => {
  const intermediate = {
    ...web,
    privateKeyPem: await readFile(join(ca.directory, 'issuing.key'), 'utf8'),
    certificateChainPem: await readFile(join(ca.directory, 'issuing.pem'), 'utf8'),
  };
  expect((await meet(cart, alter(intermediate, {}))).server).toBe('no handshake');
});

test("a server's own certificate does not make it a client of the mesh", async () => {
  const { keyPem, chainPem } = await ca.authority.issueServer({ dnsNames: ['a.b'], ips: [], ttlMs: 60_000 });
  const impostor = { ...web, privateKeyPem: keyPem, certificateChainPem: chainPem.join('') };
  expect((await meet(cart, alter(impostor, {}))).server).toBe('no handshake');
});

test('a client of another trust domain is refused, although its certificate verifies', async () => {
  const foreign = await forged({ identity: 'spiffe://other.example/ns/shop/sa/web' });
  expect((await meet(cart, alter(foreign, {}))).server).toMatchObject({ reason: 'foreign-trust-domain' });
});

test('a client with two SPIFFE IDs is refused, although its certificate verifies', async () => {
  const two = await forged({ names: [WEB, CART] });
  expect((await meet(cart, alter(two, {}))).server).toMatchObject({ reason: 'several-uri-names' });
});

test('no session is resumed: every connection proves its identity', async () => {
  await using server = await listening(createServer(tlsOptions(cart)));
  server.server.on('secureConnection', (socket) => socket.end('hello'));
  const first = connect({ port: server.port, ...asClient(web) });
  const sessions: Buffer[] = [];
  first.on('session', (session: Buffer) => sessions.push(session));
  first.resume();
  await once(first, 'close');
  expect(sessions.length).toBeGreaterThan(0);

  const again = connect({ port: server.port, ...asClient(web), session: sessions.at(-1) });
  again.resume();
  await once(again, 'secureConnect');
  expect(again.isSessionReused()).toBe(false);
  await once(again, 'close');
});

test('a server goes over to a renewed SVID without closing what is open', async () => {
  await using server = await listening(createServer(tlsOptions(cart)));
  const before = connect({ port: server.port, ...asClient(web) });
  await once(before, 'secureConnect');
  const renewed = await ca.svid(CART);
  server.server.setSecureContext(tlsOptions(renewed));
  const after = connect({ port: server.port, ...asClient(web) });
  await once(after, 'secureConnect');
  expect([serialOf(before), serialOf(after)]).toEqual([cart.serial, renewed.serial]);
  expect(before.readyState).toBe('open');
  for (const socket of [before, after]) socket.destroy();
});

test('a socket that Node.js did not verify is refused, whoever it is', async () => {
  const { promise, resolve } = Promise.withResolvers<PeerCheck>();
  await using tcp = await listening(
    createTcpServer((raw) => {
      const socket = new TLSSocket(raw, { ...tlsOptions(cart), isServer: true });
      socket.on('error', () => raw.destroy());
      socket.once('secure', () => resolve(checkClientSocket(socket, 'cluster.local')));
    }),
  );
  const client = connect({ port: tcp.port, ...asClient(web) });
  client.on('error', () => client.destroy());
  expect(await promise).toMatchObject({ kind: 'refused', reason: 'not-verified' });
  client.destroy();
});

test('an SVID is parsed once', () => {
  expect(secureContextFor(web)).toBe(secureContextFor(web));
  expect(secureContextFor(web)).not.toBe(secureContextFor(cart));
});

interface Meeting {
  readonly server: PeerCheck | 'no handshake';
  readonly client: 'connected' | Error;
  readonly socket?: TLSSocket;
}

/** One connection over loopback, and what each end makes of the other. */
async function meet(serverSvid: Svid, clientOptions: ConnectionOptions): Promise<Meeting> {
  await using listener = await listening(createServer(tlsOptions(serverSvid)));
  const seen = Promise.withResolvers<Pick<Meeting, 'server' | 'socket'>>();
  listener.server.on('tlsClientError', () => seen.resolve({ server: 'no handshake' }));
  listener.server.on('secureConnection', (socket) => {
    seen.resolve({ server: checkClientSocket(socket, 'cluster.local'), socket });
    socket.on('error', () => socket.destroy());
  });
  const socket = connect({ port: listener.port, ...clientOptions });
  const client = await Promise.race([
    once(socket, 'secureConnect').then(() => 'connected' as const),
    once(socket, 'error').then(([error]) => error as Error),
  ]).catch((error: unknown) => error as Error);
  socket.on('error', () => socket.destroy());
  const outcome = { ...(await seen.promise), client };
  socket.destroy();
  return outcome;
}

function asClient(svid: Svid): ConnectionOptions {
  return clientTlsOptions(svid, [parseIdentity(CART)]);
}

/** A client of this SVID that departs from our settings. */
function alter(svid: Svid, options: ConnectionOptions): ConnectionOptions {
  return { ...asClient(svid), ...options, secureContext: undefined };
}

/** An SVID that the authority itself would not issue. */
async function forged(change: {
  identity?: string;
  names?: readonly string[];
  notBeforeMs?: number;
  notAfterMs?: number;
  signer?: Awaited<ReturnType<TemporaryAuthority['signer']>>;
}): Promise<Svid> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const signer = change.signer ?? (await ca.signer());
  const identity = parseIdentity(change.identity ?? WEB);
  const { pem, serial } = await signCertificate(
    {
      role: 'workload',
      subject: '',
      names: (change.names ?? [formatIdentity(identity)]).map((value) => ({ type: 'uri', value })),
      publicKeySpki: publicKey.export({ type: 'spki', format: 'der' }),
      notBeforeMs: change.notBeforeMs ?? Date.now() - 60_000,
      notAfterMs: change.notAfterMs ?? Date.now() + 3_600_000,
    },
    signer,
  );
  return {
    ...web,
    identity,
    serial,
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificateChainPem: pem + (await ca.signer()).certificatePem,
  };
}

interface Listening<S> extends AsyncDisposable {
  readonly server: S;
  readonly port: number;
}

async function listening<S extends Server | ReturnType<typeof createTcpServer>>(
  server: S,
): Promise<Listening<S>> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => sockets.add(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    server,
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

function servernameOf(socket: TLSSocket | undefined): unknown {
  return socket !== undefined && 'servername' in socket ? socket.servername : undefined;
}

function serialOf(socket: TLSSocket): string | undefined {
  return socket.getPeerX509Certificate()?.serialNumber.toLowerCase();
}
