import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import os from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Svid } from '#certs/svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { type Application, startApplication } from '#test/kit/application.ts';
import { type CarrierProcess, startCarrierProcess } from '#test/kit/carrier-process.ts';
import { answeredTunnel, openHostileSession } from '#test/kit/hostile-session.ts';
import { percentile } from '#test/kit/latency.ts';
import type { NoiseKind, NoiseOrder, NoiseReport } from '#test/kit/programs/noise.ts';
import { workload } from '#test/kit/resources.ts';

/**
 * A pod with a hundred requests a second beside one whose clients take all that they get, in one byte worker. It fails on what goes
 * wrong, never on time: the figures are printed.
 */

const QUIET = '127.0.71.2';
const NOISY = '127.0.71.3';
const REQUESTS = 1_000;
const INTERVAL_MS = 10;
const PROGRAM = join(import.meta.dirname, '../kit/programs/noise.ts');

let ca: TemporaryAuthority;
let web: Svid;
let application: Application;
let carrier: CarrierProcess;
let noise: ChildProcess;
let noisyPort: number;

/** Both are `cart` to their clients. */
const quiet = workload({ name: 'quiet', serviceAccount: 'cart', node: 'n2', addresses: [QUIET] });
const noisy = workload({ name: 'noisy', serviceAccount: 'cart', node: 'n2', addresses: [NOISY] });

async function tell(order: NoiseOrder): Promise<NoiseReport> {
  noise.send(order);
  const [report] = (await once(noise, 'message')) as [NoiseReport];
  return report;
}

/** What else this machine does is not what is measured: those whose time counts go before it. Needs root. */
function goBefore(pid: number, priority: number): void {
  try {
    os.setPriority(pid, priority);
  } catch {
    // Then the figures say more of the machine.
  }
}

beforeAll(async () => {
  ca = await temporaryAuthority();
  web = await ca.svid('spiffe://cluster.local/ns/default/sa/web');
  application = await startApplication(QUIET);
  noise = fork(PROGRAM, [], { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const listening = await tell({ kind: 'listen', ip: NOISY });
  if (listening.kind !== 'listening') throw new Error(listening.kind);
  noisyPort = listening.port;
  carrier = await startCarrierProcess({
    node: 'n2',
    resources: [quiet, noisy],
    svids: [await ca.svid('spiffe://cluster.local/ns/default/sa/cart')],
    pods: [quiet, noisy],
    aims: [{ podIp: NOISY, to: { ip: NOISY, port: 8080 } }],
    applications: [
      { at: { ip: QUIET, port: 8080 }, port: application.port },
      { at: { ip: NOISY, port: 8080 }, port: noisyPort },
    ],
  });
  goBefore(carrier.pid, -15);
  goBefore(process.pid, -15);
  goBefore(noise.pid ?? 0, -10);
});
afterAll(async () => {
  noise?.kill();
  await carrier?.[Symbol.asyncDispose]();
  application?.[Symbol.dispose]();
  await ca?.[Symbol.asyncDispose]();
});

/** How long requests take on one tunnel of the quiet pod, a hundred a second, in milliseconds. */
async function requests(): Promise<readonly number[]> {
  const at = { ip: QUIET, port: carrier.portOf({ ip: QUIET, port: 15008 }) };
  const session = await openHostileSession(at, web);
  const stream = await answeredTunnel(session, `${QUIET}:8080`);
  const sent: number[] = [];
  const times: number[] = [];
  const done = Promise.withResolvers<void>();
  stream.start({
    onData: (bytes) => {
      // One byte a request.
      for (let left = bytes.length; left > 0; left--) times.push(performance.now() - (sent.shift() ?? 0));
      if (times.length === REQUESTS) done.resolve();
    },
    onEnd: () => undefined,
    onDrain: () => undefined,
    onFinish: () => undefined,
    onAbort: (reason) => done.reject(new Error(reason)),
  });
  let count = 0;
  const timer = setInterval(() => {
    sent.push(performance.now());
    stream.write(Buffer.from('r'));
    if (++count === REQUESTS) clearInterval(timer);
  }, INTERVAL_MS);
  await done.promise;
  session.close('done');
  return times;
}

test.each<NoiseKind>(['bulk in tunnels', 'bulk in plain text', 'new tunnels', 'new connections'])(
  'a quiet pod is served beside one with %s',
  async (kind) => {
    const alone = percentile(await requests(), 99);
    const begun = await tell({
      ...{ kind: 'begin', noise: kind, svid: web, perSecond: 5_000, connections: 32 },
      hbone: { ip: NOISY, port: carrier.portOf({ ip: NOISY, port: 15008 }) },
      plain: { ip: NOISY, port: carrier.portOf({ ip: NOISY, port: 15006 }) },
      application: { ip: NOISY, port: 8080 },
    });
    expect(begun.kind).toBe('begun');
    const startedAt = performance.now();
    const before = await carrier.usage();
    const beside = await requests();
    const { cpuMs } = await carrier.usage();
    const seconds = (performance.now() - startedAt) / 1000;
    const ended = await tell({ kind: 'end' });
    if (ended.kind !== 'ended') throw new Error(ended.kind);
    const p99 = percentile(beside, 99);
    process.stdout.write(
      `${kind}: p99 of the quiet pod ${p99.toFixed(1)} ms, alone ${alone.toFixed(1)} ms: ${(p99 / alone).toFixed(1)} times; ` +
        `p50 ${percentile(beside, 50).toFixed(1)} ms; the noisy one had ${(ended.bytes / 1e6 / seconds).toFixed(0)} MB/s, ` +
        `${(ended.opened / seconds).toFixed(0)} connections a second, ${ended.failed} failed; ` +
        `ztunnel at ${Math.round((cpuMs - before.cpuMs) / seconds / 10)} % of a core\n`,
    );
    expect(beside).toHaveLength(REQUESTS);
    expect(ended.opened).toBeGreaterThan(0);
    expect(carrier.isAlive()).toBe(true);
  },
  120_000,
);
