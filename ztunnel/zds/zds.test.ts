import { fstatSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { closeDescriptor, openNamespace } from '../capture/in-pod-sockets.ts';
import { sys } from '../capture/native.ts';
import type { PodInfo } from '../worker-messages.ts';
import { connectZds } from './client.ts';
import { openConnection, type PacketConnection } from './connection.ts';
import { decodeAck, encodeHello, encodeRequest, type WorkloadRequest, ZdsError } from './messages.ts';
import { readable } from './readiness.ts';
import { accept, connectTo, listenAt, rmSocket } from './seqpacket.ts';
import { type LocatedPod, serveZds, type ZdsServer } from './server.ts';

const NETNS = '/proc/self/ns/net';
const logLines: string[] = [];
const logger = pino({ level: 'debug' }, { write: (line) => logLines.push(line) });
let directory: string;
let path: string;
let closers: (() => void)[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'zds-'));
  path = join(directory, 'zds.sock');
  closers = [];
  logLines.length = 0;
});
afterEach(() => {
  for (const close of closers.reverse()) close();
  rmSync(directory, { recursive: true });
});

function pod(name: string): PodInfo {
  return { uid: `u-${name}`, name, namespace: 'default', serviceAccount: name };
}

function located(...names: string[]): readonly LocatedPod[] {
  return names.map((name) => ({ pod: pod(name), netnsPath: NETNS }));
}

interface TestServer extends ZdsServer {
  readonly events: string[];
}

async function startServer(snapshot: () => Iterable<LocatedPod> = () => []): Promise<TestServer> {
  const events: string[] = [];
  const server = await serveZds({
    path,
    snapshot,
    onChange: ({ kind, connected }) => events.push(`${kind} ${connected}`),
    onRefused: (uid, message) => events.push(`refused ${uid}: ${message}`),
    logger,
    answerMs: 500,
  });
  closers.push(() => server.close());
  return Object.assign(server, { events });
}

interface TestClient {
  /** What happened, in order. */
  readonly events: string[];
  readonly stop: () => Promise<void>;
}

function startClient(onAdd: (pod: PodInfo, netnsFd: number) => Promise<void> = async () => {}): TestClient {
  const events: string[] = [];
  const controller = new AbortController();
  const done = connectZds({
    path,
    onAdd: async (added, netnsFd) => {
      events.push(`add ${added.uid} ${fstatSync(netnsFd).ino === statSync(NETNS).ino}`);
      await onAdd(added, netnsFd);
    },
    onDelete: (uid) => void events.push(`delete ${uid}`),
    onSnapshot: () => events.push('snapshot'),
    onDisconnect: () => events.push('disconnect'),
    signal: controller.signal,
    logger,
  });
  const stop = async (): Promise<void> => {
    controller.abort();
    await done;
  };
  closers.push(() => controller.abort());
  return { events, stop };
}

/** The bare end of a connection. */
function rawClient(): PacketConnection {
  const connection = openConnection(connectTo(path));
  closers.push(connection.close);
  return connection;
}

test('a stock ztunnel gets exactly the messages that were recorded', async () => {
  const server = await startServer(() => [
    { pod: { uid: 'u-c', name: 'c', namespace: 'default', serviceAccount: 'c' }, netnsPath: NETNS },
    { pod: { uid: 'u-s1', name: 's1', namespace: 'default', serviceAccount: 's' }, netnsPath: NETNS },
  ]);
  const ztunnel = rawClient();
  ztunnel.send(Buffer.from('0801', 'hex'));
  const received: string[] = [];
  for (let turn = 0; turn < 3; turn++) {
    const packet = await ztunnel.receive();
    const fds = packet?.descriptors ?? [];
    received.push(`${Buffer.from(packet?.bytes ?? []).toString('hex')}${fds.length > 0 ? ' fd' : ''}`);
    for (const fd of fds) {
      expect(fstatSync(fd).ino).toBe(statSync(NETNS).ino);
      closeDescriptor(fd);
    }
    ztunnel.send(Buffer.from('0a00', 'hex'));
  }
  expect(received).toEqual([
    '0a160a03752d63120f0a0163120764656661756c741a0163 fd',
    '0a180a04752d733112100a027331120764656661756c741a0173 fd',
    '1a00',
  ]);
  await eventually('it counts', () => server.connected() === 1);
});

test('our ztunnel answers a stock node agent as recorded', async () => {
  const listener = listenAt(path);
  closers.push(() => closeDescriptor(listener));
  const client = startClient();
  await readable(listener);
  const agent = openConnection(accept(listener) ?? -1);
  closers.push(agent.close);
  const answers: string[] = [];
  const answer = async (): Promise<void> => {
    answers.push(Buffer.from((await agent.receive())?.bytes ?? []).toString('hex'));
  };
  await answer();
  const netns = openNamespace(NETNS);
  agent.send(Buffer.from('0a160a03752d63120f0a0163120764656661756c741a0163', 'hex'), netns);
  await answer();
  agent.send(Buffer.from('1a00', 'hex'));
  await answer();
  closeDescriptor(netns);
  expect(answers).toEqual(['0801', '0a00', '0a00']);
  expect(client.events).toEqual(['add u-c true', 'snapshot']);
});

