import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseIdentity } from '#certs/identity.ts';
import { eventually } from '#test/kit/eventually.ts';
import { CONNECTION_ID_HEADER } from '#ztunnel/hbone/headers.ts';
import type { OpenTunnel } from '#ztunnel/hbone/pool.ts';
import { type Splice, splice } from '#ztunnel/hbone/splice.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import {
  CONNECT,
  type ConnectionPair,
  connectionPair,
  request,
  type Watched,
  watch,
} from '#ztunnel/hbone/testing.ts';
import type { CarriedRelay, CarriedTunnel, CarriedUse, TunnelWay } from './carried-tunnel.ts';
import { ClientTunnel } from './client-tunnel.ts';
import { HandOver } from './hand-over.ts';
import { LastingLeg } from './lasting-leg.ts';
import type { ServerTunnel } from './server-tunnel.ts';

/** A waypoint between two ztunnels, whose ends are legs like its own; each session is a TCP connection. */

const ID = 'ab'.repeat(16);
const UPSTREAM_ID = 'cd'.repeat(16);
const CLAIMANT = 'spiffe://cluster.local/ns/shop/sa/web 10.1.0.1 10.96.0.1:80';
const WAY: TunnelWay = {
  hop: { ip: '10.1.0.2', port: 15_008 },
  identity: parseIdentity('spiffe://cluster.local/ns/pay/sa/ledger'),
  timeoutMs: 1_000,
  fields: CONNECT,
};
const PLACE = {
  caller: {
    identity: parseIdentity('spiffe://cluster.local/ns/shop/sa/web'),
    address: { ip: '10.1.0.1', port: 4000 },
    baggage: {},
    traceparent: undefined,
    connectionId: ID,
  },
  authority: { ip: '10.96.0.1', port: 80 },
  frontend: 'ledger',
};

/** One tunnel on a session of its own, between its client and its server. */
interface Hop {
  readonly pair: ConnectionPair;
  readonly client: OpenTunnel;
  readonly server: TunnelStream;
}

let handOver: HandOver;
let pairs: ConnectionPair[];
let sent: CarriedTunnel[];
let reopen: PromiseWithResolvers<OpenTunnel>;
/** The destination was asked for its end again. */
let isReopening: boolean;

beforeEach(() => {
  handOver = new HandOver();
  [pairs, sent, reopen, isReopening] = [[], [], Promise.withResolvers(), false];
});
afterEach(() => {
  handOver.close();
  for (const { client, server } of pairs) {
    client.close('done');
    server.close('done');
  }
});

async function hop(id: string): Promise<Hop> {
  const fields = [
    [':status', '200'],
    [CONNECTION_ID_HEADER, id],
  ] as const;
  const streams: TunnelStream[] = [];
  const pair = await connectionPair((each) => {
    streams.push(each);
    pair.server.respond(each, fields, false);
  });
  pairs.push(pair);
  const { stream, answer } = request(pair.client);
  await answer;
  const [server] = streams;
  if (server === undefined) throw new Error('there is no request');
  return { pair, client: { connection: pair.client, stream, fields }, server };
}

/** The ztunnel's end of a tunnel. */
function far(
  { pair, client, server }: Hop,
  id: string,
  side: 'client' | 'server',
): { readonly leg: LastingLeg; readonly seen: Watched; readonly isAway: () => boolean } {
  let isAway = false;
  const stream = side === 'client' ? client.stream : server;
  const leg = new LastingLeg(stream, {
    onAway: () => {
      isAway = true;
    },
  });
  const seen = watch(leg);
  pair[side].handOver.hold(leg.asHeldTunnel(id, stream));
  return { leg, seen, isAway: () => isAway };
}

/** A connection through the waypoint, and both of its far ends. */
async function relay(): Promise<{
  readonly down: Hop;
  readonly up: Hop;
  readonly caller: ReturnType<typeof far>;
  readonly application: ReturnType<typeof far>;
  readonly tunnel: ServerTunnel;
}> {
  const [down, up] = [await hop(ID), await hop(UPSTREAM_ID)];
  const tunnel = handOver.accept(down.pair.server, down.server, ID, CLAIMANT);
  const client = new ClientTunnel(up.client, {
    id: UPSTREAM_ID,
    way: WAY,
    reopen: () => {
      isReopening = true;
      return reopen.promise;
    },
    onResumed: () => undefined,
  });
  const joined: Splice = splice(tunnel.leg, client.leg, () => undefined);
  tunnel.carrier = {
    isReady: () => !client.leg.isOver,
    upstream: client,
    describe: () => {
      const record = {} as CarriedRelay['record'];
      const carried = { id: UPSTREAM_ID, way: WAY, record, upstream: client.leg.takeState() };
      const use: CarriedUse = { kind: 'relay', relay: carried };
      return { ...PLACE, use };
    },
    leave: () => joined.release(),
  };
  const [caller, application] = [far(down, ID, 'client'), far(up, UPSTREAM_ID, 'server')];
  await eventually('control', () => [down, up].every(({ pair }) => pair.server.handOver.isOpen));
  return { down, up, caller, application, tunnel };
}

