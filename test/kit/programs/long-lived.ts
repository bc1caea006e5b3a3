/**
 * Connections that live long. `node long-lived.ts serve PORT` is the server; `node long-lived.ts call HOST PORT FILE [IDLE]` keeps some of
 * each kind open, and more idle ones, writes what it has seen to FILE.live twice a second, and at SIGTERM ends them in good order and writes FILE.
 *
 *     bulk          echoes as fast as it goes, a few megabytes under way
 *     chatty        echoes 100 bytes, then the next
 *     idle          echoes for a moment, and ends when all do
 *     client-ended  the client has sent its FIN, and the server sends on
 *     server-ended  the server has sent its FIN, and the client sends on
 *
 * Each byte is known by its place, and both ends look at each: what is not as it has to be resets the connection.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import net, { type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const KINDS = { bulk: 1, chatty: 3, idle: 10, 'client-ended': 2, 'server-ended': 2 } as const;
type Kind = keyof typeof KINDS;

/** What was seen of the connections of one kind. */
interface Seen {
  connections: number;
  bytes: number;
  /** Between one piece and the next, on a connection that is waiting for it. */
  longestStallMs: number;
  errors: string[];
}

/** A length that no buffer is a multiple of. */
const PATTERN = Buffer.concat(
  Array.from({ length: 32_749 }, (_, at) => createHash('sha256').update(`${at}`).digest()),
);
const UNDER_WAY = 4 << 20;

/** The bytes from a place on. */
function bytesAt(place: number, count: number): Buffer {
  const from = place % PATTERN.length;
  return PATTERN.subarray(from, Math.min(from + count, PATTERN.length));
}

/** Looks at what comes; calls back with how much has come. What is wrong breaks the socket. */
function check(socket: Socket, onBytes: (total: number, now: number) => void): void {
  let place = 0;
  socket.on('data', (bytes: Buffer) => {
    for (let at = 0; at < bytes.length; ) {
      const wanted = bytesAt(place, bytes.length - at);
      if (!wanted.equals(bytes.subarray(at, at + wanted.length))) {
        socket.destroy(new Error(`byte ${place} or one after it is another`));
        return;
      }
      at += wanted.length;
      place += wanted.length;
    }
    onBytes(place, bytes.length);
  });
}

/** The first byte says the kind: its place in the list. */
function serve(port: number): void {
  net
    .createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on('error', () => socket.destroy());
      socket.once('readable', () => {
        const [at = 0] = (socket.read(1) as Buffer | null) ?? [];
        const kind = (Object.keys(KINDS) as Kind[])[at];
        if (kind === 'client-ended') socket.on('end', () => void pour(socket)).resume();
        else if (kind === 'server-ended') {
          check(socket, () => undefined);
          socket.end();
        } else socket.pipe(socket);
      });
    })
    .listen(port, '::');
}

/** Sends until it breaks, a little at a time. */
async function pour(socket: Socket): Promise<void> {
  for (let place = 0; !socket.destroyed; ) {
    const bytes = bytesAt(place, 1_000);
    socket.write(bytes);
    place += bytes.length;
    await delay(10);
  }
}

async function call(host: string, port: number, file: string, idle: number): Promise<void> {
  const seen = new Map<Kind, Seen>();
  const stop = new AbortController();
  process.once('SIGTERM', () => stop.abort());
  const write = (path: string): void => {
    writeFileSync(`${path}.new`, JSON.stringify(Object.fromEntries(seen)));
    renameSync(`${path}.new`, path);
  };
  const live = setInterval(() => write(`${file}.live`), 500);
  const all = (Object.keys(KINDS) as Kind[]).flatMap((kind, at) => {
    const one: Seen = { connections: 0, bytes: 0, longestStallMs: 0, errors: [] };
    seen.set(kind, one);
    return Array.from({ length: KINDS[kind] + (kind === 'idle' ? idle : 0) }, () =>
      keep(net.connect({ host, port, allowHalfOpen: true, noDelay: true }), kind, at, one),
    );
  });
  async function keep(socket: Socket, kind: Kind, at: number, one: Seen): Promise<void> {
    const fail = (error: unknown): void => {
      one.errors.push(`${error instanceof Error ? error.message : error}`);
    };
    socket.on('error', fail);
    try {
      await once(socket, 'connect');
      one.connections += 1;
      socket.write(Uint8Array.of(at));
      await WAYS[kind](socket, one, stop.signal);
    } catch (error) {
      fail(error);
    }
    socket.destroy();
  }
  await Promise.all(all);
  clearInterval(live);
  write(file);
}

type Way = (socket: Socket, seen: Seen, stop: AbortSignal) => Promise<void>;

const WAYS: Readonly<Record<Kind, Way>> = {
  bulk: (socket, seen, stop) => echo(socket, seen, stop, UNDER_WAY),
  chatty: (socket, seen, stop) => echo(socket, seen, stop, 100),
  idle: async (socket, seen, stop) => {
    await echo(socket, seen, AbortSignal.any([stop, AbortSignal.timeout(10)]), 100, false);
    await aborted(stop);
    await finish(socket);
  },
  'client-ended': async (socket, seen, stop) => {
    socket.end();
    watch(socket, seen);
    const ended = once(socket, 'end').then(() => 'the server has ended');
    const early = await Promise.race([ended, aborted(stop)]);
    if (early !== undefined) throw new Error(early);
  },
  'server-ended': async (socket, seen, stop) => {
    await once(socket.resume(), 'end');
    for (let place = 0; !stop.aborted; ) {
      const bytes = bytesAt(place, 1_000);
      if (!socket.write(bytes)) await once(socket, 'drain');
      place += bytes.length;
      seen.bytes += bytes.length;
      await delay(10);
    }
    socket.end();
    await once(socket, 'finish');
  },
};

/** Counts, and looks at the clock. */
function watch(socket: Socket, seen: Seen, onBytes: (total: number) => void = () => undefined): void {
  let last = performance.now();
  check(socket, (total, now) => {
    seen.bytes += now;
    seen.longestStallMs = Math.max(seen.longestStallMs, performance.now() - last);
    last = performance.now();
    onBytes(total);
  });
}

/** Sends what is to come back, so many bytes ahead, until it is to stop; then waits for all, and ends it. */
async function echo(
  socket: Socket,
  seen: Seen,
  stop: AbortSignal,
  ahead: number,
  isToEnd = true,
): Promise<void> {
  let sent = 0;
  const all = Promise.withResolvers<void>();
  socket.once('error', all.reject);
  socket.once('end', () => all.reject(new Error('the server has ended')));
  const send = (back: number): void => {
    while (!stop.aborted && sent - back < ahead) {
      const bytes = bytesAt(sent, Math.min(ahead - (sent - back), 64 << 10));
      socket.write(bytes);
      sent += bytes.length;
    }
    if (stop.aborted && back === sent) all.resolve();
  };
  watch(socket, seen, send);
  send(0);
  await all.promise;
  socket.removeAllListeners('end');
  if (isToEnd) await finish(socket);
}

/** The end of what is sent is answered by the end of what comes. */
async function finish(socket: Socket): Promise<void> {
  const ended = once(socket, 'end');
  socket.end();
  await ended;
}

async function aborted(signal: AbortSignal): Promise<undefined> {
  if (!signal.aborted) await once(signal, 'abort');
}

const [what = '', ...rest] = parseArgs({ allowPositionals: true }).positionals;
if (what === 'serve') serve(Number(rest[0]));
else await call(rest[0] ?? '', Number(rest[1]), rest[2] ?? '', Number(rest[3] ?? 0));
