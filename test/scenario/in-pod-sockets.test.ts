import dgram from 'node:dgram';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { familyOf, type HostPort } from '#api/address.ts';
import { createNetns, linkNetns, type Netns } from '#test/kit/netns.ts';
import {
  bindUdp,
  closeDescriptor,
  dialSocket,
  isLocalAddress,
  listenInNamespace,
  namespaceId,
  openNamespace,
  originalDestination,
  warmThreadPool,
} from '#ztunnel/capture/in-pod-sockets.ts';

let pod: Netns;
let peer: Netns;
let podFd: number;
let peerFd: number;

beforeAll(async () => {
  await warmThreadPool();
  pod = await createNetns('sockets-pod');
  peer = await createNetns('sockets-peer');
  await linkNetns(
    { netns: pod, device: 'eth0', addresses: ['10.9.0.2/24', 'fd09::2/64'] },
    { netns: peer, device: 'eth0', addresses: ['10.9.0.3/24', 'fd09::3/64'] },
  );
  podFd = openNamespace(pod.path);
  peerFd = openNamespace(peer.path);
});

afterAll(async () => {
  await pod?.remove();
  await peer?.remove();
});

/** Connects from a namespace; what the server sees of the client and answers is checked by the caller. */
async function connect(netnsFd: number, to: HostPort, sourceIp?: string): Promise<net.Socket> {
  const family = familyOf(to.ip);
  const source = sourceIp === undefined ? {} : { source: { kind: 'foreign' as const, ip: sourceIp } };
  const fd = dialSocket(netnsFd, { family, ...source });
  const socket = new net.Socket({ fd, readable: true, writable: true });
  socket.connect({ host: to.ip, port: to.port });
  await once(socket, 'connect');
  return socket;
}

/** A server in a namespace that answers each connection with what it sees of it. */
async function serveIn(
  netnsFd: number,
  ip: string,
  transparent = false,
): Promise<net.Server & AsyncDisposable> {
  const server = net.createServer((socket) => socket.end(`${socket.remoteAddress} ${socket.localAddress}`));
  server.listen({ fd: listenInNamespace(netnsFd, { ip, port: 7000, transparent, backlog: 16 }) });
  await once(server, 'listening');
  return server;
}

async function textOf(socket: net.Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += String(chunk);
  return text;
}

test('a dual-stack listener inside a namespace takes IPv4 and IPv6 from another', async () => {
  await using _server = await serveIn(podFd, '::');
  expect(await textOf(await connect(peerFd, { ip: '10.9.0.2', port: 7000 }))).toBe(
    '::ffff:10.9.0.3 ::ffff:10.9.0.2',
  );
  expect(await textOf(await connect(peerFd, { ip: 'fd09::2', port: 7000 }))).toBe('fd09::3 fd09::2');
});

test('several listeners share a port, for workers and upgrades', async () => {
  await using _first = await serveIn(podFd, '::');
  await using _second = await serveIn(podFd, '::');
  expect(await textOf(await connect(peerFd, { ip: '10.9.0.2', port: 7000 }))).not.toBe('');
});

test('a refused connection is an honest error of the socket', async () => {
  await expect(connect(peerFd, { ip: '10.9.0.2', port: 7999 })).rejects.toMatchObject({
    code: 'ECONNREFUSED',
  });
});

test.each([
  { to: '10.9.0.2', source: '192.0.2.7', seen: '::ffff:192.0.2.7', route: 'local 192.0.2.0/24 dev lo' },
  { to: 'fd09::2', source: '2001:db8::7', seen: '2001:db8::7', route: 'local 2001:db8::/64 dev lo' },
])('the application sees a source address that the namespace does not own: $source', async (example) => {
  const { to, source, seen, route } = example;
  await pod.exec('ip', ['route', 'add', ...route.split(' ')]);
  await using _server = await serveIn(podFd, '::');
  const socket = await connect(podFd, { ip: to, port: 7000 }, source);
  expect((socket.localPort ?? 0) % 2).toBe(1);
  expect(await textOf(socket)).toMatch(seen);
});

test('source ports are found again and again, past those that are still closing', async () => {
  await pod.exec('ip', ['route', 'add', 'local', '198.51.100.0/24', 'dev', 'lo']);
  const server = net.createServer((socket) => socket.on('end', () => socket.end()).resume());
  server.listen({ fd: listenInNamespace(podFd, { ip: '::', port: 7000, transparent: false, backlog: 128 }) });
  await using _server = server;
  const ports = new Set<number | undefined>();
  for (let round = 0; round < 300; round++) {
    const socket = await connect(podFd, { ip: '10.9.0.2', port: 7000 }, '198.51.100.1');
    ports.add(socket.localPort);
    socket.end().resume();
    await once(socket, 'close');
  }
  expect(ports.size).toBe(300);
});

