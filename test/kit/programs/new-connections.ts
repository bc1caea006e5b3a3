/**
 * New connections and DNS queries, many at a time: `node new-connections.ts HOST PORT PARALLEL FILE`. Until SIGTERM: PARALLEL
 * loops that each open an HTTP connection, ask once and read to its end, and PARALLEL that each ask the resolver for HOST
 * from a socket of their own. Then FILE gets what happened, as JSON; while it runs, FILE.live is rewritten now and then with
 * the same.
 */
import { Resolver } from 'node:dns/promises';
import { renameSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';

interface Outcome {
  ok: number;
  errors: string[];
  longestMs: number;
}

const [host = '', port = '', parallel = '', file = ''] = process.argv.slice(2);
const results = { connections: outcome(), queries: outcome() };
const CONNECTION_MS = 10_000;
/** A lost datagram is not asked for again. */
const QUERY_MS = 2_000;
let running = true;
process.once('SIGTERM', () => {
  running = false;
});

function outcome(): Outcome {
  return { ok: 0, errors: [], longestMs: 0 };
}

async function repeat(of: Outcome, once: () => Promise<unknown>): Promise<void> {
  while (running) {
    const start = performance.now();
    try {
      await once();
      of.ok++;
    } catch (error) {
      if (of.errors.length < 50) of.errors.push(`${new Date().toISOString()} ${String(error)}`);
    }
    of.longestMs = Math.max(of.longestMs, Math.round(performance.now() - start));
    await delay(5);
  }
}

async function connect(ip: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
  const signal = AbortSignal.timeout(CONNECTION_MS);
  const call = http.get({ host: ip, port, agent: false, signal, headers: { host } });
  call.on('response', resolve);
  call.on('error', reject);
  const response = await promise;
  if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
  await text(response);
}

async function query(): Promise<string> {
  const [ip = ''] = await new Resolver({ timeout: QUERY_MS, tries: 1 }).resolve4(host);
  return ip;
}

const address = await query();
const live = setInterval(() => {
  writeFileSync(`${file}.new`, JSON.stringify(results));
  renameSync(`${file}.new`, `${file}.live`);
}, 100);
const loops = Array.from({ length: Number(parallel) });
await Promise.all([
  ...loops.map(() => repeat(results.connections, () => connect(address))),
  ...loops.map(() => repeat(results.queries, query)),
]);
clearInterval(live);
writeFileSync(file, JSON.stringify(results));
process.exit(0);
