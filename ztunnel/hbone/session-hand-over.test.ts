import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { digest, reader } from '#test/kit/digest.ts';
import { eventually } from '#test/kit/eventually.ts';
import { duplicate } from '../hand-over/descriptors.ts';
import { attachSocket } from './attach-socket.ts';
import type { Connection } from './connection.ts';
import { type ControlMessage, encodeControlMessage } from './control-messages.ts';
import type { DetachedSocket } from './detached-socket.ts';
import { newConnectionId } from './headers.ts';
import type { Leg } from './leg.ts';
import { CONTROL_FIELDS, type HeldTunnel, type Settled } from './session-hand-over.ts';
import { SocketLeg } from './socket-leg.ts';
import { type Side, type SpliceEnd, splice } from './splice.ts';
import type { TunnelStream } from './stream.ts';
import { type ConnectionPair, connectionPair, OK, request, socketPair } from './testing.ts';

const MIB = 1 << 20;

const sockets: Socket[] = [];
const pairs: ConnectionPair[] = [];
afterEach(() => {
  for (const { client, server } of pairs.splice(0)) {
    client.close('done');
    server.close('done');
  }
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** One end of a tunnel: an application's socket and a stream. */
class End {
  readonly tunnelSide: Side;
  end: SpliceEnd | undefined;
  settled: (Settled & { readonly socket: DetachedSocket }) | undefined;
  proceeded: string | undefined;
  halts = 0;
  aborted: string | undefined;
  stream: TunnelStream | undefined;
  #leg: Leg;

  constructor(leg: Leg, tunnelSide: Side) {
    this.#leg = leg;
    this.tunnelSide = tunnelSide;
  }

  carry(session: Connection, id: string, stream: TunnelStream): void {
    const legs: [Leg, Leg] = this.tunnelSide === 'upstream' ? [this.#leg, stream] : [stream, this.#leg];
    const joined = splice(...legs, (end) => {
      this.end = end;
    });
    this.stream = stream;
    const held: HeldTunnel = {
      id,
      stream,
      halt: (halted) => {
        this.halts += 1;
        joined.halt(this.tunnelSide);
        halted();
      },
      proceed: (why) => {
        this.proceeded = why;
        joined.proceed();
      },
      settle: (settled) => {
        joined.release();
        this.settled = { ...settled, socket: detach(this.#leg) };
      },
      abort: (reason) => {
        this.aborted = reason;
        joined.cut(reason);
      },
    };
    session.handOver.hold(held);
  }

  /** Goes on with another session. */
  resume(session: Connection, id: string, stream: TunnelStream): void {
    if (this.settled === undefined) throw new TypeError('it has not settled');
    this.#leg = attachSocket(this.settled.socket);
    this.settled = undefined;
    this.carry(session, id, stream);
  }
}

function detach(leg: Leg): DetachedSocket {
  if (!(leg instanceof SocketLeg))
    return { fd: undefined, hasEnded: true, hasFinished: true, unsent: Buffer.alloc(0) };
  const { descriptor } = leg;
  if (descriptor === undefined) throw new TypeError('it cannot be detached');
  return leg.detach(descriptor === 'closed' ? undefined : duplicate(descriptor));
}

/** Two applications, what carries bytes between them, and the session that it does so by. */
interface Bed {
  readonly id: string;
  readonly caller: Socket;
  readonly callee: Socket;
  readonly near: End;
  readonly far: End;
  readonly session: ConnectionPair;
}

async function session(settings: Parameters<typeof connectionPair>[1] = {}): Promise<{
  readonly pair: ConnectionPair;
  readonly accepted: TunnelStream[];
}> {
  const accepted: TunnelStream[] = [];
  const pair = await connectionPair((stream) => {
    pair.server.respond(stream, OK, false);
    accepted.push(stream);
  }, settings);
  pairs.push(pair);
  return { pair, accepted };
}

async function tunnel(
  { pair, accepted }: Awaited<ReturnType<typeof session>>,
  take: (near: TunnelStream, far: TunnelStream) => void,
): Promise<void> {
  const { stream, answer } = request(pair.client);
  await answer;
  const far = await eventually('the stream', () => accepted.find(({ id }) => id === stream.id));
  take(stream, far);
}

async function open(settings: Parameters<typeof connectionPair>[1] = {}): Promise<Bed> {
  const [a, b] = [await socketPair(), await socketPair()];
  sockets.push(a.near, a.far, b.near, b.far);
  for (const socket of [a.near, b.far]) socket.on('error', () => undefined);
  const opened = await session(settings);
  const id = newConnectionId();
  const near = new End(new SocketLeg(a.far), 'upstream');
  const far = new End(new SocketLeg(b.near), 'downstream');
  await tunnel(opened, (here, there) => {
    far.carry(opened.pair.server, id, there);
    near.carry(opened.pair.client, id, here);
  });
  await eventually('a control stream', () => opened.pair.server.handOver.isOpen);
  return { id, caller: a.near, callee: b.far, near, far, session: opened.pair };
}

/** Both ends have settled: they go on with a new session. */
async function resume({ id, near, far }: Bed): Promise<ConnectionPair> {
  await eventually('both at rest', () => near.settled !== undefined && far.settled !== undefined);
  const next = await session();
  await tunnel(next, (here, there) => {
    far.resume(next.pair.server, id, there);
    near.resume(next.pair.client, id, here);
  });
  await eventually('a control stream', () => next.pair.server.handOver.isOpen);
  return next.pair;
}

test.each(['client', 'server', 'both'] as const)(
  'in mid-flow, again and again, with the %s retiring, every byte arrives once',
  async (who) => {
    const bed = await open();
    const [up, down] = [randomBytes(24 * MIB), randomBytes(24 * MIB)];
    const [atCallee, atCaller] = [reader(bed.callee), reader(bed.caller)];
    // The end comes after the last hand-over, however fast the bytes are.
    bed.caller.write(up);
    bed.callee.write(down);
    let pair = bed.session;
    for (let time = 1; time <= 4; time++) {
      await eventually('some more bytes', () => atCallee.size() > time * 2 * MIB);
      const { client, server } = pair;
      const retired = [...(who === 'server' ? [] : [client]), ...(who === 'client' ? [] : [server])];
      const over = retired.map(({ handOver }) => handOver.retire());
      for (const each of retired) each.drain();
      const closed = pair.closed;
      pair = await resume(bed);
      await Promise.all(over);
      await eventually('the end of the old session', () => closed.length === 2);
    }
    bed.caller.end();
    bed.callee.end();
    expect(await atCallee.hash).toBe(digest(up));
    expect(await atCaller.hash).toBe(digest(down));
    await eventually(
      'a good end',
      () => bed.near.end?.kind === 'complete' && bed.far.end?.kind === 'complete',
    );
  },
);

test('what is announced before it is held comes to rest as soon as it is', async () => {
  const bed = await open();
  const { client, server } = bed.session;
  const { stream, answer } = request(client);
  await answer;
  const id = newConnectionId();
  const say = (...messages: readonly ControlMessage[]): void => {
    for (const message of messages) server.handOver.control?.write(encodeControlMessage(message));
  };
  say({ kind: 'announce', number: 1, ids: [id, bed.id] }, { kind: 'revert', id: bed.id });
  await eventually('both have been heard', () => bed.near.proceeded === 'reverted');
  let isHalted = false;
  const halt = (): void => {
    isHalted = true;
  };
  const ignore = (): void => undefined;
  client.handOver.hold({ id, stream, halt, proceed: ignore, settle: ignore, abort: ignore });
  expect(isHalted).toBe(true);
});

test('a peer that rests before the tunnel is held hands it over all the same', async () => {
  const bed = await open();
  const { client, server } = bed.session;
  const { stream, answer } = request(client);
  await answer;
  const id = newConnectionId();
  const say = (...messages: readonly ControlMessage[]): void => {
    for (const message of messages) server.handOver.control?.write(encodeControlMessage(message));
  };
  say({ kind: 'announce', number: 1, ids: [id, bed.id] }, { kind: 'rested', id, sent: 0, fin: false });
  say({ kind: 'revert', id: bed.id });
  await eventually('all has been heard', () => bed.near.proceeded === 'reverted');
  const said: string[] = [];
  const ignore = (): void => undefined;
  client.handOver.hold({
    id,
    stream,
    halt: (halted) => halted(),
    proceed: ignore,
    settle: () => said.push('settled'),
    abort: (reason) => said.push(reason),
  });
  say({ kind: 'commit', id });
  await eventually('it is decided', () => said.length > 0);
  expect(said).toEqual(['settled']);
});

test('a pause is no end, and an end before it stays one', async () => {
  const bed = await open();
  const ends: string[] = [];
  bed.callee.once('end', () => ends.push('callee'));
  bed.caller.once('end', () => ends.push('caller'));
  bed.callee.resume();
  const atCaller = reader(bed.caller);
  bed.caller.end('all that I say');
  await eventually('its end', () => ends.length === 1);
  void bed.session.server.handOver.retire();
  await resume(bed);
  bed.callee.write('still here');
  await eventually('the rest', () => atCaller.size() === 10);
  expect(ends).toEqual(['callee']);
  bed.callee.end();
  await atCaller.hash;
  expect(ends).toEqual(['callee', 'caller']);
});

test('what a reader that stands still has not taken is carried along', async () => {
  const bed = await open();
  const bytes = randomBytes(24 * MIB);
  bed.caller.end(bytes);
  const { near, far } = bed;
  await eventually('a full window', () => {
    const [sent, taken] = [near.stream?.bytesQueued ?? 0, far.stream?.bytesWaiting ?? 0];
    return sent > 0 && taken > 3 * MIB;
  });
  void bed.session.client.handOver.retire();
  await resume(bed);
  const atCallee = reader(bed.callee);
  expect(await atCallee.hash).toBe(digest(bytes));
});

test('a peer that does not come to rest in time keeps the tunnel, and no byte is lost', async () => {
  const bed = await open();
  const atCallee = reader(bed.callee);
  bed.session.serverSocket.pause();
  const over = bed.session.client.handOver.retire();
  bed.caller.write('while nobody looks');
  await over;
  expect(bed.near.proceeded).toBe('not_flushed');
  bed.session.serverSocket.resume();
  bed.caller.end(' and after');
  await atCallee.hash;
  expect(atCallee.size()).toBe('while nobody looks and after'.length);
  expect(bed.far.settled).toBeUndefined();
});

test('a peer that knows no hand-over keeps what it has', async () => {
  const { pair, accepted } = await session();
  const { stream, answer } = request(pair.client);
  await answer;
  const far = await eventually('the stream', () => accepted[0]);
  const { near: application, far: other } = await socketPair();
  application.on('error', () => undefined);
  sockets.push(application, other);
  const end = new End(new SocketLeg(other), 'downstream');
  end.carry(pair.server, newConnectionId(), far);
  await pair.server.handOver.retire();
  expect(end.proceeded).toBe('no_control');
  application.write('on it goes');
  stream.start({
    onData: (bytes) => expect(bytes.toString()).toBe('on it goes'),
    onEnd: () => undefined,
    onDrain: () => undefined,
    onFinish: () => undefined,
    onAbort: () => undefined,
  });
  await eventually('its bytes', () => stream.bytesRead() === 10);
  // What was given up has been counted as that.
  await foreignControl({ pair });
  expect([pair.server.handOver.isOpen, end.halts]).toEqual([true, 0]);
});

/** A session whose client speaks on the control stream whatever the test wants. */
async function foreignControl(bed: {
  readonly pair: ConnectionPair;
}): Promise<{ readonly control: TunnelStream; readonly isOver: () => boolean }> {
  const { stream, answer } = request(bed.pair.client, CONTROL_FIELDS);
  expect(await answer).toMatchObject({ kind: 'answered' });
  let isOver = false;
  stream.start({
    onData: () => undefined,
    onEnd: () => undefined,
    onDrain: () => undefined,
    onFinish: () => undefined,
    onAbort: () => {
      isOver = true;
    },
  });
  return { control: stream, isOver: () => isOver };
}

test('IDs that are not of the session are passed over, and what makes no sense ends the control stream alone', async () => {
  const opened = await session();
  const { control, isOver } = await foreignControl(opened);
  const { near: application, far: other } = await socketPair();
  application.on('error', () => undefined);
  sockets.push(application, other);
  const end = new End(new SocketLeg(other), 'downstream');
  await tunnel(opened, (_here, there) => end.carry(opened.pair.server, newConnectionId(), there));
  for (const kind of ['commit', 'revert'] as const)
    control.write(encodeControlMessage({ kind, id: newConnectionId() }));
  control.write(
    encodeControlMessage({ kind: 'announce', number: 1, ids: Array.from({ length: 200 }, newConnectionId) }),
  );
  control.write(Buffer.from('\x00\x00\x00\x02no'));
  await eventually('an end of the control stream', isOver);
  expect(end.end).toBeUndefined();
  expect(opened.pair.closed).toEqual([]);
});

test('too many messages end the control stream, and nothing else', async () => {
  const opened = await session();
  const { control, isOver } = await foreignControl(opened);
  const message = encodeControlMessage({ kind: 'announce', number: 1, ids: [] });
  for (let count = 0; count < 2_500; count++) control.write(message);
  await eventually('an end of the control stream', isOver);
  expect(opened.pair.closed).toEqual([]);
});

test('there is one control stream, and it alone does not keep a session', async () => {
  const bed = await open();
  const second = request(bed.session.client, CONTROL_FIELDS);
  const answer = await second.answer;
  expect(answer).toMatchObject({ kind: 'answered', fields: [[':status', '400']] });
  expect(bed.session.client.streamCount).toBe(1);
  bed.caller.end();
  bed.callee.end();
  bed.caller.resume();
  bed.callee.resume();
  await eventually('the end', () => bed.near.end?.kind === 'complete' && bed.far.end?.kind === 'complete');
  bed.session.server.drain();
  await eventually('the end of the session', () => bed.session.closed.length === 2);
});

test('a peer that says to have sent what did not come has its tunnel reset, and only that', async () => {
  const opened = await session();
  const { control } = await foreignControl(opened);
  const id = newConnectionId();
  const { near: application, far: other } = await socketPair();
  application.on('error', () => undefined);
  sockets.push(application, other);
  const end = new End(new SocketLeg(other), 'downstream');
  await tunnel(opened, (_here, there) => end.carry(opened.pair.server, id, there));
  control.write(encodeControlMessage({ kind: 'announce', number: 1, ids: [id] }));
  control.write(encodeControlMessage({ kind: 'rested', id, sent: 5, fin: false }));
  await eventually('a reset', () => end.aborted);
  expect(end.aborted).toBe('the peer has sent 5 bytes, and 0 came');
  expect(opened.pair.closed).toEqual([]);
});
