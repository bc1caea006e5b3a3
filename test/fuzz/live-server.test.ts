import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { Svid } from '#certs/svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import type { CarrierProcess } from '#test/kit/carrier-process.ts';
import { type CartProcess, startCartProcess } from '#test/kit/cart-process.ts';
import { eventually } from '#test/kit/eventually.ts';
import { answeredTunnel, openHostileSession } from '#test/kit/hostile-session.ts';
import { openRawClient } from '#test/kit/raw-hbone.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import { fuzzConfig } from './config.ts';
import { FrameMaker } from './frame-maker.ts';

/** Sequences of frames, most of them nearly right, at a ztunnel in a process of its own, over TLS. */

const CART = '127.0.67.2';
/** In `npm test`. */
const SESSIONS = 150;
const AT_A_TIME = 10;
const MIB = 1024 * 1024;
/** What the heap may grow by before it is collected, whatever has come. */
const MOST_GROWTH = 100 * MIB;

// A process starts, and much comes at once, on a machine that may have much else to do.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let ca: TemporaryAuthority;
let web: Svid;
let cart: CartProcess;
let carrier: CarrierProcess;
let live: Connection;

beforeAll(async () => {
  ca = await temporaryAuthority();
  web = await ca.svid('spiffe://cluster.local/ns/default/sa/web');
  cart = await startCartProcess(ca, CART);
  carrier = cart.carrier;
  live = await openHostileSession(cart.hbone, web);
});
afterAll(async () => {
  live?.close('done');
  await cart?.[Symbol.asyncDispose]();
  await ca?.[Symbol.asyncDispose]();
});

/** A session of a client that sends what the seed makes, until it is closed or has sent all. */
async function attack(seed: number): Promise<void> {
  // From many addresses, or what one may reset would be used up soon.
  const client = await openRawClient(cart.hbone, web, `127.0.68.${1 + (seed % 250)}`);
  const maker = new FrameMaker(seed, `${CART}:8080`);
  for (const piece of maker.session()) {
    if (client.isClosed()) break;
    client.socket.write(piece);
    if (maker.rests()) await new Promise((resolve) => setImmediate(resolve));
  }
  if (maker.rests()) client.socket.destroy();
  else client.socket.end();
  await eventually(`the session of seed ${seed} is over`, client.isClosed);
}

/** A tunnel of another session answers. */
async function exchange(): Promise<void> {
  const stream = await answeredTunnel(live, `${CART}:8080`);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  stream.start({
    onData: (bytes) => resolve(bytes.toString()),
    onEnd: () => undefined,
    onDrain: () => undefined,
    onFinish: () => undefined,
    onAbort: (reason) => reject(new Error(reason)),
  });
  stream.write(Buffer.from('still here'));
  expect(await promise).toBe('still here');
  stream.abort();
}

const { seconds, seed } = fuzzConfig();

test(
  `whatever frames come (seed ${seed}), the process lives, other sessions too, and nothing is left`,
  async () => {
    const warm = Array.from({ length: 20 }, (_, index) => attack(seed + 1_000_000 + index));
    await Promise.all(warm);
    const before = (await carrier.usage(true)).rss;
    const startedAt = performance.now();
    const isEnough = (done: number): boolean =>
      seconds === undefined ? done >= SESSIONS : performance.now() - startedAt > seconds * 1000;
    for (let done = 0; !isEnough(done); done += AT_A_TIME) {
      await Promise.all(Array.from({ length: AT_A_TIME }, (_, index) => attack(seed + done + index)));
      await exchange();
      expect(carrier.isAlive()).toBe(true);
    }
    await eventually('no connection is left', async () => (await carrier.usage()).connections === 0);
    const { rss, waitingBytes } = await carrier.usage(true);
    expect(waitingBytes).toBeLessThan(MIB);
    expect(rss - before).toBeLessThan(MOST_GROWTH);
  },
  60_000 + (seconds ?? 0) * 1000,
);
