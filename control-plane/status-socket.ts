import { once } from 'node:events';
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';

/** The socket cannot be listened on. */
export class StatusSocketError extends Error {
  override readonly name = 'StatusSocketError';
}

/** The longest path of a Unix socket, in bytes, without the closing zero. */
const LONGEST_PATH_BYTES = 107;

/**
 * Serves JSON over HTTP/1.1 on a Unix socket that only its owner can open (0600): `GET` each of the routes. A socket
 * that a dead process left is replaced. Disposing of it closes and removes it.
 * @throws StatusSocketError
 */
export async function serveStatusSocket(
  path: string,
  routes: ReadonlyMap<string, () => unknown>,
): Promise<AsyncDisposable> {
  if (Buffer.byteLength(path) > LONGEST_PATH_BYTES) {
    throw new StatusSocketError(
      `${path} is too long for a Unix socket; choose a shorter path for the state folder`,
    );
  }
  if (await answers(path)) {
    throw new StatusSocketError(
      `another control plane runs on this state folder: it answers on ${path}; stop it first`,
    );
  }
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  rmSync(path, { force: true });
  const server = createServer((request, response) => answer(routes, request, response));
  server.listen(path);
  await once(server, 'listening');
  chmodSync(path, 0o600);
  return {
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function answer(
  routes: ReadonlyMap<string, () => unknown>,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  request.resume();
  const { status, body } = decideAnswer(routes, request.method, request.url);
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}

function decideAnswer(
  routes: ReadonlyMap<string, () => unknown>,
  method: string | undefined,
  url: string | undefined,
): { readonly status: number; readonly body: unknown } {
  const route = routes.get(url ?? '');
  if (!route)
    return { status: 404, body: { error: `no such resource; there are ${[...routes.keys()].join(', ')}` } };
  if (method !== 'GET') return { status: 405, body: { error: 'only GET' } };
  try {
    return { status: 200, body: route() };
  } catch (error) {
    return { status: 500, body: { error: error instanceof Error ? error.message : String(error) } };
  }
}

/** Whether someone listens on that socket. */
async function answers(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