/** The waypoint goes away. */
function retire(): void {
  handOver.retire({
    isThere: () => true,
    finish: async () => undefined,
    send: (tunnel) => sent.push(tunnel),
  });
}

function upstreamOf(tunnel: CarriedTunnel | undefined): CarriedRelay['upstream'] {
  if (tunnel?.use.kind !== 'relay') throw new Error('it is no relay');
  return tunnel.use.relay.upstream;
}

test('what waits for its caller goes to the next waypoint, with all that has come meanwhile', async () => {
  const { down, caller, application, tunnel } = await relay();
  void down.pair.client.handOver.retire();
  await eventually('the caller’s end has gone', () => caller.isAway() && tunnel.leg.stream === undefined);
  application.leg.write(Buffer.from('to nobody'));
  await eventually('it has come', () => tunnel.leg.held() > 0);
  retire();
  await eventually('it goes', () => sent.length === 1 && application.isAway());
  const [carried] = sent;
  expect(carried?.downstream.pending.toString()).toBe('to nobody');
  expect(upstreamOf(carried).early.toString()).toBe('');
  expect(await handOver.claim(ID, CLAIMANT)).toEqual({ kind: 'moved' });
  expect(handOver.counts).toEqual(new Map([['tunnel handed_over', 1]]));
});

test('what waits for its destination goes when that is back', async () => {
  const { up, caller, tunnel } = await relay();
  void up.pair.server.handOver.retire();
  await eventually('the application’s end has gone', () => isReopening);
  retire();
  caller.leg.write(Buffer.from('to nobody'));
  await eventually('it has come', () => tunnel.leg.bytesRead() > 0);
  const next = await hop(UPSTREAM_ID);
  const again = far(next, UPSTREAM_ID, 'server');
  expect(sent).toEqual([]);
  reopen.resolve(next.client);
  await eventually('it goes', () => sent.length === 1 && again.isAway() && caller.isAway());
  const [carried] = sent;
  const bytes = [upstreamOf(carried).pending, carried?.downstream.early, again.seen.text()];
  expect(bytes.map(String).join('')).toBe('to nobody');
});

test('what waits for both goes as well', async () => {
  const { down, up, caller } = await relay();
  void up.pair.server.handOver.retire();
  void down.pair.client.handOver.retire();
  await eventually('both have gone', () => isReopening && caller.isAway());
  retire();
  const next = await hop(UPSTREAM_ID);
  const again = far(next, UPSTREAM_ID, 'server');
  reopen.resolve(next.client);
  await eventually('it goes', () => sent.length === 1 && again.isAway());
});

test('a request whose caller is away can be had until it is answered, and goes with its answer', async () => {
  const down = await hop(ID);
  const tunnel = handOver.accept(down.pair.server, down.server, ID, CLAIMANT);
  let isIdle = false;
  tunnel.carrier = {
    isReady: () => isIdle,
    describe: () => ({ ...PLACE, use: { kind: 'http1' } }),
    leave: () => undefined,
  };
  const caller = far(down, ID, 'client');
  await eventually('control', () => down.pair.server.handOver.isOpen);
  void down.pair.client.handOver.retire();
  await eventually('the caller’s end has gone', () => caller.isAway() && tunnel.leg.stream === undefined);
  retire();
  expect(sent).toEqual([]);
  expect(handOver.mayOutlive(tunnel)).toBe(true);
  const claim = await handOver.claim(ID, CLAIMANT);
  expect(claim).toEqual({ kind: 'claimed', connection: tunnel });
  handOver.putBack(tunnel);
  expect(tunnel.leg.write(Buffer.from('HTTP/1.1 200 OK\r\n\r\n'))).toBe(true);
  isIdle = true;
  tunnel.noteReady();
  expect(sent.map(({ downstream }) => downstream.pending.toString())).toEqual(['HTTP/1.1 200 OK\r\n\r\n']);
});

test('an application’s end that has left comes back when the caller’s does not leave', async () => {
  const { down, caller, application } = await relay();
  down.pair.client.handOver.forget(down.client.stream);
  retire();
  await eventually('the application’s end has gone', application.isAway);
  const next = await hop(UPSTREAM_ID);
  const again = far(next, UPSTREAM_ID, 'server');
  caller.leg.write(Buffer.from('still here'));
  reopen.resolve(next.client);
  await eventually('it goes on', () => again.seen.text() === 'still here');
  expect(sent).toEqual([]);
  expect(handOver.counts).toEqual(new Map([['tunnel drained_downstream_stays', 1]]));
});

test('what is opened while the waypoint goes away goes, too', async () => {
  retire();
  const { caller, application } = await relay();
  await eventually('it goes', () => sent.length === 1 && caller.isAway() && application.isAway());
});

test('what has begun to leave its destination’s ztunnel goes without coming back', async () => {
  const { up, caller, application } = await relay();
  void up.pair.server.handOver.retire();
  retire();
  await eventually('it goes', () => sent.length === 1 && caller.isAway() && application.isAway());
  expect(isReopening).toBe(false);
});
