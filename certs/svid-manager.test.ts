import { expect, test } from 'vitest';
import { formatIdentity, type Identity, parseIdentity } from './identity.ts';
import type { Svid } from './svid.ts';
import { createSvidManager, type SvidManager, type SvidManagerOptions } from './svid-manager.ts';

const WEB = parseIdentity('spiffe://cluster.local/ns/shop/sa/web');
const CART = parseIdentity('spiffe://cluster.local/ns/shop/sa/cart');
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** A timer that is longer fires at once. */
const LONGEST_TIMER_MS = 2 ** 31;

/** A signer that answers when the test says so, on a clock that the test moves. */
class World {
  nowMs = 1_000_000;
  /** Timers run on the time that the machine was awake. */
  #awakeMs = 0;
  lifeMs = DAY;
  readonly asked: {
    identity: Identity;
    signal: AbortSignal;
    answer: () => Svid;
    refuse: (why: string) => void;
  }[] = [];
  readonly received: Svid[] = [];
  readonly failures: { error: Error; retryInMs: number }[] = [];
  readonly #timers = new Map<number, { readonly atMs: number; readonly run: () => void }>();
  #count = 0;

  manager(options: Partial<SvidManagerOptions> = {}): SvidManager {
    return createSvidManager({
      request: (identity, signal) => this.#ask(identity, signal),
      onSvid: (svid) => this.received.push(svid),
      onError: (_identity, error, retryInMs) => this.failures.push({ error, retryInMs }),
      now: () => this.nowMs,
      random: () => 0.5,
      schedule: (delayMs, run) => {
        expect(delayMs).toBeLessThan(LONGEST_TIMER_MS);
        const id = ++this.#count;
        this.#timers.set(id, { atMs: this.#awakeMs + delayMs, run });
        return () => this.#timers.delete(id);
      },
      ...options,
    });
  }

  /** Moves the clock, runs what falls due in order, and lets answers arrive. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#awakeMs + ms;
    for (;;) {
      await settle();
      const [next] = [...this.#timers]
        .filter(([, timer]) => timer.atMs <= endMs)
        .sort((a, b) => a[1].atMs - b[1].atMs);
      if (next === undefined) break;
      this.#timers.delete(next[0]);
      this.#pass(next[1].atMs);
      next[1].run();
    }
    this.#pass(endMs);
    await settle();
  }

  /** Time goes on and no timer with it. */
  sleep(ms: number): void {
    this.nowMs += ms;
  }

