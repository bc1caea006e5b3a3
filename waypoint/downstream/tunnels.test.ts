import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { RESUME_HEADER } from '#ztunnel/hbone/headers.ts';
import type { Answer } from '#ztunnel/hbone/stream.ts';
import { HandOver } from '../hand-over/hand-over.ts';
import { TunnelDuplex } from '../tunnel-duplex.ts';
import { ask, authorityOf, close, listen, type TestListener, talk, WEB } from './testing.ts';

let ca: TemporaryAuthority;
let server: TestListener;

beforeAll(async () => {
  ca = await temporaryAuthority();
  server = await listen(ca, { limits: { detectMs: 100, clientHelloMs: 100 } });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await ca[Symbol.asyncDispose]();
});

test.each([
  { what: 'an authority that nobody has', authority: '10.96.0.99:80', status: '404' },
  { what: 'a port that nobody has', authority: '10.96.0.1:81', status: '404' },
  { what: 'a name that nobody has', authority: 'other.example:80', status: '404' },
  { what: 'an authority without a port', authority: '10.96.0.1', status: '400' },
  { what: 'port 0', authority: '10.96.0.1:0', status: '400' },
  { what: 'an authority with a user', authority: 'a@10.96.0.1:80', status: '400' },
  { what: 'nothing', authority: '', status: '400' },
])('a CONNECT to $what is refused, and reported', async ({ authority, status }) => {
  const before = server.refused.length;
  const { answer } = ask(await server.connect(), authority);
  expect((await answer).status).toBe(status);
  expect(server.refused[before]).toMatchObject({
    authority,
    status: Number(status),
    caller: { identity: WEB },
  });
});

test('a request that is no CONNECT is refused', async () => {
  const connection = await server.connect();
  const { promise, resolve } = Promise.withResolvers<string>();
  connection.request(
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':authority', authorityOf('http')],
      [':path', '/'],
    ],
    (answer) => resolve(answer.kind === 'answered' ? String(answer.fields[0]?.[1]) : answer.kind),
  );
  expect(await promise).toBe('400');
});

test('a tunnel tells who the waypoint is', async () => {
  const { answer } = ask(await server.connect(), authorityOf('http'));
  expect((await answer).fields).toContainEqual(['baggage', 'k8s.namespace.name=pay']);
});

test('the caller is who its certificate says; its baggage counts in its own namespace only', async () => {
  const connection = await server.connect();
  const callerWith = async (baggage: string): Promise<unknown> => {
    const before = server.exchanges.length;
    const { stream, answer } = ask(connection, authorityOf('http'), [
      ['baggage', baggage],
      ['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'],
      ['x-tulle-connection', 'a'.repeat(32)],
      ['forwarded', 'for=6.6.6.6'],
    ]);
    await answer;
    const socket = new TunnelDuplex(stream);
    await talk(socket, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', (received) => received.includes('\n\n'));
    await close(socket);
    return server.exchanges[before]?.downstream.caller;
  };
  expect(await callerWith('k8s.namespace.name=shop,k8s.deployment.name=web')).toMatchObject({
    identity: WEB,
    address: { ip: '127.0.0.1' },
    baggage: { namespace: 'shop', workloadName: 'web' },
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    connectionId: 'a'.repeat(32),
  });
  expect(await callerWith('k8s.namespace.name=pay,k8s.deployment.name=ledger')).toMatchObject({
    baggage: {},
  });
});

test.each([
  { protocol: 'http', text: 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n', reply: 'GET a /x\n' },
  { protocol: 'detect', text: 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n', reply: 'GET a /x\n' },
  { protocol: 'detect', text: '\x00binary', reply: '\x00binary' },
  { protocol: 'tcp', text: 'GET /x HTTP/1.1\r\n\r\n', reply: 'GET /x HTTP/1.1\r\n\r\n' },
  { protocol: 'tls', text: 'not TLS at all', reply: 'not TLS at all' },
] as const)('$protocol with $text', async ({ protocol, text, reply }) => {
  const socket = await server.dial(authorityOf(protocol));
  const { text: received } = await talk(socket, text, (all) => all.includes(reply));
  expect(received).toContain(reply);
  await close(socket);
});

test('first bytes that come one by one are told apart, and none is lost', async () => {
  const socket = await server.dial(authorityOf('detect'));
  for (const character of 'GET /slow HTTP/1.1\r\nHost: a\r\n') {
    socket.write(character);
    await new Promise(setImmediate);
  }
  const { text } = await talk(socket, '\r\n', (all) => all.includes('\n\n'));
  expect(text).toContain('GET a /slow\n');
  await close(socket);
});

test('where nobody speaks first, TCP is assumed after a while', async () => {
  const before = server.tcp.length;
  const socket = await server.dial(authorityOf('detect'));
  await eventually('TCP', () => server.tcp.length > before);
  expect((await talk(socket, 'late', (all) => all === 'late')).text).toBe('late');
  await close(socket);
});

test('a client that ends before it says anything is TCP', async () => {
  const before = server.tcp.length;
  const socket = await server.dial(authorityOf('detect'));
  socket.end();
  await eventually('TCP', () => server.tcp.length > before);
  await close(socket);
});

test('the name in a ClientHello is found, and the bytes are passed on whole', async () => {
  await using patient = await listen(ca); // The others wait 100 ms for what says a protocol.
  const socket = await patient.dial(authorityOf('tls'));
  const tls = connectTls({ socket, servername: 'ledger.example' });
  tls.on('error', () => undefined);
  const tunnel = await eventually('a tunnel', () => patient.tcp[0]);
  expect(tunnel.serverName).toBe('ledger.example');
  tls.destroy();
});

test('who asks for a tunnel when too many do is to ask again', async () => {
  await using busy = await listen(ca, { handOver: new HandOver({ limit: 1 }) });
  const connection = await busy.connect();
  const resume = (id: string): Promise<Answer> => {
    const { promise, resolve } = Promise.withResolvers<Answer>();
    const fields = [
      [':method', 'CONNECT'],
      [':authority', authorityOf('tcp')],
      [RESUME_HEADER, id.repeat(32)],
    ] as const;
    connection.request(fields, resolve);
    return promise;
  };
  void resume('a');
  expect(await resume('b')).toMatchObject({ kind: 'failed', isRetryable: true });
  expect(busy.refused).toEqual([]);
});

test('a stranger has no session', async () => {
  await using other = await temporaryAuthority({ trustDomain: 'other.example' });
  const svid = await other.svid('spiffe://other.example/ns/shop/sa/web');
  const tcp = connectTcp({ host: server.address.ip, port: server.address.port });
  const socket = connectTls({
    socket: tcp,
    key: svid.privateKeyPem,
    cert: svid.certificateChainPem,
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
  });
  socket.on('error', () => undefined);
  await once(tcp, 'close');
  await eventually('the refusal', () =>
    server.failures.some((text) => text.includes('TLS handshake failed')),
  );
});
