import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { closeDescriptor } from '../capture/in-pod-sockets.ts';
import { openProcess } from './descriptors.ts';
import type { ListeningSocket } from './offer.ts';
import { takeSocket } from './take.ts';

const OWNER = new URL('../../test/kit/programs/listener.ts', import.meta.url);
const NETNS = openSync('/proc/self/ns/net', 'r');

interface Owner {
  readonly child: ChildProcess;
  readonly lines: AsyncIterator<string>;
  readonly pidfd: number;
  readonly socket: ListeningSocket;
}

const undo: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const each of undo.splice(0).reverse()) await each();
});

/** Another process that listens. */
async function startOwner(mode = ''): Promise<Owner> {
  const child = spawn(process.execPath, [fileURLToPath(OWNER), mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  undo.push(() => end(child));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const { pid, port, fd } = (await nextLine(lines)) as { pid: number; port: number; fd: number };
  const pidfd = openProcess(pid);
  undo.push(() => closeDescriptor(pidfd));
  return { child, lines, pidfd, socket: { protocol: 'tcp', address: { ip: '127.0.0.1', port }, fd } };
}

async function nextLine(lines: AsyncIterator<string>): Promise<unknown> {
  const { value } = await lines.next();
  return JSON.parse(String(value));
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

function take({ pidfd, socket }: Owner): number {
  const taken = takeSocket(pidfd, socket, NETNS);
  if (taken.kind === 'left') throw new Error(taken.reason);
  return taken.fd;
}

/** Microseconds that an owner has used, at its next tick. */
async function processorTime({ lines }: Owner): Promise<number> {
  return ((await nextLine(lines)) as { usedMicroseconds: number }).usedMicroseconds;
}

/** Serves here what waits in a socket. */
function serve(fd: number): Server {
  const server = createServer((socket) => socket.end('successor')).listen({ fd });
  undo.push(() => server.close());
  return server;
}

/** Who answers a new connection. */
async function call({ socket: { address } }: Owner): Promise<string> {
  return text(connect({ host: address.ip, port: address.port }));
}

test('connections that waited when the owner was killed are served by who took its socket', async () => {
  const owner = await startOwner('idle');
  const fd = take(owner);
  const waiting = Array.from({ length: 20 }, () => call(owner));
  await end(owner.child);
  serve(fd);
  expect(new Set(await Promise.all(waiting))).toEqual(new Set(['successor']));
});

test('an owner that has closed the socket is not woken by what waits in it', async () => {
  const owner = await startOwner();
  const fd = take(owner);
  owner.child.kill('SIGUSR2');
  const before = await processorTime(owner);
  const waiting = call(owner);
  await nextLine(owner.lines);
  const after = await processorTime(owner);
  expect(after - before).toBeLessThan(20_000); // of 200 ms; spinning would take nearly all
  serve(fd);
  expect(await waiting).toBe('successor');
});

test('closing it here leaves the owner as it was', async () => {
  const owner = await startOwner();
  const server = serve(take(owner));
  const closed = once(server, 'close');
  server.close();
  await closed;
  expect(await Promise.all([call(owner), call(owner)])).toEqual(['owner', 'owner']);
});

test.each([
  { what: 'a number that is not open', change: { fd: 9999 }, reason: 'EBADF' },
  { what: 'another file', change: { fd: 1 }, reason: 'descriptor 1 is not the socket that it was' },
  {
    what: 'a socket of another port',
    change: { address: { ip: '127.0.0.1', port: 15001 } },
    reason: 'is not the socket that it was',
  },
  { what: 'a socket of another protocol', change: { protocol: 'udp' as const }, reason: 'is not the socket' },
])('$what is left', async ({ change, reason }) => {
  const { pidfd, socket } = await startOwner('idle');
  expect(takeSocket(pidfd, { ...socket, ...change }, NETNS)).toEqual({
    kind: 'left',
    reason: expect.stringContaining(reason),
  });
});

test('a socket in another network namespace is left', async () => {
  const { pidfd, socket } = await startOwner('idle');
  const other = openSync('/proc/self/ns/uts', 'r');
  undo.push(() => closeDescriptor(other));
  expect(takeSocket(pidfd, socket, other)).toMatchObject({ kind: 'left', reason: /is of another pod/ });
});

test('nothing is taken from a process that is gone', async () => {
  const { child, pidfd, socket } = await startOwner('idle');
  await end(child);
  expect(takeSocket(pidfd, socket, NETNS)).toMatchObject({ kind: 'left', reason: /ESRCH/ });
});
