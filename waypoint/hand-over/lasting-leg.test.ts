import { expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import { connectionPair, OK, request, type Watched, watch } from '#ztunnel/hbone/testing.ts';
import { LastingLeg } from './lasting-leg.ts';

const ID = '0123456789abcdef'.repeat(2);

/** A stream of a session of its own: its two ends. */
async function stream(): Promise<{ readonly near: TunnelStream; readonly far: TunnelStream }> {
  const streams: TunnelStream[] = [];
  const pair = await connectionPair((each) => {
    streams.push(each);
    pair.server.respond(each, OK, false);
  });
  const { stream: near, answer } = request(pair.client);
  await answer;
  const [far] = streams;
  if (far === undefined) throw new Error('there is no request');
  return { near, far };
}

/** A leg that has lost its first stream; the far end of it, what its owner sees, and the far end of its next. */
async function moved(
  before: (
    leg: LastingLeg,
    first: { readonly near: TunnelStream; readonly far: TunnelStream },
  ) => void | Promise<void>,
  meanwhile: (leg: LastingLeg) => void = () => undefined,
): Promise<{
  readonly leg: LastingLeg;
  readonly owner: Watched;
  readonly next: TunnelStream;
  readonly peer: Watched;
}> {
  const first = await stream();
  const away: boolean[] = [];
  const leg = new LastingLeg(first.near, { onAway: ({ isRetiring }) => away.push(isRetiring) });
  const owner = watch(leg);
  await before(leg, first);
  const held = leg.asHeldTunnel(ID, first.near);
  held.halt(() => undefined);
  meanwhile(leg);
  held.settle({ isRetiring: false, sent: 0, received: 0 });
  expect(away).toEqual([false]);
  const second = await stream();
  const peer = watch(second.far);
  leg.attach(second.near);
  return { leg, owner, next: second.far, peer };
}

test('what is written while there is no stream goes out on the next, in order', async () => {
  const { leg, owner, peer } = await moved(
    () => undefined,
    (each) => {
      expect(each.write(Buffer.from('one '))).toBe(true);
      expect(each.write(Buffer.from('two '))).toBe(true);
    },
  );
  leg.write(Buffer.from('three'));
  await eventually('all of it', () => peer.text() === 'one two three');
  expect(owner.events).toEqual([]);
});

test('who writes much while there is no stream has to wait for the next', async () => {
  const { owner, peer } = await moved(
    () => undefined,
    (each) => {
      let written = 0;
      while (each.write(Buffer.alloc(64 * 1024))) written += 64 * 1024;
      expect(written).toBe(256 * 1024);
    },
  );
  await eventually('all of it', () => peer.bytes() === 320 * 1024);
  await owner.until('drain');
  expect(owner.events).toEqual(['drain']);
});

test('who was asked to wait before the exchange is called after it', async () => {
  const { owner } = await moved(async (leg, { far }) => {
    far.pause();
    while (leg.write(Buffer.alloc(64 * 1024)));
    const held = leg.stream;
    if (held !== undefined) leg.asHeldTunnel(ID, held).halt(() => undefined);
    const reader = watch(far);
    await eventually('all has gone', () => reader.bytes() > 0 && held?.bytesQueued === 0);
  });
  await owner.until('drain');
  expect(owner.events).toEqual(['drain']);
});

test('what comes in for an owner who has paused is kept, and read before what comes next', async () => {
  const { leg, owner, next } = await moved(async (each, { far }) => {
    each.pause();
    far.write(Buffer.from('before '));
    await eventually('it has come', () => each.held() > 0);
  });
  next.write(Buffer.from('after'));
  expect(owner.text()).toBe('');
  leg.resume();
  await eventually('all of it', () => owner.text() === 'before after');
  expect(leg.bytesRead()).toBe('before after'.length);
});

test('each end is told once, though both streams say it', async () => {
  const { leg, owner, next } = await moved(async (each, { far }) => {
    far.end();
    await eventually('the end', () => each.bytesRead() === 0 && far.hasSentEnd);
  });
  next.end();
  leg.end();
  await owner.until('finish');
  await owner.until('end');
  expect(owner.events.toSorted()).toEqual(['end', 'finish']);
  expect(leg.isOver).toBe(true);
});

test('an end that is wanted while there is no stream goes behind what waits', async () => {
  const { peer } = await moved(
    () => undefined,
    (each) => {
      each.write(Buffer.from('last words'));
      each.end();
    },
  );
  await peer.until('end');
  expect(peer.text()).toBe('last words');
});

test('what it has in hand can be taken out, and put into another', async () => {
  const first = await stream();
  const leg = new LastingLeg(first.near, { onAway: () => undefined });
  const owner = watch(leg);
  const held = leg.asHeldTunnel(ID, first.near);
  leg.freeze();
  first.far.write(Buffer.from('for the next'));
  await eventually('it has come', () => leg.bytesRead() > 0);
  held.halt(() => undefined);
  leg.write(Buffer.from('from the last'));
  held.settle({ isRetiring: true, sent: 0, received: 0 });
  const state = leg.takeState();
  expect(owner.events).toEqual([]);
  expect(owner.text()).toBe('');
  const other = new LastingLeg(state, { onAway: () => undefined });
  const next = await stream();
  const [peer, reader] = [watch(next.far), watch(other)];
  other.attach(next.near);
  await eventually('both ways', () => peer.text() === 'from the last' && reader.text() === 'for the next');
});

test('its end goes along with what it has in hand', async () => {
  const first = await stream();
  const leg = new LastingLeg(first.near, { onAway: () => undefined });
  const held = leg.asHeldTunnel(ID, first.near);
  held.halt(() => undefined);
  leg.write(Buffer.from('last words'));
  leg.end();
  held.settle({ isRetiring: true, sent: 0, received: 0 });
  const other = new LastingLeg(leg.takeState(), { onAway: () => undefined });
  const next = await stream();
  const peer = watch(next.far);
  other.attach(next.near);
  await peer.until('end');
  expect(peer.text()).toBe('last words');
});

test('one that does not come back is a reset', async () => {
  const first = await stream();
  const leg = new LastingLeg(first.near, { onAway: () => undefined });
  const owner = watch(leg);
  leg.asHeldTunnel(ID, first.near).settle({ isRetiring: false, sent: 0, received: 0 });
  leg.lose('nobody came for it');
  expect(owner.events).toEqual(['abort: nobody came for it']);
});
