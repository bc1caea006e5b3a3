import { once } from 'node:events';
import { chmodSync, rmSync } from 'node:fs';
import http from 'node:http';
import { CliError, describeError } from '../cli-error.ts';

/** What a route gets and gives: parts of the path that its pattern named, and a JSON body. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly path: RegExp;
  readonly handle: (groups: Readonly<Record<string, string>>, body: unknown) => Promise<unknown>;
}

const LARGEST_BODY_BYTES = 1024 * 1024;

/**
 * Serves JSON over HTTP on a Unix socket (0600). A CliError is answered with 409 and its message, anything else that is
 * thrown with 500. Closed by the returned function, which also ends what is being served.
 */
export async function serveJson(socketPath: string, routes: readonly Route[]): Promise<() => Promise<void>> {
  rmSync(socketPath, { force: true });
  const server = http.createServer(async (request, response) => {
    const { status, body } = await answer(routes, request);
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(`${JSON.stringify(body ?? {})}\n`);
  });
  server.listen(socketPath);
  await once(server, 'listening');
  chmodSync(socketPath, 0o600);
  return async () => {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
    rmSync(socketPath, { force: true });
  };
}

async function answer(
  routes: readonly Route[],
  request: http.IncomingMessage,
): Promise<{ readonly status: number; readonly body: unknown }> {
  const url = request.url ?? '/';
  const fitting = routes.filter(({ path }) => path.test(url));
  const route = fitting.find(({ method }) => method === request.method);
  if (route === undefined) {
    return {
      status: fitting.length > 0 ? 405 : 404,
      body: { error: `no such thing: ${request.method} ${url}` },
    };
  }
  try {
    const groups = route.path.exec(url)?.groups ?? {};
    return { status: 200, body: await route.handle(groups, await readBody(request)) };
  } catch (error) {
    return { status: error instanceof CliError ? 409 : 500, body: { error: describeError(error) } };
  }
}

async function readBody(request: http.IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > LARGEST_BODY_BYTES) throw new CliError('the request is too large');
    chunks.push(chunk);
  }
  if (bytes === 0) return undefined;
  try {
    return JSON.parse(Buffer.concat(chunks).toString()) as unknown;
  } catch (cause) {
    throw new CliError('the request is not JSON', { cause });
  }
}