  #pass(awakeMs: number): void {
    this.nowMs += awakeMs - this.#awakeMs;
    this.#awakeMs = awakeMs;
  }

  timers(): number {
    return this.#timers.size;
  }

  #ask(identity: Identity, signal: AbortSignal): Promise<Svid> {
    const { promise, resolve, reject } = Promise.withResolvers<Svid>();
    const answer = (): Svid => {
      const issued = this.#issue(identity);
      resolve(issued);
      return issued;
    };
    this.asked.push({ identity, signal, answer, refuse: (why) => reject(new Error(why)) });
    signal.addEventListener('abort', () => reject(new Error('aborted')));
    return promise;
  }

  #issue(identity: Identity): Svid {
    const text = { privateKeyPem: '', certificateChainPem: '', rootsPem: '', serial: String(++this.#count) };
    return { identity, ...text, notBeforeMs: this.nowMs, notAfterMs: this.nowMs + this.lifeMs };
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
}

/** A world in which one SVID has come. */
async function served(
  options: Partial<SvidManagerOptions> = {},
): Promise<{ world: World; manager: SvidManager; svid: Svid }> {
  const world = new World();
  const manager = world.manager(options);
  manager.want(WEB);
  const svid = world.asked[0]?.answer();
  await settle();
  if (svid === undefined) throw new TypeError('nothing was asked for');
  return { world, manager, svid };
}

test('roots that are set hold for what is here and what comes, until certificates bring theirs again', async () => {
  const world = new World();
  const manager = world.manager();
  manager.want(WEB);
  await world.advance(0);
  const { rootsPem } = world.asked[0]?.answer() ?? {};
  await world.advance(0);
  manager.setRoots('both');
  manager.setRoots('both');
  expect(world.received.map((svid) => svid.rootsPem)).toEqual([rootsPem, 'both']);
  expect(manager.get(WEB)).toBe(world.received[1]);
  manager.want(CART);
  await world.advance(0);
  world.asked[1]?.answer();
  await world.advance(0);
  expect(manager.get(CART)?.rootsPem).toBe('both');
  manager.setRoots(undefined);
  expect(manager.get(WEB)?.rootsPem).toBe('both');
  await world.advance(DAY / 2);
  world.asked[2]?.answer();
  await world.advance(0);
  expect(world.received.at(-1)?.rootsPem).toBe(rootsPem);
});

test('an identity that is wanted is asked for at once, and once', () => {
  const world = new World();
  const manager = world.manager();
  manager.want(WEB);
  manager.want({ ...WEB });
  expect(world.asked.map(({ identity }) => identity)).toEqual([WEB]);
  expect(manager.get(WEB)).toBeUndefined();
});

test('an SVID that comes is kept and told', async () => {
  const { world, manager, svid } = await served();
  expect(manager.get(WEB)).toBe(svid);
  expect(world.received).toEqual([svid]);
});

test('an SVID is renewed at half of its life, not before', async () => {
  const { world, manager, svid } = await served();
  await world.advance(12 * HOUR - 1);
  expect(world.asked).toHaveLength(1);
  await world.advance(1);
  expect(world.asked).toHaveLength(2);
  const renewed = world.asked[1]?.answer();
  await settle();
  expect(manager.get(WEB)).toBe(renewed);
  expect(world.received).toEqual([svid, renewed]);
});

test('a life of 90 days, half of which no timer can count, is renewed at its half', async () => {
  const world = new World();
  world.lifeMs = 90 * DAY;
  world.manager().want(WEB);
  world.asked[0]?.answer();
  await world.advance(45 * DAY - 1);
  expect(world.asked).toHaveLength(1);
  await world.advance(1);
  expect(world.asked).toHaveLength(2);
});

test('a machine that slept past the renewal renews within a minute of waking', async () => {
  const { world } = await served();
  world.sleep(20 * HOUR);
  await world.advance(60_000);
  expect(world.asked).toHaveLength(2);
});

test('a renewal that fails keeps the valid SVID, and is tried again', async () => {
  const { world, manager, svid } = await served();
  await world.advance(12 * HOUR);
  world.asked[1]?.refuse('no');
  await settle();
  expect(manager.get(WEB)).toBe(svid);
  expect(manager.list()).toEqual([{ identity: WEB, state: 'Available', svid }]);
  expect(world.failures).toMatchObject([{ error: { message: 'no' }, retryInMs: 1000 }]);
  await world.advance(1000);
  expect(world.asked).toHaveLength(3);
});

test('after its end an SVID is given to nobody, and admin says why there is none', async () => {
  const { world, manager } = await served();
  await world.advance(12 * HOUR);
  world.asked[1]?.refuse('the authority is out');
  await world.advance(12 * HOUR);
  expect(manager.get(WEB)).toBeUndefined();
  expect(manager.list()).toMatchObject([{ state: 'Unavailable: the authority is out' }]);
});

test('an identity is Initializing until its first answer', async () => {
  const world = new World();
  const manager = world.manager();
  manager.want(WEB);
  expect(manager.list()).toEqual([{ identity: WEB, state: 'Initializing' }]);
  world.asked[0]?.refuse('refused');
  await settle();
  expect(manager.list()).toEqual([{ identity: WEB, state: 'Unavailable: refused' }]);
});

test('an SVID of ten seconds never runs out while two requests of three fail', async () => {
  const world = new World();
  world.lifeMs = 10_000;
  const manager = world.manager();
  manager.want(WEB);
  world.asked[0]?.answer();
  await settle();
  for (let answered = 1; world.nowMs < 1_600_000; ) {
    expect(manager.get(WEB)).toBeDefined();
    await world.advance(50);
    for (; answered < world.asked.length; answered += 1) {
      if (answered % 3 === 0) world.asked[answered]?.answer();
      else world.asked[answered]?.refuse('no');
    }
    await settle();
  }
  expect(world.received.length).toBeGreaterThan(50);
});

test('eight requests run at a time, and those that are waited for go first', async () => {
  const world = new World();
  const manager = world.manager();
  const identities = Array.from({ length: 20 }, (_, index) => ({ ...WEB, serviceAccount: `w${index}` }));
  for (const identity of identities) manager.want(identity);
  expect(world.asked).toHaveLength(8);
  const urgent = { ...WEB, serviceAccount: 'w19' };
  const waiting = manager.waitFor(urgent, 1000);
  world.asked[0]?.answer();
  await settle();
  expect(world.asked).toHaveLength(9);
  const svid = world.asked[8]?.answer();
  expect(await waiting).toBe(svid);
  expect(formatIdentity(svid?.identity ?? WEB)).toContain('w19');
});

test('who waits for an SVID that is there gets it at once', async () => {
  const { manager, svid } = await served();
  expect(await manager.waitFor(WEB, 1)).toBe(svid);
});

test('who waits too long is told what went wrong', async () => {
  const world = new World();
  const manager = world.manager();
  manager.want(WEB);
  const waiting = expect(manager.waitFor(WEB, 500)).rejects.toMatchObject({
    code: 'TIMED_OUT',
    message: expect.stringContaining('cannot be reached'),
  });
  world.asked[0]?.refuse('the authority cannot be reached');
  await world.advance(500);
  await waiting;
});

test('an identity that nobody wants is not waited for', async () => {
  const manager = new World().manager();
  await expect(manager.waitFor(WEB, 1000)).rejects.toMatchObject({ code: 'NOT_WANTED' });
});

test('forgetting ends the request, the timers and the waiting', async () => {
  const world = new World();
  const manager = world.manager();
  manager.want(WEB);
  const waiting = expect(manager.waitFor(WEB, 1000)).rejects.toMatchObject({ code: 'FORGOTTEN' });
  manager.forget(WEB);
  await waiting;
  await settle();
  expect(world.asked[0]?.signal.aborted).toBe(true);
  expect(world.failures).toEqual([]);
  expect([manager.list(), world.timers()]).toEqual([[], 0]);
});

test('an identity that is wanted again is asked for again, and the old answer does not count', async () => {
  const { world, manager, svid } = await served();
  manager.forget(WEB);
  expect(manager.get(WEB)).toBeUndefined();
  manager.want(WEB);
  const second = world.asked[1]?.answer();
  await settle();
  expect(manager.get(WEB)).toBe(second);
  expect(second).not.toBe(svid);
});

test('when the authority is back, what failed is tried at once and what is fine is left alone', async () => {
  const { world, manager } = await served();
  manager.want(CART);
  world.asked[1]?.refuse('out');
  await settle();
  manager.retryNow();
  expect(world.asked.map(({ identity }) => identity)).toEqual([WEB, CART, CART]);
});

test('closing leaves nothing behind', async () => {
  const { world, manager } = await served();
  manager.want(CART);
  manager.close();
  await settle();
  expect([manager.list(), world.timers(), world.asked[1]?.signal.aborted]).toEqual([[], 0, true]);
});