test('a pod is added and deleted, each acknowledged', async () => {
  const server = await startServer();
  const client = startClient();
  await eventually('connected', () => server.connected() === 1);
  await server.add(pod('a'), NETNS);
  expect(client.events.at(-1)).toBe('add u-a true');
  await server.add(pod('a'), NETNS);
  await server.del('u-a');
  await server.del('u-unknown');
  expect(client.events).toEqual(['snapshot', 'add u-a true', 'delete u-a']);
});

test('a refusal reaches the caller in the words of the ztunnel, and the connection stays', async () => {
  const server = await startServer();
  const client = startClient(async () => {
    throw new Error('port 15008 is in use');
  });
  await eventually('connected', () => server.connected() === 1);
  await expect(server.add(pod('a'), NETNS)).rejects.toThrow('port 15008 is in use');
  await expect(server.add(pod('b'), NETNS)).rejects.toMatchObject({ code: 'refused' });
  expect(client.events).toEqual(['snapshot', 'add u-a true', 'add u-b true']);
});

test('a pod of the snapshot that is refused is reported, and the rest goes on', async () => {
  const server = await startServer(() => located('bad', 'good'));
  startClient(async ({ name }) => {
    if (name === 'bad') throw new Error('no');
  });
  await eventually('connected', () => server.connected() === 1);
  expect(server.events).toEqual(['refused u-bad: no', 'connected 1']);
});

test('without a ztunnel a pod cannot be added, and the error says so', async () => {
  const server = await startServer();
  await expect(server.add(pod('a'), NETNS)).rejects.toMatchObject({ code: 'not-connected' });
});

test('a pod whose namespace is gone is an error of that pod alone; in a snapshot it is kept', async () => {
  const server = await startServer(() => [
    { pod: pod('gone'), netnsPath: '/run/netns/tulletest-none' },
    ...located('here'),
  ]);
  const client = startClient();
  await eventually('connected', () => server.connected() === 1);
  expect(client.events).toEqual(['add u-here true', 'snapshot']);
  await expect(server.add(pod('a'), '/run/netns/tulletest-none')).rejects.toThrow('ENOENT');
});

test('after a restart of the node agent pods go on, and those that it no longer names are deleted', async () => {
  const first = await startServer(() => located('stays', 'goes'));
  const client = startClient();
  await eventually('connected', () => first.connected() === 1);
  first.close();
  await eventually('noticed', () => client.events.includes('disconnect'));
  const second = await startServer(() => located('stays', 'new'));
  await eventually('connected again', () => second.connected() === 1);
  expect(client.events).toEqual([
    ...['add u-stays true', 'add u-goes true', 'snapshot', 'disconnect'],
    ...['add u-new true', 'delete u-goes', 'snapshot'],
  ]);
});

test('during an upgrade additions go to the newer ztunnel, deletions to both', async () => {
  const server = await startServer(() => located('old'));
  const older = startClient();
  await eventually('one', () => server.connected() === 1);
  const newer = startClient();
  await eventually('two', () => server.connected() === 2);
  await server.add(pod('new'), NETNS);
  await server.del('u-old');
  expect(older.events).toEqual(['add u-old true', 'snapshot', 'delete u-old']);
  expect(newer.events).toEqual(['add u-old true', 'snapshot', 'add u-new true', 'delete u-old']);
  await newer.stop();
  await eventually('left', () => server.connected() === 1);
  await server.add(pod('newer'), NETNS);
  expect(older.events.at(-1)).toBe('add u-newer true');
  expect(server.events).toEqual(['connected 1', 'connected 2', 'left 1']);
});

test('when the newest ztunnel leaves, the one before it is told of the pods that were added meanwhile', async () => {
  const pods: LocatedPod[] = [...located('old')];
  const server = await startServer(() => pods);
  const older = startClient(async ({ name }) => {
    if (name === 'bad') throw new Error('no');
  });
  await eventually('one', () => server.connected() === 1);
  const newer = startClient();
  await eventually('two', () => server.connected() === 2);
  for (const added of located('bad', 'new')) {
    await server.add(added.pod, added.netnsPath);
    pods.push(added);
  }
  pods.push({ pod: pod('gone'), netnsPath: '/run/netns/tulletest-none' });
  expect(older.events).toEqual(['add u-old true', 'snapshot']);
  await newer.stop();
  await eventually('told', () => older.events.includes('add u-new true'));
  expect(older.events).toEqual(['add u-old true', 'snapshot', 'add u-bad true', 'add u-new true']);
  expect(server.events).toEqual(['connected 1', 'connected 2', 'left 1', 'refused u-bad: no']);
  expect(server.connected()).toBe(1);
});

