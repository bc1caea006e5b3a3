import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { connect, createServer, type Server } from 'node:net';
import packet from 'dns-packet';
import pino from 'pino';
import { expect, test } from 'vitest';
import type { HostPort } from '#api/address.ts';
import { eventually } from '#test/kit/eventually.ts';
import { service, tablesOf } from '#test/kit/resources.ts';
import { bindUdp, listenInNamespace } from '../capture/in-pod-sockets.ts';
import { createForwarder, type ForwarderOptions } from './forward.ts';
import { framed, readFramed } from './framing.ts';
import { lookUpHostname } from './lookup.ts';
import { answerName } from './resolve.ts';
import type { QueryReport } from './respond.ts';
import { type DnsServer, serveDns } from './serve.ts';

const LOOPBACK = { ip: '127.0.0.1', port: 0 };
const CATALOG = service({ name: 'catalog', namespace: 'shop' });
const HEADLESS = service({
  name: 'many',
  namespace: 'shop',
  addresses: Array.from({ length: 200 }, (_, index) => ({ network: '', ip: `10.9.0.${index}` })),
});

interface Setup extends AsyncDisposable {
  readonly server: DnsServer;
  readonly resolver: Resolver;
  readonly reports: QueryReport[];
}

async function serve(forwarding: Partial<ForwarderOptions> = {}, udpPort = 0): Promise<Setup> {
  const reports: QueryReport[] = [];
  const tables = tablesOf(CATALOG, HEADLESS);
  const server = await serveDns({
    udp: [{ fd: bindUdp(undefined, { ...LOOPBACK, port: udpPort }), family: 4 }],
    tcp: [listenInNamespace(undefined, { ...LOOPBACK, transparent: false, backlog: 16 })],
    resolve: ({ name, type }) =>
      name === 'nobody.asks'
        ? Promise.resolve({ kind: 'unknown-client' })
        : answerName({
            tables,
            name,
            type,
            clientNamespace: 'shop',
            network: '',
            clusterDomain: 'cluster.local',
            ipv6: true,
            random: Math.random,
          }),
    forwarder: createForwarder({ nameServers: [], timeoutMs: 300, rounds: 1, ...forwarding }),
    logger: pino({ enabled: false }),
    onQuery: (report) => reports.push(report),
  });
  const resolver = new Resolver({ timeout: 5000, tries: 1 });
  resolver.setServers(server.udp.map(({ ip, port }) => `${ip}:${port}`));
  return { server, resolver, reports, [Symbol.asyncDispose]: server.close };
}

/** A port that nobody has now; bound by number, a UDP socket can share it with a successor. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, LOOPBACK.ip);
  await once(socket, 'listening');
  const { port } = socket.address();
  await socket[Symbol.asyncDispose]();
  return port;
}

interface Upstream extends AsyncDisposable, HostPort {
  /** Queries so far. */
  readonly asked: () => number;
  /** Sends the answers that a slow one holds back. */
  readonly answer: () => void;
}

/** A small name server: answers every A query with one address, over TCP always, over UDP as the mode says. */
async function upstream(mode: 'answer' | 'truncate' | 'garbage' | 'silent' | 'slow'): Promise<Upstream> {
  const heldBack: (() => void)[] = [];
  let asked = 0;
  const respond = (message: Buffer, flags: number): Buffer => {
    const { id = 0, questions = [] } = packet.decode(message);
    const answers = questions
      .filter(({ type }) => type === 'A')
      .map(({ name }) => ({ name, type: 'A' as const, ttl: 5, data: '192.0.2.7' }));
    const truncated = (flags & packet.TRUNCATED_RESPONSE) !== 0;
    return packet.encode({ type: 'response', id, flags, questions, answers: truncated ? [] : answers });
  };
  const tcp: Server = createServer((socket) => {
    void (async () => {
      for await (const message of readFramed(socket)) socket.write(framed(respond(message, 0)));
    })();
  }).listen(0, '127.0.0.1');
  await once(tcp, 'listening');
  const address = tcp.address();
  if (address === null || typeof address === 'string') throw new TypeError('no port');
  const udp = createSocket('udp4').bind(address.port, '127.0.0.1');
  udp.on('message', (message, { port, address: ip }) => {
    asked += 1;
    if (mode === 'garbage') udp.send(Buffer.from('no DNS'), port, ip);
    if (mode === 'silent') return;
    const response = respond(message, mode === 'truncate' ? packet.TRUNCATED_RESPONSE : 0);
    if (mode === 'slow') heldBack.push(() => udp.send(response, port, ip));
    else udp.send(response, port, ip);
  });
  await once(udp, 'listening');
  return {
    ip: '127.0.0.1',
    port: address.port,
    asked: () => asked,
    answer: () => {
      for (const send of heldBack.splice(0)) send();
    },
    [Symbol.asyncDispose]: async () => {
      udp.close();
      tcp.close();
    },
  };
}

