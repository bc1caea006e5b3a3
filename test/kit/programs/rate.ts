/**
 * Load at a rate: `node rate.ts URL PER_SECOND CONNECTIONS FILE [METHOD]`. Sends so many requests a second, spread over kept
 * connections, until SIGTERM; then FILE gets a {@link RateReport} as JSON. FILE.live is rewritten with the same all the time.
 * Each request carries an `x-request-id` of its own, so that servers can tell what reached them twice.
 */
import { randomUUID } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { RateReport } from './calls.ts';

const [url = '', perSecond = '100', connections = '16', file = '', method = 'GET'] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(connections) });
const report = { sent: 0, ok: 0, failed: 0, statuses: {}, answeredBy: {}, errors: [], longestMs: 0 } as {
  -readonly [Key in keyof RateReport]: RateReport[Key];
} & {
  readonly statuses: Record<string, number>;
  readonly answeredBy: Record<string, number>;
  readonly errors: string[];
};
const run = randomUUID();
let running = true;
let inFlight = 0;
process.once('SIGTERM', () => {
  running = false;
});

let owed = 0;
let at = performance.now();
while (running) {
  const now = performance.now();
  // What the machine could not keep up with is not made up for.
  owed = Math.min(owed + ((now - at) / 1000) * Number(perSecond), Number(perSecond) / 10);
  at = now;
  for (; owed >= 1 && inFlight < 4 * Number(connections); owed -= 1) send();
  write(`${file}.live`);
  await delay(5);
}
while (inFlight > 0) await delay(5);
agent.destroy();
write(file);

function send(): void {
  report.sent += 1;
  inFlight += 1;
  const sentAt = performance.now();
  const finish = (problem?: string): void => {
    inFlight -= 1;
    report.longestMs = Math.max(report.longestMs, Math.round(performance.now() - sentAt));
    if (problem === undefined) report.ok += 1;
    else {
      report.failed += 1;
      if (report.errors.length < 20) report.errors.push(`${new Date().toISOString()} ${problem}`);
    }
  };
  let isOver = false;
  const end = (problem?: string): void => {
    if (!isOver) finish(problem);
    isOver = true;
  };
  const headers = { 'x-request-id': `${run}-${report.sent}` };
  const body = method === 'POST' ? 'hello' : undefined;
  const request = http.request(url, { agent, method, headers, timeout: 10_000 }, (response) => {
    const status = response.statusCode ?? 0;
    count(report.statuses, `${status}`);
    if (status === 200) count(report.answeredBy, String(response.headers['x-answered-by'] ?? ''));
    response.on('error', (error) => end(error.message));
    response.on('aborted', () => end('the answer was cut'));
    response.on('end', () => end(status === 200 ? undefined : `status ${status}`));
    response.resume();
  });
  request.on('timeout', () => request.destroy(new Error('no answer within 10 s')));
  request.on('error', (error) => end(error.message));
  request.end(body);
}

function count(counts: Record<string, number>, key: string): void {
  counts[key] = (counts[key] ?? 0) + 1;
}

function write(path: string): void {
  writeFileSync(`${path}.new`, JSON.stringify(report));
  renameSync(`${path}.new`, path);
}
