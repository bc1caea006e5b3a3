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

/** Something that an operator asks to be done, with a JSON body. An {@link OrderRefused} is answered with its message. */
export type Order = (body: unknown) => Promise<unknown>;

/** What was asked for is not done; the message is for whoever asked. */
export class OrderRefused extends Error {
  override readonly name = 'OrderRefused';
}

const LARGEST_BODY_BYTES = 1024 * 1024;
const NO_ORDERS: ReadonlyMap<string, Order> = new Map();

/**
 * Serves JSON over HTTP/1.1 on a Unix socket that only its owner can open (0600): `GET` each of the routes, `POST` each of the
 * orders. A socket that a dead process left is replaced. Disposing of it closes and removes it.
 * @throws StatusSocketError
 */
export async function serveStatusSocket(
  path: string,
  routes: ReadonlyMap<string, () => unknown>,
  orders: ReadonlyMap<string, Order> = NO_ORDERS,
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
  const server = createServer((request, response) => {
    const order = request.method === 'POST' ? orders.get(request.url ?? '') : undefined;
    if (order) void carryOut(order, request, response);
    else answer(routes, request, response);
  });
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
  send(response, decideAnswer(routes, request.method, request.url));
}

async function carryOut(order: Order, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    send(response, { status: 200, body: (await order(await readBody(request))) ?? {} });
  } catch (error) {
    const isRefused = error instanceof OrderRefused;
    const message = error instanceof Error ? error.message : String(error);
    send(response, { status: isRefused ? 409 : 500, body: { error: message } });
  }
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > LARGEST_BODY_BYTES) throw new OrderRefused('the request is larger than 1 MiB');
    chunks.push(chunk);
  }
  if (bytes === 0) return undefined;
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch (cause) {
    throw new OrderRefused('the request is not JSON', { cause });
  }
}

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

function send(response: ServerResponse, { status, body }: Answer): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}

function decideAnswer(
  routes: ReadonlyMap<string, () => unknown>,
  method: string | undefined,
  url: string | undefined,
): Answer {
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
