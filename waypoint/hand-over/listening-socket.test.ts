import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { listenHttp } from '#ztunnel/http-listener.ts';
import { offerOf, takeListeningSocket } from './listening-socket.ts';
import { handOverRoutes } from './routes.ts';

const LOGGER = pino({ level: 'silent' });
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-sockets-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function listening(): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as { port: number }).port };
}

test('a socket outlives the one who opened it, and what waits in its queue is served by the successor', async () => {
  const { server, port } = await listening();
  const path = join(folder, 'admin.sock');
  await using _admin = await listenHttp(
    { path },
    handOverRoutes('pay/waypoint/0', () => offerOf(server)),
    () => undefined,
  );
  const fd = await takeListeningSocket(path, 'pay/waypoint/0', port, LOGGER);
  if (fd === undefined) throw new Error('there is no socket');
  server.close();
  const client = connect(port, '127.0.0.1');
  await once(client, 'connect');
  const successor = createServer();
  successor.listen({ fd });
  const [accepted] = (await once(successor, 'connection')) as [Socket];
  accepted.end('served');
  expect(String((await once(client, 'data'))[0])).toBe('served');
  client.destroy();
  successor.close();
});

test.each([
  { when: 'it is of another replica', replica: 'pay/waypoint/1', more: 0 },
  { when: 'it listens elsewhere', replica: 'pay/waypoint/0', more: 1 },
])('none is taken when $when', async ({ replica, more }) => {
  const { server, port } = await listening();
  const path = join(folder, 'admin.sock');
  await using _admin = await listenHttp(
    { path },
    handOverRoutes('pay/waypoint/0', () => offerOf(server)),
    () => undefined,
  );
  expect(await takeListeningSocket(path, replica, port + more, LOGGER)).toBeUndefined();
  server.close();
});

test('none is taken where nobody is', async () => {
  expect(await takeListeningSocket(join(folder, 'none.sock'), 'a/b/0', 15_008, LOGGER)).toBeUndefined();
});