async function overTcp(
  { ip, port }: HostPort,
  ...messages: readonly Buffer[]
): Promise<packet.DecodedPacket[]> {
  const socket = connect({ host: ip, port });
  for (const message of messages) socket.write(message);
  socket.end();
  const responses: packet.DecodedPacket[] = [];
  for await (const response of readFramed(socket)) responses.push(packet.decode(response));
  return responses;
}

const question = (name: string, id = 1): Buffer =>
  packet.encode({ type: 'query', id, flags: packet.RECURSION_DESIRED, questions: [{ name, type: 'A' }] });

test('a resolver gets a service’s address over UDP', async () => {
  await using dns = await serve();
  expect(await dns.resolver.resolve4('catalog', { ttl: true })).toEqual([{ address: '10.96.1.1', ttl: 30 }]);
  expect(dns.reports).toMatchObject([
    { name: 'catalog', type: 'A', protocol: 'udp', outcome: 'answered', clientIp: '127.0.0.1' },
  ]);
});

test('a resolver that is told that the answer is truncated gets all of it over TCP', async () => {
  await using dns = await serve();
  const [tcp] = dns.server.tcp;
  const cut = await dns.resolver.resolve4('many').catch((error: unknown) => error);
  expect(cut).toMatchObject({ code: 'ECONNREFUSED' }); // it asks over TCP at the port that has UDP
  if (tcp === undefined) throw new TypeError('no TCP listener');
  const [whole] = await overTcp(tcp, framed(question('many')));
  expect(whole?.answers).toHaveLength(200);
});

test('several queries on one TCP connection are all answered, also when they come byte by byte', async () => {
  await using dns = await serve();
  const [tcp] = dns.server.tcp;
  if (tcp === undefined) throw new TypeError('no TCP listener');
  const both = Buffer.concat([framed(question('catalog', 1)), framed(question('many', 2))]);
  const bytes = [...both].map((byte) => Buffer.of(byte));
  const responses = await overTcp(tcp, ...bytes);
  expect(responses.map(({ id }) => id).toSorted()).toEqual([1, 2]);
});

