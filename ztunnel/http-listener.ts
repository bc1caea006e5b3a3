import { once } from 'node:events';
import { lstatSync, renameSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { HostPort } from '#api/address.ts';

/** What is answered to a request. */
export interface HttpAnswer {
  readonly status: number;
  readonly contentType?: string;
  readonly body: string;
}

/** A method and path that is answered; the query comes apart. */
export interface HttpRoute {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly answer: (query: URLSearchParams) => HttpAnswer | Promise<HttpAnswer>;
}

/** A path on which another protocol is spoken instead (RFC 9110, 7.8). */
export interface HttpUpgrade {
  readonly path: string;
  /** Its name, with which it is asked for. */
  readonly protocol: string;
  /** Gets the connection from there on, until it is closed, by the listener's end at the latest. */
  readonly accept: (socket: Socket) => void;
}

/** A listening HTTP server of this process. */
export interface HttpListener extends AsyncDisposable {
  /** Where it listens; undefined on a Unix socket. */
  readonly address: HostPort | undefined;
}

/** A small server for operators: no keep-alive beyond a few seconds, no bodies read, bounded headers. */
export async function listenHttp(
  where: { readonly host?: string; readonly port: number } | { readonly path: string },
  routes: readonly HttpRoute[],
  onError: (error: Error) => void,
  upgrades: readonly HttpUpgrade[] = [],
): Promise<HttpListener> {
  const server = createServer({ maxHeaderSize: 8192, requestTimeout: 10_000, keepAliveTimeout: 5000 });
  server.maxConnections = 64;
  server.on('request', (request, response) => {
    respond(routes, request, response).catch((error: unknown) => {
      onError(error instanceof Error ? error : new Error(String(error)));
      response.destroy();
    });
  });
  const upgraded = upgrades.length > 0 ? acceptUpgrades(server, upgrades) : new Set<Socket>();
  if ('path' in where) await listenOnPath(server, where.path);
  // With the port shared, a successor can start before this process has ended.
  else await listen(server, () => server.listen({ ...where, reusePort: true }));
  const inode = 'path' in where ? inodeOf(where.path) : undefined;
  server.on('error', onError);
  return {
    address: addressOf(server),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      for (const socket of upgraded) socket.destroy();
      await server[Symbol.asyncDispose]();
      if ('path' in where && inode !== undefined && inodeOf(where.path) === inode) rmSync(where.path);
    },
  };
}

/** Plain text. */
export function textAnswer(status: number, body: string): HttpAnswer {
  return { status, contentType: 'text/plain; charset=utf-8', body };
}

/** JSON. */
export function jsonAnswer(status: number, value: unknown): HttpAnswer {
  return { status, contentType: 'application/json', body: `${JSON.stringify(value, undefined, 1)}\n` };
}

/** Those that have been upgraded and are open: the server knows of them no more. */
function acceptUpgrades(server: Server, upgrades: readonly HttpUpgrade[]): ReadonlySet<Socket> {
  const open = new Set<Socket>();
  server.on('upgrade', ({ url, headers }, socket: Socket, head) => {
    socket.on('error', () => undefined);
    const upgrade = upgrades.find(({ path, protocol }) => url === path && headers.upgrade === protocol);
    if (upgrade === undefined) {
      socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${upgrade.protocol}\r\n\r\n`,
    );
    if (head.length > 0) socket.unshift(head);
    upgrade.accept(socket);
  });
  return open;
}

async function respond(
  routes: readonly HttpRoute[],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  request.resume();
  const url = URL.parse(request.url ?? '/', 'http://localhost');
  const onPath = routes.filter(({ path }) => path === url?.pathname);
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  const route = onPath.find((each) => each.method === method);
  const answer =
    route === undefined || url === null
      ? textAnswer(onPath.length > 0 ? 405 : 404, onPath.length > 0 ? 'method not allowed\n' : 'not found\n')
      : await route.answer(url.searchParams);
  response.writeHead(answer.status, { 'content-type': answer.contentType ?? 'text/plain; charset=utf-8' });
  response.end(answer.body);
}

/**
 * Listens under another name first: the path leads to one process or the other during a restart, never to nothing, and
 * this one's end does not take the successor's socket away (closing a listener removes the name that it was bound to).
 */
async function listenOnPath(server: Server, path: string): Promise<void> {
  const ownPath = `${path}.${process.pid}`;
  rmSync(ownPath, { force: true });
  await listen(server, () => {
    const mask = process.umask(0o177);
    try {
      server.listen({ path: ownPath });
    } finally {
      process.umask(mask);
    }
  });
  renameSync(ownPath, path);
}

async function listen(server: Server, start: () => void): Promise<void> {
  const listening = once(server, 'listening');
  start();
  await listening;
}

function inodeOf(path: string): number | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.ino;
}

function addressOf(server: Server): HostPort | undefined {
  const address = server.address();
  if (address === null || typeof address === 'string') return undefined;
  return { ip: address.address, port: address.port };
}
