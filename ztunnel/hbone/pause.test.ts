import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Rest } from './control-messages.ts';
import { OPEN, type PauseAction, type PauseEvent, type PauseState, stepPause } from './pause.ts';

/**
 * Two ends of one tunnel and what is on the way between them, in order. An application's bytes are counted only: what matters is
 * that both agree on how many there were, on whether they have ended, and on who has the connection.
 */
type OnTheWay =
  | { readonly kind: 'data' }
  | { readonly kind: 'end' }
  | { readonly kind: 'commit' | 'revert' }
  | { readonly kind: 'announced'; readonly number: number }
  | { readonly kind: 'rested'; readonly rest: Rest; readonly follows: number | undefined };

class End {
  state: PauseState = OPEN;
  isHalted = false;
  /** Written, and not yet on its way. */
  queued = 0;
  isEnding = false;
  sent: Rest = { sent: 0, fin: false };
  received: Rest = { sent: 0, fin: false };
  readonly outgoing: OnTheWay[] = [];
  outcome: 'settled' | 'broken' | undefined;
  announcements = 0;
  readonly isClient: boolean;

  constructor(isClient: boolean) {
    this.isClient = isClient;
  }

  step(event: PauseEvent): void {
    if (this.outcome !== undefined) return;
    const { state, actions } = stepPause(this.state, event, this.isClient);
    this.state = state;
    for (const action of actions) this.#do(action);
  }

  #do(action: PauseAction): void {
    switch (action.kind) {
      case 'announce':
        this.outgoing.push({ kind: 'announced', number: this.announcements });
        break;
      case 'halt':
        this.isHalted = true;
        break;
      case 'tell-rest':
        this.outgoing.push({ kind: 'rested', rest: action.rest, follows: action.follows });
        break;
      case 'tell-commit':
        this.outgoing.push({ kind: 'commit' });
        this.step({ kind: 'sent' });
        break;
      case 'tell-revert':
        this.outgoing.push({ kind: 'revert' });
        break;
      case 'proceed':
        this.isHalted = false;
        break;
      case 'settle':
        this.outcome = 'settled';
        break;
      case 'abort':
        this.outcome = 'broken';
    }
  }

  retire(): void {
    this.announcements += 1;
    this.step({ kind: 'retire', number: this.announcements });
  }

  /** Unless it has said that it rests, and waits for the other: that one decides before. */
  late(): void {
    const { state } = this;
    if (state.kind === 'pausing' && (state.follows === undefined || state.own === undefined))
      this.step({ kind: 'late' });
  }

  /** The application writes, unless nobody reads. */
  write(): void {
    if (!this.isHalted && !this.isEnding && this.outcome === undefined) this.queued += 1;
  }

  end(): void {
    if (!this.isHalted && this.outcome === undefined) this.isEnding = true;
  }

  /** Sends one of what is queued, or the end; tells when that was all. */
  flush(): void {
    if (this.outcome !== undefined) return;
    if (this.queued > 0) {
      this.queued -= 1;
      this.sent = { ...this.sent, sent: this.sent.sent + 1 };
      this.outgoing.push({ kind: 'data' });
    } else if (this.isEnding && !this.sent.fin) {
      this.sent = { ...this.sent, fin: true };
      this.outgoing.push({ kind: 'end' });
    } else if (this.isHalted && this.state.kind === 'pausing' && this.state.own === undefined) {
      this.step({ kind: 'rested', rest: this.sent });
    }
  }

  take(item: OnTheWay | undefined): void {
    if (item === undefined || this.outcome === 'broken') return;
    if (item.kind === 'data' || item.kind === 'end') {
      // Nothing may come once it was said that nothing will.
      expect(this.outcome).toBeUndefined();
      const { sent, fin } = this.received;
      expect(fin).toBe(false);
      this.received = item.kind === 'data' ? { sent: sent + 1, fin } : { sent, fin: true };
    } else if (item.kind === 'rested') {
      const { rest, follows } = item;
      this.step({ kind: 'peer-rested', rest, follows, received: this.received });
    } else this.step(item);
  }
}

