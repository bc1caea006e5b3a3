import { once } from 'node:events';
import { fstatSync, mkdirSync, rmdirSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import packet from 'dns-packet';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BpfError } from '#bpf/errors.ts';
import { encodeZtunnelSocket, listenerKey, MAPS, type MapName, SIZES, writeEndpoint } from '#bpf/layout.ts';
import { BpfMap } from '#bpf/maps.ts';
import { mapPath } from '#bpf/pins.ts';
import { installMesh, removePins } from '#bpf/programs.ts';
import { type CaptureBed, makeCaptureBed } from '#test/kit/capture-bed.ts';
import { startNameServer } from '#test/kit/name-server.ts';
import type { Netns } from '#test/kit/netns.ts';
import { type Relay, startRelay } from '#test/kit/relay.ts';
import { callSockets, type SocketCall, serveSockets } from '#test/kit/socket-calls.ts';
import {
  closeDescriptor,
  dialSocket,
  openNamespace,
  type SocketTag,
  warmThreadPool,
} from '#ztunnel/capture/in-pod-sockets.ts';
import { namespaceCookie } from '#ztunnel/capture/native.ts';
import { OwnSockets } from '#ztunnel/capture/own-sockets.ts';
import { createForwarder } from '#ztunnel/dns/forward.ts';
import { readQuery } from '#ztunnel/dns/query.ts';
import { openPodSockets, type PodSockets } from '#ztunnel/pod-sockets.ts';

/** What a ztunnel tells the programs in the kernel of its sockets, and learns from them. */
let bed: CaptureBed;
/** The namespace of `catalog`, in which these tests make sockets themselves. */
let netnsFd: number;
let cookie: bigint;

beforeAll(async () => {
  await warmThreadPool();
  bed = await makeCaptureBed('ebpf');
  netnsFd = openNamespace(bed.catalog.path);
  cookie = namespaceCookie(netnsFd);
  // Makes the programs and maps.
  await (await bed.captured(bed.catalog, 'nothing'))[Symbol.asyncDispose]();
});

afterAll(async () => {
  if (netnsFd !== undefined) closeDescriptor(netnsFd);
  await bed?.[Symbol.asyncDispose]();
});

/** Sockets of a ztunnel in `catalog`. */
interface Bench extends AsyncDisposable {
  readonly own: OwnSockets;
  readonly pod: PodSockets;
  readonly listen: (port: number) => Promise<net.Server>;
  readonly map: (name: MapName) => BpfMap;
}