test('when an older ztunnel leaves, the newest is told nothing again', async () => {
  const server = await startServer(() => located('a'));
  const older = startClient();
  await eventually('one', () => server.connected() === 1);
  let additions = 0;
  const newer = rawClient();
  newer.send(encodeHello());
  for (let turn = 0; turn < 2; turn++) {
    const packet = await newer.receive();
    for (const fd of packet?.descriptors ?? []) {
      additions++;
      closeDescriptor(fd);
    }
    newer.send(Buffer.from('0a00', 'hex'));
  }
  await eventually('two', () => server.connected() === 2);
  await older.stop();
  await eventually('left', () => server.connected() === 1);
  const deleted = server.del('u-a');
  expect(Buffer.from((await newer.receive())?.bytes ?? [])).toEqual(
    Buffer.from(encodeRequest({ kind: 'del', uid: 'u-a' })),
  );
  newer.send(Buffer.from('0a00', 'hex'));
  await deleted;
  expect(additions).toBe(1);
});

test.each([
  { what: 'garbage', hello: 'ffffffff', says: 'malformed|number' },
  { what: 'another version', hello: '0802', says: 'ZDS version 2' },
  { what: 'a hello that is too long', hello: '00'.repeat(1025), says: 'longer than a message' },
  { what: 'silence', hello: undefined, says: 'no hello within 500 ms' },
])('$what is dropped with a line in the log, and disturbs nobody', async ({ hello, says }) => {
  const server = await startServer();
  startClient();
  await eventually('connected', () => server.connected() === 1);
  const fd = connectTo(path);
  const intruder = openConnection(fd);
  closers.push(intruder.close);
  if (hello !== undefined) sys.write(fd, Buffer.from(hello, 'hex'), hello.length / 2);
  expect(await intruder.receive()).toBeUndefined();
  expect(logLines.join('')).toMatch(new RegExp(says));
  await server.add(pod('a'), NETNS);
  expect(server.connected()).toBe(1);
});

test('an answer that nobody asked for ends the session', async () => {
  const server = await startServer();
  const ztunnel = rawClient();
  ztunnel.send(encodeHello());
  await ztunnel.receive();
  ztunnel.send(Buffer.from('0a00', 'hex'));
  await eventually('connected', () => server.connected() === 1);
  ztunnel.send(Buffer.from('0a00', 'hex'));
  expect(await ztunnel.receive()).toBeUndefined();
  expect(logLines.join('')).toContain('nothing was asked');
});

test('a ztunnel that does not answer is given up', async () => {
  const server = await startServer();
  const ztunnel = rawClient();
  ztunnel.send(encodeHello());
  await ztunnel.receive();
  ztunnel.send(Buffer.from('0a00', 'hex'));
  await eventually('connected', () => server.connected() === 1);
  await expect(server.add(pod('a'), NETNS)).rejects.toMatchObject({ code: 'timeout' });
  await eventually('gone', () => server.connected() === 0);
});

test.each<{ what: string; requests: readonly (WorkloadRequest | string)[]; says: string }>([
  {
    what: 'keep after the snapshot',
    requests: [{ kind: 'snapshot-sent' }, { kind: 'keep', uid: 'a' }],
    says: 'keep after',
  },
  {
    what: 'a second snapshot',
    requests: [{ kind: 'snapshot-sent' }, { kind: 'snapshot-sent' }],
    says: 'second snapshot',
  },
  {
    what: 'an addition without a namespace',
    requests: [{ kind: 'add', pod: pod('a') }],
    says: '0 descriptors instead of 1',
  },
  { what: 'garbage', requests: ['ffff'], says: 'ends within a number' },
])('a node agent that sends $what is told so, and left', async ({ requests, says }) => {
  const listener = listenAt(path);
  closers.push(() => closeDescriptor(listener));
  startClient();
  await readable(listener);
  const agent = openConnection(accept(listener) ?? -1);
  closers.push(agent.close);
  await agent.receive();
  let last = '';
  for (const request of requests) {
    agent.send(typeof request === 'string' ? Buffer.from(request, 'hex') : encodeRequest(request));
    last = decodeAck((await agent.receive())?.bytes ?? new Uint8Array()).error;
  }
  expect(last).toContain(says);
  expect(await agent.receive()).toBeUndefined();
  await readable(listener);
});

test('a stale socket is replaced, one in use is not, and only the owner may connect', async () => {
  closeDescriptor(listenAt(path));
  const server = await startServer();
  expect(statSync(path).mode & 0o777).toBe(0o600);
  await expect(startServer()).rejects.toBeInstanceOf(ZdsError);
  await expect(startServer()).rejects.toThrow('served by another node agent');
  server.close();
  expect(() => statSync(path)).toThrow('ENOENT');
});

test('a path that is too long for a socket works all the same', async () => {
  const long = mkdtempSync(join(directory, 'x'.repeat(120)));
  path = join(long, 'zds.sock');
  const server = await startServer();
  startClient();
  await eventually('connected', () => server.connected() === 1);
  server.close();
  rmSocket(path);
});