type Move = 'write' | 'end' | 'flush' | 'take' | 'retire' | 'late';
const moves = fc.array(
  fc.record({
    who: fc.boolean(),
    what: fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom<Move>('write', 'flush', 'take') },
      { weight: 1, arbitrary: fc.constantFrom<Move>('end', 'retire', 'late') },
    ),
  }),
  { maxLength: 120 },
);

function move(end: End, other: End, what: Move): void {
  if (what === 'write') end.write();
  else if (what === 'end') end.end();
  else if (what === 'flush') end.flush();
  else if (what === 'take') end.take(other.outgoing.shift());
  else if (what === 'retire') end.retire();
  else end.late();
}

/** Lets everything that is under way come to its end, and then be late. */
function settle(client: End, server: End): void {
  for (const what of ['flush', 'late', 'flush'] as const) {
    for (let round = 0; round < 300; round++) {
      for (const [end, other] of [
        [client, server],
        [server, client],
      ] as const) {
        move(end, other, what);
        end.take(other.outgoing.shift());
      }
    }
  }
}

test('in any order of events both ends agree: handed over at rest with nothing lost, or going on', () => {
  let handedOver = 0;
  fc.assert(
    fc.property(moves, (all) => {
      const client = new End(true);
      const server = new End(false);
      for (const { who, what } of all) move(who ? client : server, who ? server : client, what);
      settle(client, server);
      expect(client.outcome).toBe(server.outcome);
      expect(client.outcome).not.toBe('broken');
      expect(client.received).toEqual(server.sent);
      expect(server.received).toEqual(client.sent);
      if (client.outcome === 'settled') handedOver += 1;
      else expect([client.state.kind, server.state.kind]).toEqual(['open', 'open']);
    }),
    { numRuns: 2_000 },
  );
  expect(handedOver).toBeGreaterThan(100);
});

test('of two that announce it, who has given up before it heard of the other one is not taken at its word', () => {
  const client = new End(true);
  const server = new End(false);
  server.retire();
  server.flush();
  server.late();
  client.retire();
  client.flush();
  server.write();
  while (server.outgoing.length > 0) client.take(server.outgoing.shift());
  expect(client.state.kind).toBe('pausing');
  settle(client, server);
  expect([client.outcome, server.outcome]).toEqual(['settled', 'settled']);
  expect(client.received).toEqual({ sent: 1, fin: false });
});

test('what rests and hears no decision is reset, since the other end may have it', () => {
  const { state } = stepPause(OPEN, { kind: 'announced', number: 1 }, true);
  const rested = stepPause(state, { kind: 'rested', rest: { sent: 1, fin: false } }, true);
  expect(stepPause(rested.state, { kind: 'late' }, true).actions).toMatchObject([{ kind: 'abort' }]);
  expect(stepPause(rested.state, { kind: 'lost' }, true).actions).toMatchObject([{ kind: 'abort' }]);
});

test('what does not come to rest in time goes on where it is', () => {
  const retiring = stepPause(OPEN, { kind: 'retire', number: 1 }, false);
  expect(stepPause(retiring.state, { kind: 'late' }, false)).toEqual({
    state: OPEN,
    actions: [{ kind: 'tell-revert' }, { kind: 'proceed', why: 'not_flushed' }],
  });
});

test.each([
  { what: 'fewer bytes than it says', received: { sent: 9, fin: false } },
  { what: 'more', received: { sent: 11, fin: false } },
  { what: 'an end that it does not know of', received: { sent: 10, fin: true } },
])('a peer of which came $what is not believed', ({ received }) => {
  const { state } = stepPause(OPEN, { kind: 'retire', number: 1 }, true);
  const rest = { sent: 10, fin: false };
  expect(stepPause(state, { kind: 'peer-rested', rest, follows: 1, received }, true).actions).toMatchObject([
    { kind: 'abort' },
  ]);
});

test.each<{ readonly when: string; readonly state: PauseState }>([
  { when: 'nothing rests', state: OPEN },
  { when: 'this end does not rest', state: stepPause(OPEN, { kind: 'announced', number: 1 }, true).state },
  { when: 'this end decides', state: stepPause(OPEN, { kind: 'retire', number: 1 }, true).state },
])('a peer cannot have a tunnel handed over while $when', ({ state }) => {
  expect(stepPause(state, { kind: 'commit' }, true).actions).toMatchObject([{ kind: 'abort' }]);
});
