import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import process from 'node:process';
import type { HostPort } from '#api/address.ts';
import type { Svid } from '#certs/svid.ts';
import { answeredTunnel, openHostileSession } from '#test/kit/hostile-session.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';

/** What a noisy pod's clients do: bulk, or connections that are as short as can be, as many as they get. */
export type NoiseKind = 'bulk in tunnels' | 'bulk in plain text' | 'new tunnels' | 'new connections';

/** First its application's address is told; then it is started, as often as wanted. */
export type NoiseOrder =
  | { readonly kind: 'listen'; readonly ip: string }
  | {
      readonly kind: 'begin';
      readonly noise: NoiseKind;
      readonly hbone: HostPort;
      readonly plain: HostPort;
      readonly application: HostPort;
      readonly svid: Svid;
      /** New connections a second that are wanted, and connections of bulk. */
      readonly perSecond: number;
      readonly connections: number;
    }
  | { readonly kind: 'end' };

export type NoiseReport =
  | { readonly kind: 'listening'; readonly port: number }
  | { readonly kind: 'begun' }
  | { readonly kind: 'ended'; readonly bytes: number; readonly opened: number; readonly failed: number };

const PIECE = Buffer.alloc(64 * 1024, 'n');
let isOn = false;
/** Connections are over when a byte has come. */
let isShort = false;
let counts = { bytes: 0, opened: 0, failed: 0 };
let sessions: Connection[] = [];
let sockets = new Set<Socket>();

function say(report: NoiseReport): void {
  process.send?.(report);
}

async function listen(ip: string): Promise<void> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => {
      counts.bytes += bytes.length;
    });
    // Who ends first keeps the port for a minute: not the ztunnel, whose ports are few for one destination.
    if (isShort) socket.once('data', () => socket.end());
    else socket.on('end', () => socket.end());
  });
  server.listen({ host: ip, port: 0, backlog: 4096 });
  await once(server, 'listening');
  say({ kind: 'listening', port: (server.address() as { readonly port: number }).port });
}

type Begin = Extract<NoiseOrder, { readonly kind: 'begin' }>;

async function begin(order: Begin): Promise<void> {
  isOn = true;
  counts = { bytes: 0, opened: 0, failed: 0 };
  const { noise, connections } = order;
  isShort = noise.startsWith('new');
  if (noise.endsWith('tunnels')) {
    sessions = await Promise.all(
      Array.from({ length: 8 }, () => openHostileSession(order.hbone, order.svid)),
    );
  }
  if (noise === 'bulk in plain text') for (let index = 0; index < connections; index++) pour(plain(order));
  else if (noise === 'bulk in tunnels') {
    for (let index = 0; index < connections; index++) await pourTunnel(order, index);
  } else churn(order);
  say({ kind: 'begun' });
}

function plain({ plain: { ip, port } }: Begin): Socket {
  const socket = connect({ host: ip, port, noDelay: true });
  sockets.add(socket);
  socket.on('error', () => {
    counts.failed += 1;
  });
  socket.on('close', () => sockets.delete(socket));
  counts.opened += 1;
  return socket;
}

function pour(socket: Socket): void {
  const write = (): void => {
    while (isOn && !socket.destroyed && socket.write(PIECE));
  };
  socket.on('connect', write);
  socket.on('drain', write);
}

async function pourTunnel({ application }: Begin, index: number): Promise<void> {
  const session = sessions[index % sessions.length];
  if (session === undefined) return;
  const stream = await answeredTunnel(session, `${application.ip}:${application.port}`);
  counts.opened += 1;
  const write = (): void => {
    while (isOn && stream.write(PIECE));
  };
  start(stream, write);
  write();
}

function start(stream: TunnelStream, onDrain: () => void, onEnd: () => void = () => undefined): void {
  stream.start({
    onData: () => undefined,
    onEnd,
    onDrain,
    onFinish: () => undefined,
    onAbort: () => undefined,
  });
}

/** So many a second as are wanted, or as few as it gets: no more than 200 wait at a time. */
function churn(order: Begin): void {
  const startedAt = performance.now();
  let begun = 0;
  let underWay = 0;
  const tick = (): void => {
    if (!isOn) return;
    const due = ((performance.now() - startedAt) / 1000) * order.perSecond;
    for (; begun < due && underWay < 200; begun++) {
      underWay += 1;
      const done = (): void => {
        underWay -= 1;
      };
      if (order.noise === 'new connections') plain(order).once('close', done).once('connect', touch);
      else void tunnel(order, begun).then(done);
    }
    if (underWay >= 200) begun = Math.max(begun, Math.floor(due));
    setTimeout(tick, 1);
  };
  tick();
}

function touch(this: Socket): void {
  this.write('x');
  this.resume();
}

async function tunnel({ application }: Begin, index: number): Promise<void> {
  const session = sessions[index % sessions.length];
  if (session === undefined) return;
  try {
    const stream = await answeredTunnel(session, `${application.ip}:${application.port}`);
    const { promise, resolve } = Promise.withResolvers<void>();
    const onEnd = (): void => {
      stream.end();
      resolve();
    };
    start(stream, () => undefined, onEnd);
    stream.write(Buffer.from('x'));
    counts.opened += 1;
    await promise;
  } catch {
    counts.failed += 1;
  }
}

function end(): void {
  isOn = false;
  for (const session of sessions) session.close('done');
  for (const socket of sockets) socket.destroy();
  sessions = [];
  sockets = new Set();
  say({ kind: 'ended', ...counts });
}

process.on('message', (order: NoiseOrder) => {
  if (order.kind === 'listen') void listen(order.ip);
  else if (order.kind === 'begin') void begin(order);
  else end();
});
process.on('disconnect', () => process.exit());