test('the mark of the mesh is on every socket', async () => {
  await using server = await serveIn(podFd, '::');
  expect(server.listening).toBe(true);
  expect(await pod.exec('ss', ['-Hltne', 'sport = :7000'])).toContain('fwmark:0x539');
});

test.each([
  { via: '10.9.0.2', original: '192.0.2.80' },
  { via: 'fd09::2', original: '2001:db8:1::80' },
])('the original destination of a redirected connection to $original is known', async ({ via, original }) => {
  await peer.exec('ip', ['route', 'add', original, 'via', via]);
  await pod.exec(
    'nft',
    ['-f', '-'],
    'table inet t { chain in { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :7000\n }\n }\n',
  );
  const server = net.createServer((socket) => {
    const fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
    socket.end(JSON.stringify(originalDestination(fd)));
  });
  server.listen({ fd: listenInNamespace(podFd, { ip: '::', port: 7000, transparent: true, backlog: 16 }) });
  await using _server = server;
  const answer = await textOf(await connect(peerFd, { ip: original, port: 80 }));
  await pod.exec('nft', ['delete', 'table', 'inet', 't']);
  expect(JSON.parse(answer)).toEqual({ ip: original, port: 80 });
});

test('a UDP socket inside a namespace answers', async () => {
  const server = dgram.createSocket('udp4');
  server.on('message', (message, from) => server.send(message, from.port, from.address));
  server.bind({ fd: bindUdp(podFd, { ip: '10.9.0.2', port: 5300 }) });
  const client = dgram.createSocket('udp4');
  client.bind({ fd: bindUdp(peerFd, { ip: '0.0.0.0', port: 0 }) });
  client.send('echo', 5300, '10.9.0.2');
  const [message] = await once(client, 'message');
  expect(String(message)).toBe('echo');
  server.close();
  client.close();
});

test.each([
  { ip: '10.9.0.2', local: true },
  { ip: 'fd09::2', local: true },
  { ip: '127.9.9.9', local: true },
  { ip: '::1', local: true },
  { ip: '0.0.0.0', local: true },
  { ip: '::', local: true },
  { ip: '10.9.0.3', local: false },
  { ip: 'fd09::3', local: false },
])('$ip is an address of the namespace: $local', ({ ip, local }) => {
  expect(isLocalAddress(podFd, ip)).toBe(local);
});

test('errors say what failed', async () => {
  expect(() => openNamespace('/run/netns/tulletest-no-such')).toThrow('ENOENT');
  expect(() => openNamespace('/etc/passwd')).toThrow('not a network namespace');
  const options = { ip: '10.1.2.3', port: 80, transparent: false, backlog: 1 };
  expect(() => listenInNamespace(podFd, options)).toThrow('bind to 10.1.2.3 port 80: EADDRNOTAVAIL');
  expect(() => listenInNamespace(-1, options)).toThrow('setns: EBADF');
  expect(await readFile('/proc/thread-self/net/dev', 'utf8')).toBe(
    readFileSync('/proc/self/net/dev', 'utf8'),
  );
});

test('namespaces are told apart', () => {
  const again = openNamespace(pod.path);
  expect(namespaceId(again)).toBe(namespaceId(podFd));
  expect(namespaceId(peerFd)).not.toBe(namespaceId(podFd));
  closeDescriptor(again);
  expect(() => closeDescriptor(again)).toThrow('EBADF');
});

test('a worker thread makes sockets in the namespace too, and comes back', async () => {
  const module = fileURLToPath(new URL('../../ztunnel/capture/in-pod-sockets.ts', import.meta.url));
  const source = `
    const { parentPort } = require('node:worker_threads');
    const { readlinkSync } = require('node:fs');
    import(${JSON.stringify(module)}).then(async (sockets) => {
      await sockets.warmThreadPool();
      const fd = sockets.openNamespace(${JSON.stringify(pod.path)});
      const listener = sockets.listenInNamespace(fd, { ip: '::', port: 7001, transparent: true, backlog: 16 });
      parentPort.postMessage({ listener, namespace: readlinkSync('/proc/thread-self/ns/net') });
    });`;
  const worker = new Worker(source, { eval: true });
  const [answer] = await once(worker, 'message');
  expect(answer.namespace).toBe(readlinkSync('/proc/thread-self/ns/net'));
  expect(await pod.exec('ss', ['-Hltn', 'sport = :7001'])).toContain(':7001');
  closeDescriptor(answer.listener);
  await worker.terminate();
});

test('no thread of the process is left in a namespace', () => {
  const home = readlinkSync('/proc/self/ns/net');
  const threads = readdirSync('/proc/self/task').map((id) => readlinkSync(`/proc/self/task/${id}/ns/net`));
  expect(threads.length).toBeGreaterThan(4);
  expect(new Set(threads)).toEqual(new Set([home]));
});
