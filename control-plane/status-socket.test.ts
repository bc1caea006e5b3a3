import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Order, OrderRefused, serveStatusSocket } from './status-socket.ts';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-socket-'));
});

afterEach(() => rmSync(directory, { recursive: true }));

const ROUTES = new Map<string, () => unknown>([
  ['/status', () => ({ ready: true })],
  [
    '/broken',
    () => {
      throw new Error('no disk');
    },
  ],
]);

test.each([
  { when: 'a route is asked for', method: 'GET', path: '/status', status: 200, body: { ready: true } },
  {
    when: 'there is no such route',
    method: 'GET',
    path: '/',
    status: 404,
    body: { error: 'no such resource; there are /status, /broken' },
  },
  {
    when: 'something is to be changed',
    method: 'POST',
    path: '/status',
    status: 405,
    body: { error: 'only GET' },
  },
  { when: 'it fails', method: 'GET', path: '/broken', status: 500, body: { error: 'no disk' } },
])('the answer is $status when $when', async ({ method, path, status, body }) => {
  const socketPath = join(directory, 'run', 's.sock');
  await using _server = await serveStatusSocket(socketPath, ROUTES);
  expect(await ask(socketPath, method, path)).toEqual({ status, body });
});

const ORDERS = new Map<string, Order>([
  ['/echo', async (body) => body],
  [
    '/no',
    async () => {
      throw new OrderRefused('not now');
    },
  ],
  [
    '/broken',
    async () => {
      throw new Error('no disk');
    },
  ],
]);

test.each([
  { what: 'an order', method: 'POST', path: '/echo', sent: '{"a":1}', status: 200, body: { a: 1 } },
  { what: 'one without a body', method: 'POST', path: '/echo', sent: '', status: 200, body: {} },
  {
    what: 'one that is refused',
    method: 'POST',
    path: '/no',
    sent: '',
    status: 409,
    body: { error: 'not now' },
  },
  { what: 'a defect', method: 'POST', path: '/broken', sent: '', status: 500, body: { error: 'no disk' } },
  {
    what: 'what is no JSON',
    method: 'POST',
    path: '/echo',
    sent: '{',
    status: 409,
    body: { error: 'the request is not JSON' },
  },
  {
    what: 'too much',
    method: 'POST',
    path: '/echo',
    sent: `"${'x'.repeat(1024 * 1024)}"`,
    status: 409,
    body: { error: 'the request is larger than 1 MiB' },
  },
  {
    what: 'an order that is only looked at',
    method: 'GET',
    path: '/echo',
    sent: '',
    status: 404,
    body: { error: 'no such resource; there are /status, /broken' },
  },
])('the answer to $what is $status', async ({ method, path, sent, status, body }) => {
  const socketPath = join(directory, 's.sock');
  await using _server = await serveStatusSocket(socketPath, ROUTES, ORDERS);
  expect(await ask(socketPath, method, path, sent)).toEqual({ status, body });
});

test('garbage on the socket ends that connection, and no other', async () => {
  const socketPath = join(directory, 's.sock');
  await using _server = await serveStatusSocket(socketPath, ROUTES);
  const garbage = connect(socketPath);
  garbage.on('error', () => undefined);
  garbage.end('\0\0\0 nonsense\r\n\r\n');
  garbage.resume();
  await once(garbage, 'close');
  expect((await ask(socketPath, 'GET', '/status')).status).toBe(200);
});

test('a socket that a dead process left is replaced, and one that answers is not', async () => {
  const socketPath = join(directory, 's.sock');
  writeFileSync(socketPath, '');
  await using _server = await serveStatusSocket(socketPath, ROUTES);
  await expect(serveStatusSocket(socketPath, ROUTES)).rejects.toThrow(/another control plane runs/);
  expect((await ask(socketPath, 'GET', '/status')).status).toBe(200);
});

test('the socket is removed when it is closed', async () => {
  const socketPath = join(directory, 's.sock');
  const server = await serveStatusSocket(socketPath, ROUTES);
  await server[Symbol.asyncDispose]();
  expect(existsSync(socketPath)).toBe(false);
});

test('a path too long for a socket is named', async () => {
  const socketPath = join(directory, 'x'.repeat(100), 's.sock');
  await expect(serveStatusSocket(socketPath, ROUTES)).rejects.toThrow(/is too long for a Unix socket/);
});

async function ask(
  socketPath: string,
  method: string,
  path: string,
  body = '',
): Promise<{ readonly status: number | undefined; readonly body: unknown }> {
  const sent = request({ socketPath, path, method });
  sent.on('error', () => undefined); // The server may be done before all of it is sent.
  sent.end(body);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return { status: response.statusCode, body: JSON.parse(await text(response)) };
}
