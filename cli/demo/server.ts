/**
 * A server of the sample mesh: `node server.ts NAME [URL]`. It answers on port 8080 with its name, its caller's address (and
 * identity, as a waypoint says it) and, given a URL, what it was answered there; without one it has books. A caller's header
 * `x-note` goes along. It is slow on request (`x-slow: MILLISECONDS`), and fails so many tries of a request (`x-fail: TRIES`).
 */
import http from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

const [name = 'server', upstream] = process.argv.slice(2);
const TIMEOUT_MS = 5_000;
/** The new version of the catalog has a book more. */
const isNew = name.includes('-v2-');

const server = http.createServer(async (request, response) => {
  const caller = request.socket.remoteAddress?.replace('::ffff:', '');
  const note = request.headers['x-note'];
  const client = request.headers['x-forwarded-client-cert'];
  const own = { name, caller, ...(client !== undefined && { client }), ...(note !== undefined && { note }) };
  await delay(numberIn(request.headers['x-slow'], 0));
  if (numberIn(request.headers['x-envoy-attempt-count'], 1) <= numberIn(request.headers['x-fail'], 0)) {
    response.writeHead(503).end('not this time\n');
    return;
  }
  try {
    const rest =
      upstream === undefined
        ? { books: ['A Wizard of Earthsea', 'Kindred', ...(isNew ? ['Piranesi'] : [])] }
        : { next: await call(upstream, note) };
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(`${JSON.stringify({ ...own, ...rest })}\n`);
  } catch (error) {
    response.writeHead(502, { 'content-type': 'application/json' });
    response.end(`${JSON.stringify({ ...own, error: String(error) })}\n`);
  }
});
server.listen(8080, '::');
process.on('SIGTERM', () => process.exit(0));

function numberIn(header: string | string[] | undefined, otherwise: number): number {
  return typeof header === 'string' && /^\d{1,5}$/.test(header) ? Number(header) : otherwise;
}

function call(url: string, note: string | string[] | undefined): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const headers = note === undefined ? {} : { 'x-note': note };
  const request = http.get(url, { timeout: TIMEOUT_MS, headers, agent: false }, (response) => {
    const chunks: Buffer[] = [];
    response.on('data', (chunk: Buffer) => chunks.push(chunk));
    response.on('error', reject);
    response.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      if (response.statusCode === 200) resolve(JSON.parse(text));
      else reject(new Error(`${url} answered ${response.statusCode}: ${text.trim()}`));
    });
  });
  request.on('timeout', () => request.destroy(new Error(`${url} did not answer in time`)));
  request.on('error', reject);
  return promise;
}
