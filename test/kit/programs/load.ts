/**
 * Steady load: `node load.ts URL TCP_HOST:PORT FILE`. Until SIGTERM: short connections one after another, requests on one
 * keep-alive connection, and a line a moment on one long TCP connection that echoes. Then FILE gets what happened, as JSON;
 * while it runs, FILE.live is rewritten now and then with the same.
 */
import { renameSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

interface Outcome {
  ok: number;
  failed: number;
  errors: string[];
  longestMs: number;
}

const [url = '', tcp = '', file = ''] = process.argv.slice(2);
const results = { short: outcome(), keepAlive: outcome(), long: outcome() };
let running = true;
process.once('SIGTERM', () => {
  running = false;
});

function outcome(): Outcome {
  return { ok: 0, failed: 0, errors: [], longestMs: 0 };
}

async function repeat(of: Outcome, once: () => Promise<void>): Promise<void> {
  while (running) {
    const start = performance.now();
    try {
      await once();
      of.ok++;
    } catch (error) {
      of.failed++;
      if (of.errors.length < 20) of.errors.push(`${new Date().toISOString()} ${String(error)}`);
      await delay(20);
    }
    of.longestMs = Math.max(of.longestMs, Math.round(performance.now() - start));
    await delay(3);
  }
}

function request(agent: http.Agent): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = http.get(url, { agent, timeout: 10_000 }, (response) => {
      response.on('error', reject);
      response.on('end', () =>
        response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`)),
      );
      response.resume();
    });
    call.on('timeout', () => call.destroy(new Error('no answer within 10 s')));
    call.on('error', reject);
  });
}

async function longConnection(): Promise<void> {
  const colon = tcp.lastIndexOf(':');
  const socket = net.connect({ host: tcp.slice(0, colon), port: Number(tcp.slice(colon + 1)) });
  let waiting: ((error?: Error) => void) | undefined;
  let broken: Error | undefined;
  const end = (error: Error): void => {
    broken ??= error;
    waiting?.(broken);
  };
  socket.on('error', end);
  socket.on('close', () => end(new Error('the long connection was closed')));
  socket.on('data', () => waiting?.());
  await repeat(results.long, async () => {
    if (broken !== undefined) throw broken;
    await new Promise<void>((resolve, reject) => {
      waiting = (error) => (error === undefined ? resolve() : reject(error));
      socket.write('ping\n');
    });
  });
  socket.destroy();
}

const live = setInterval(() => {
  writeFileSync(`${file}.new`, JSON.stringify(results));
  renameSync(`${file}.new`, `${file}.live`);
}, 100);
const short = new http.Agent({ keepAlive: false });
const keepAlive = new http.Agent({ keepAlive: true, maxSockets: 1 });
await Promise.all([
  repeat(results.short, () => request(short)),
  repeat(results.keepAlive, () => request(keepAlive)),
  ...(tcp === '' ? [] : [longConnection()]),
]);
clearInterval(live);
writeFileSync(file, JSON.stringify(results));
process.exit(0);