function openBench(directory = bed.bpfDirectory, worker = { index: 0, count: 1 }): Bench {
  const opened = new AsyncDisposableStack();
  const own = new OwnSockets({ directory, worker });
  opened.defer(() => own.close());
  const pod = openPodSockets(netnsFd, { fabric: [] }, { name: 'pod shop/catalog', own });
  return {
    own,
    pod,
    listen: async (port) => {
      const server = net.createServer();
      pod.listen(server, port);
      opened.defer(() => void server.close());
      await once(server, 'listening');
      return server;
    },
    map: (name) => {
      const map = BpfMap.openPinned(mapPath(directory, name), MAPS[name]);
      opened.defer(() => map.close());
      return map;
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

function descriptorOf(of: net.Socket | net.Server): number {
  return (of as unknown as { readonly _handle: { readonly fd: number } })._handle.fd;
}

/** Key of a map that is the storage of sockets. */
function storageKey(of: net.Socket | net.Server): Buffer {
  const key = Buffer.alloc(SIZES.descriptor);
  key.writeInt32LE(descriptorOf(of));
  return key;
}

/** Which of the slots are taken. */
function slotsIn(listeners: BpfMap, kind: Parameters<typeof listenerKey>[1]): readonly number[] {
  const slots = [0, 1, 2, 3, 4, 5, 6, 7];
  return slots.filter((slot) =>
    listeners.lookup(listenerKey(cookie, kind, slot), Buffer.alloc(SIZES.socket)),
  );
}

function relayIn(pod: Netns, worker = { index: 0, count: 1 }): Promise<Relay> {
  const cgroup = join(bed.cgroup, 'processes', `relay-${worker.index}`);
  return startRelay(pod.path, { bpfDirectory: bed.bpfDirectory, cgroup, worker });
}

test('what a pod dials, and what dials it, goes by the ztunnel, and both ends see each other', async () => {
  const { web, catalog } = bed;
  await using outbound = await relayIn(web);
  await using _web = await bed.captured(web, 'both');
  await using _server = await serveSockets(catalog, 9000);
  const calls: readonly SocketCall[] = [
    { host: '10.9.1.3', port: 9000 },
    { host: 'fd09:1::3', port: 9000 },
    { host: '10.9.1.3', port: 9000, kind: 'mapped' },
  ];
  const replies = await callSockets(web, calls);
  expect(outbound.connections.map(({ direction, from, to }) => [direction, from, to.ip])).toEqual([
    ['outbound', '10.9.1.2', '10.9.1.3'],
    ['outbound', 'fd09:1::2', 'fd09:1::3'],
    ['outbound', '10.9.1.2', '10.9.1.3'],
  ]);
  expect(replies.map(({ peer }) => peer)).toEqual(calls.map(({ host: ip, port }) => ({ ip, port })));
});

test("an application is shown its caller's own address and port", async () => {
  const { web, catalog } = bed;
  await using inbound = await relayIn(catalog);
  await using _catalog = await bed.captured(catalog, 'both');
  await using _server = await serveSockets(catalog, 9000);
  const calls: readonly SocketCall[] = [
    { host: '10.9.1.3', port: 9000 },
    { host: 'fd09:1::3', port: 9000 },
    { host: '10.9.1.3', port: 9000, kind: 'mapped' },
  ];
  for (const { local, server, reply } of await callSockets(web, calls)) {
    expect(server).toMatchObject({ accepted: local, peer: local });
    expect(reply).toBe('pingend');
  }
  expect(inbound.connections).toHaveLength(3);
});

test('several workers share the connections of a pod, and one that ends leaves its share to the others', async () => {
  const { web, catalog } = bed;
  const first = await relayIn(catalog, { index: 0, count: 2 });
  await using second = await relayIn(catalog, { index: 1, count: 2 });
  await using _catalog = await bed.captured(catalog, 'both');
  await using _server = await serveSockets(catalog, 9000);
  const calls = Array.from({ length: 40 }, () => ({ host: '10.9.1.3', port: 9000 }));
  await callSockets(web, calls);
  expect(first.connections.length).toBeGreaterThan(4);
  expect(second.connections.length).toBeGreaterThan(4);
  await first[Symbol.asyncDispose]();
  const replies = await callSockets(web, calls);
  expect(new Set(replies.map(({ reply }) => reply))).toEqual(new Set(['pingend']));
});

test('a ztunnel that starts again takes over what the one before it had, without the node agent', async () => {
  const { web, catalog } = bed;
  await using _web = await bed.captured(web, 'both');
  await using _server = await serveSockets(catalog, 9000);
  const call = async (): Promise<string | undefined> => {
    const [reply] = await callSockets(web, [{ host: '10.9.1.3', port: 9000 }]);
    return reply?.error ?? reply?.reply;
  };
  for (const round of [1, 2]) {
    await using relay = await relayIn(web);
    expect([round, await call()]).toEqual([round, 'pingend']);
    expect(relay.connections).toHaveLength(1);
  }
  expect(await call()).toBe('EPERM');
});

test('each worker takes its part of the slots, which end with their sockets', async () => {
  await using first = openBench(bed.bpfDirectory, { index: 0, count: 3 });
  const second = openBench(bed.bpfDirectory, { index: 1, count: 3 });
  const listeners = first.map('listeners');
  for (const port of [15001, 15006, 15008]) {
    await first.listen(port);
    await second.listen(port);
  }
  for (const kind of ['outbound', 'inbound', 'hbone'] as const) {
    expect(slotsIn(listeners, kind)).toEqual([0, 1, 3, 4, 6, 7]);
  }
  await second[Symbol.asyncDispose]();
  expect(slotsIn(listeners, 'inbound')).toEqual([0, 3, 6]);
});

test('places that a process took over, and left when it ended, are taken back', async () => {
  await using first = openBench();
  const listeners = first.map('listeners');
  await first.listen(15001);
  const second = openBench();
  await second.listen(15001);
  first.own.look();
  await second[Symbol.asyncDispose]();
  expect(slotsIn(listeners, 'outbound')).toEqual([]);
  first.own.look();
  expect(slotsIn(listeners, 'outbound')).toHaveLength(8);
});

test('a socket that was given and that the kernel leads nothing to is closed', async () => {
  await using bench = openBench();
  const fd = dialSocket(netnsFd, { family: 4 }); // does not listen
  expect(() => bench.pod.listen(net.createServer(), 15001, fd)).toThrow(BpfError);
  expect(() => fstatSync(fd)).toThrow('EBADF');
});

test('tags are on listening sockets and what they accept, and on sockets that dial; not on others', async () => {
  await using bench = openBench();
  const own = bench.map('own');
  const value = Buffer.alloc(SIZES.ztunnelSocket);
  const server = await bench.listen(15006);
  expect(own.lookup(storageKey(server), value)).toBe(true);

  const accepting = once(server, 'connection');
  const dialling = bench.pod.dialOutside({ ip: '127.0.0.1', port: 15006 });
  expect(own.lookup(storageKey(dialling), value)).toBe(true);
  const [accepted] = await accepting;
  value.fill(0);
  expect(own.lookup(storageKey(accepted), value)).toBe(true);
  expect(value).toEqual(encodeZtunnelSocket());

  const other = net.createServer().listen({ port: 0, host: '127.0.0.1' });
  await once(other, 'listening');
  expect(own.lookup(storageKey(other), value)).toBe(false);
  for (const each of [accepted, dialling]) each.destroy();
  other.close();
});

test.each(['10.9.1.3', 'fd09:1::3'])(
  'who is dialled at %s is shown the caller, if it is captured',
  async (ip) => {
    await using bench = openBench();
    const own = bench.map('own');
    const shownIn = (socket: net.Socket): Buffer => {
      const value = Buffer.alloc(SIZES.ztunnelSocket);
      socket.on('error', () => undefined); // nobody listens there
      own.lookup(storageKey(socket), value);
      socket.destroy();
      return value;
    };
    const caller = { ip: ip.includes(':') ? '2001:db8::7' : '192.0.2.7', port: 4711 };
    const to = { ip, port: 7999 };
    expect(shownIn(bench.pod.dial(to, caller))).toEqual(encodeZtunnelSocket());
    await using _catalog = await bed.captured(bed.catalog, 'outbound');
    expect(shownIn(bench.pod.dial(to, caller))).toEqual(encodeZtunnelSocket(caller));
    expect(shownIn(bench.pod.dial(to))).toEqual(encodeZtunnelSocket());
    const ports = [0, 1].map(() => shownIn(bench.pod.dial(to, { ...caller, port: 0 })).readUInt16LE(24));
    expect(new Set(ports).size).toBe(2);
    expect(Math.min(...ports)).toBeGreaterThan(32_768);
  },
);

test('where a connection was going is what the programs say of it, else what packet rules do', async () => {
  await using bench = openBench();
  const peers = bench.map('peers');
  const server = await bench.listen(15001);
  const accepting = once(server, 'connection');
  const dialling = bench.pod.dialOutside({ ip: '::1', port: 15001 });
  const [accepted] = await accepting;
  expect(bench.pod.originalDestination(accepted)).toBeUndefined();
  const value = Buffer.alloc(SIZES.endpoint);
  for (const to of [
    { ip: '192.0.2.80', port: 80 },
    { ip: '2001:db8::80', port: 65_535 },
  ]) {
    writeEndpoint(value, 0, to);
    peers.update(storageKey(accepted), value);
    expect(bench.pod.originalDestination(accepted)).toEqual(to);
  }
  for (const each of [accepted, dialling]) each.destroy();
});

test('maps that come later, or anew, are told of what listens already', async () => {
  const directory = `${bed.bpfDirectory}-later`;
  await using bench = openBench(directory);
  const server = await bench.listen(15001);
  (await bench.listen(15006)).close();
  bench.own.look();
  for (let turn = 0; turn < 2; turn++) {
    const mesh = installMesh({ directory, cgroup: join(bed.cgroup, 'later') });
    bench.own.look();
    expect(slotsIn(mesh.maps.listeners, 'outbound')).toHaveLength(8);
    expect(slotsIn(mesh.maps.listeners, 'inbound')).toEqual([]);
    expect(mesh.maps.own.lookup(storageKey(server), Buffer.alloc(SIZES.ztunnelSocket))).toBe(true);
    mesh.close();
    removePins(directory);
    bench.own.look();
  }
});

test('maps of another version alone are refused, with what helps', async () => {
  const directory = `${bed.bpfDirectory}-other`;
  mkdirSync(join(directory, 'v99'), { recursive: true });
  expect(() => openBench(directory)).toThrow(
    `${directory} has eBPF maps of v99, and this ztunnel needs those of v1: run a node agent and a ztunnel of the same release`,
  );
  rmdirSync(join(directory, 'v99'));
  rmdirSync(directory);
});

test.each(['udp', 'tcp'] as const)(
  'the queries of a resolver leave a pod that may not, over %s',
  async (protocol) => {
    await using nameServer = startNameServer(bed.web, '10.9.1.2');
    await using _catalog = await bed.captured(bed.catalog, 'both', { udp: 'refuse' });
    await using bench = openBench();
    const message = packet.encode({ id: 1, type: 'query', questions: [{ type: 'A', name: 'a.example' }] });
    const incoming = readQuery(message);
    if (incoming.kind !== 'query') throw new TypeError('not a query');
    const { query } = incoming;
    const ask = (tag?: SocketTag): Promise<Buffer> => {
      const nameServers = [nameServer.address];
      const options = { nameServers, netnsFd, timeoutMs: 300, rounds: 1, ...(tag && { tag }) };
      return createForwarder(options).forward(query, protocol);
    };
    expect(packet.decode(await ask((fd) => bench.own.tag(fd))).questions).toHaveLength(1);
    await expect(ask()).rejects.toMatchObject({ code: 'NO_ANSWER' });
  },
);