test('garbage is passed over and the next query answered', async () => {
  await using dns = await serve();
  const [udp] = dns.server.udp;
  const [tcp] = dns.server.tcp;
  if (udp === undefined || tcp === undefined) throw new TypeError('no listener');
  const socket = createSocket('udp4');
  for (const length of [0, 1, 11, 12, 500]) socket.send(Buffer.alloc(length, 0x41), udp.port, udp.ip);
  await overTcp(tcp, Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  expect(await dns.resolver.resolve4('catalog')).toEqual(['10.96.1.1']);
  socket.close();
});

test('what is not a standard query is not implemented, and a client that is not known gets a failure', async () => {
  await using dns = await serve();
  const [tcp] = dns.server.tcp;
  if (tcp === undefined) throw new TypeError('no TCP listener');
  const status = question('catalog');
  status.writeUInt16BE(status.readUInt16BE(2) | (2 << 11), 2);
  const responses = await overTcp(tcp, framed(status), framed(question('nobody.asks')));
  expect(responses).toMatchObject([{ rcode: 'NOTIMP' }, { rcode: 'SERVFAIL' }]);
  expect(dns.reports.map(({ outcome }) => outcome)).toEqual(['not-implemented', 'unknown-client']);
});

test('a name of the world comes from upstream with its own time to live', async () => {
  await using world = await upstream('answer');
  await using dns = await serve({ nameServers: [world] });
  const answer = await dns.resolver.resolve4('example.com', { ttl: true });
  expect(answer).toEqual([{ address: '192.0.2.7', ttl: 5 }]);
  expect(dns.reports).toMatchObject([{ outcome: 'forwarded' }]);
});

test.each(['truncate', 'garbage'] as const)(
  'an upstream that gives %s is asked until it answers',
  async (mode) => {
    await using world = await upstream(mode);
    await using dns = await serve({ nameServers: [world] });
    expect(await dns.resolver.resolve4('example.com')).toEqual(['192.0.2.7']);
  },
);

test('a name server that is silent or closed is passed over for the next', async () => {
  await using silent = await upstream('silent');
  await using world = await upstream('answer');
  await using dns = await serve({ nameServers: [silent, { ip: '127.0.0.1', port: 1 }, world] });
  expect(await dns.resolver.resolve4('example.com')).toEqual(['192.0.2.7']);
});

test('when no name server answers the client is told so', async () => {
  await using silent = await upstream('silent');
  await using dns = await serve({ nameServers: [silent] });
  await expect(dns.resolver.resolve4('example.com')).rejects.toMatchObject({ code: 'ESERVFAIL' });
  expect(dns.reports[0]).toMatchObject({ outcome: 'forward-failed' });
});

test('without name servers the mesh’s names go on being answered', async () => {
  await using dns = await serve({ nameServers: [] });
  await expect(dns.resolver.resolve4('example.com')).rejects.toMatchObject({ code: 'ESERVFAIL' });
  expect(await dns.resolver.resolve4('catalog')).toEqual(['10.96.1.1']);
});

test('more queries at once than are allowed fail at once', async () => {
  await using silent = await upstream('silent');
  await using dns = await serve({ nameServers: [silent], maxInFlight: 2, timeoutMs: 1000 });
  const names = ['a.example.com', 'b.example.com', 'c.example.com'];
  await Promise.allSettled(names.map((name) => dns.resolver.resolve4(name)));
  const errors = dns.reports.map(({ error }) => error);
  expect(errors.filter((error) => error?.includes('queries wait'))).toHaveLength(1);
});

test('a hostname is looked up in both families', async () => {
  await using world = await upstream('answer');
  const forwarder = createForwarder({ nameServers: [world] });
  expect(await lookUpHostname(forwarder, 'db.example.com')).toEqual(['192.0.2.7']);
});

test('a server that closes answers what it was asked, and leaves new queries to its successor', async () => {
  await using slow = await upstream('slow');
  const port = await freePort();
  await using old = await serve({ nameServers: [slow], timeoutMs: 5000 }, port);
  const asked = old.resolver.resolve4('example.com');
  await eventually('the query to be upstream', () => slow.asked() > 0);
  await using successor = await serve({}, port);
  const closed = old.server.close();
  const names = Array.from({ length: 20 }, () => successor.resolver.resolve4('catalog'));
  expect(await Promise.all(names)).toEqual(Array.from({ length: 20 }, () => ['10.96.1.1']));
  slow.answer();
  expect(await asked).toEqual(['192.0.2.7']);
  await closed;
  expect([old.reports.length, successor.reports.length]).toEqual([1, 20]);
});

test('a closed server lets its ports go', async () => {
  const dns = await serve();
  await dns.server.close();
  const [udp] = dns.server.udp;
  if (udp === undefined) throw new TypeError('no UDP listener');
  const again = createSocket('udp4').bind(udp.port, udp.ip);
  await once(again, 'listening');
  again.close();
});
