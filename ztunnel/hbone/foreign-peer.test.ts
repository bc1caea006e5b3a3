import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createServer,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { Connection } from './connection.ts';
import type { TunnelStream } from './stream.ts';
import { CONNECT, OK, request, SETTINGS, socketPair, watch } from './testing.ts';

/** Our connection against node:http2, which is nghttp2: an implementation that others wrote. */

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** Our server; node:http2 as client. */
async function foreignClient(
  onRequest: (connection: Connection, stream: TunnelStream) => void,
  settings = {},
): Promise<{
  readonly session: ClientHttp2Session;
  readonly connection: Connection;
  readonly closed: string[];
}> {
  const { near, far } = await socketPair();
  const closed: string[] = [];
  const connection: Connection = new Connection(far, {
    settings: SETTINGS,
    onRequest: (stream) => onRequest(connection, stream),
    onClose: (reason) => closed.push(reason),
  });
  const session = connect('http://peer', { createConnection: () => near, settings });
  session.on('error', () => undefined);
  closers.push(() => session.destroy());
  await once(session, 'remoteSettings');
  return { session, connection, closed };
}

/** Our client; node:http2 as server. */
async function foreignServer(
  onStream: (stream: ServerHttp2Stream) => void,
): Promise<{ readonly client: Connection; readonly session: ServerHttp2Session; readonly closed: string[] }> {
  const server: Http2Server = createServer();
  server.on('stream', onStream);
  const { near, far } = await socketPair();
  const opened = once(server, 'session');
  server.emit('connection', far);
  const closed: string[] = [];
  const client = new Connection(near, { settings: SETTINGS, onClose: (reason) => closed.push(reason) });
  const [session] = (await opened) as [ServerHttp2Session];
  session.on('error', () => undefined);
  closers.push(() => session.destroy());
  return { client, session, closed };
}

function open(session: ClientHttp2Session): ClientHttp2Stream {
  const stream = session.request({ ':method': 'CONNECT', ':authority': '10.0.0.1:80' }, { endStream: false });
  stream.on('error', () => undefined);
  return stream;
}

test('our server announces what a stock server does', async () => {
  const { session } = await foreignClient(() => undefined);
  expect(session.remoteSettings).toMatchObject({
    initialWindowSize: 4_194_304,
    maxFrameSize: 1_048_576,
    maxConcurrentStreams: 200,
    maxHeaderListSize: 65_536,
  });
  await eventually('the window of the connection', () => session.state.remoteWindowSize === 16_777_216);
});

test('our client announces what a stock client does', async () => {
  const { session } = await foreignServer(() => undefined);
  await once(session, 'remoteSettings');
  expect(session.remoteSettings).toMatchObject({
    enablePush: false,
    initialWindowSize: 4_194_304,
    maxFrameSize: 1_048_576,
    maxHeaderListSize: 16_384,
  });
  await eventually('the window of the connection', () => session.state.remoteWindowSize === 16_777_216);
});

test('a foreign client gets an answer and an echo, each direction ending by itself', async () => {
  const { session } = await foreignClient((connection, stream) => {
    connection.respond(stream, [...OK, ['baggage', 'k8s.cluster.name=Kubernetes']], false);
    stream.start({
      onData: (bytes) => void stream.write(bytes),
      onEnd: () => {
        stream.write(Buffer.from('and after your end'));
        stream.end();
      },
      onDrain: () => undefined,
      onFinish: () => undefined,
      onAbort: () => undefined,
    });
  });
  const stream = open(session);
  const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
  expect(headers).toMatchObject({ ':status': 200, baggage: 'k8s.cluster.name=Kubernetes' });
  let text = '';
  stream.setEncoding('latin1').on('data', (piece: string) => {
    text += piece;
  });
  stream.write('hello, ');
  stream.end();
  await once(stream, 'close');
  expect(text).toBe('hello, and after your end');
  expect(stream.rstCode).toBe(constants.NGHTTP2_NO_ERROR);
});

test('our client gets an answer and an echo of a foreign server', async () => {
  const { client } = await foreignServer((stream) => {
    stream.respond({ ':status': 200, baggage: 'x' });
    stream.pipe(stream);
  });
  const { stream, answer } = request(client, [...CONNECT, ['baggage', 'ä'.repeat(300)]]);
  expect(await answer).toMatchObject({ kind: 'answered', endStream: false });
  const watched = watch(stream);
  stream.write(Buffer.from('echo'));
  stream.end();
  await watched.until('end');
  expect(watched.text()).toBe('echo');
  expect(watched.events.toSorted()).toEqual(['end', 'finish']);
  expect(client.streamCount).toBe(0);
});

test.each([
  { size: 'a byte at a time', chunk: 1, total: 5_000 },
  { size: 'in pieces of 100,000 bytes', chunk: 100_000, total: 30_000_000 },
])(
  'bytes are the same at the far end and back, $size, through windows that fill many times',
  async ({ chunk, total }) => {
    const { client } = await foreignServer((stream) => {
      stream.respond({ ':status': 200 });
      stream.pipe(stream);
    });
    const { stream, answer } = request(client);
    await answer;
    let received = 0;
    let isSame = true;
    const watched = watch(stream, (bytes) => {
      for (let at = 0; at < bytes.length; at += 997) {
        if (bytes[at] !== (received + at) % 251) isSame = false;
      }
      received += bytes.length;
    });
    for (let sent = 0; sent < total; sent += chunk) {
      const piece = Buffer.alloc(Math.min(chunk, total - sent));
      for (let at = 0; at < piece.length; at++) piece[at] = (sent + at) % 251;
      if (!stream.write(piece)) await watched.until('drain').finally(() => watched.events.splice(0));
    }
    stream.end();
    await watched.until('end');
    expect({ received, isSame }).toEqual({ received: total, isSame: true });
  },
);

test('a foreign client has 200 streams at a time, and another for each that ends', async () => {
  const { session, connection } = await foreignClient((server, stream) => server.respond(stream, OK, false));
  const streams = Array.from({ length: 200 }, () => open(session));
  await Promise.all(streams.map((stream) => once(stream, 'response')));
  expect(connection.streamCount).toBe(200);
  const [first] = streams;
  first?.close(constants.NGHTTP2_CANCEL);
  const next = open(session);
  await once(next, 'response');
  expect(connection.streamCount).toBe(200);
});

test.each([
  { code: 'CANCEL', number: constants.NGHTTP2_CANCEL },
  { code: 'NO_ERROR', number: constants.NGHTTP2_NO_ERROR },
])(
  "RST_STREAM with $code after the end, a stock ztunnel's way to stop, leaves it an end",
  async ({ number }) => {
    const { client } = await foreignServer((stream) => {
      stream.on('error', () => undefined);
      stream.respond({ ':status': 200 });
      stream.write('last words', () => stream.close(number));
    });
    const { stream, answer } = request(client);
    await answer;
    const watched = watch(stream);
    await watched.until('end');
    expect(watched.text()).toBe('last words');
    expect(watched.events).toEqual(['end']);
    stream.write(Buffer.from('nobody will have this'));
    await watched.until('abort: the peer takes no more data');
  },
);

test.each([
  { code: 'CONNECT_ERROR', number: constants.NGHTTP2_CONNECT_ERROR },
  { code: 'INTERNAL_ERROR', number: constants.NGHTTP2_INTERNAL_ERROR },
])('RST_STREAM with $code is no end', async ({ code, number }) => {
  const { client } = await foreignServer((stream) => {
    stream.on('error', () => undefined);
    stream.respond({ ':status': 200 });
    stream.write('half a ', () => stream.close(number));
  });
  const { stream, answer } = request(client);
  await answer;
  const watched = watch(stream);
  await watched.until('abort');
  expect(watched.events).toEqual([`abort: stream reset by the peer: ${code}`]);
});

test('an abort of ours is CONNECT_ERROR to a foreign peer', async () => {
  const { session } = await foreignClient((connection, stream) => {
    connection.respond(stream, OK, false);
    stream.start({
      onData: () => stream.abort(),
      onEnd: () => undefined,
      onDrain: () => undefined,
      onFinish: () => undefined,
      onAbort: () => undefined,
    });
  });
  const stream = open(session);
  stream.write('x');
  await eventually('the stream is closed', () => stream.closed);
  expect(stream.rstCode).toBe(constants.NGHTTP2_CONNECT_ERROR);
});

test('a refusal is a status that ends the stream, without an error', async () => {
  const { session, connection } = await foreignClient((server, stream) =>
    server.respond(stream, [[':status', '401']], true),
  );
  const stream = open(session);
  const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
  expect(headers[':status']).toBe(401);
  stream.resume();
  await once(stream, 'close');
  expect(stream.rstCode).toBe(0);
  expect(connection.streamCount).toBe(0);
});

test('a lost session is no end, for streams in use, and a failed answer for others', async () => {
  const { client, session } = await foreignServer((stream) => {
    stream.on('error', () => undefined);
    if (stream.id === 1) stream.respond({ ':status': 200 });
  });
  const used = request(client);
  await used.answer;
  const watched = watch(used.stream);
  const unanswered = request(client);
  session.socket.destroy();
  await watched.until('abort: session lost');
  expect(await unanswered.answer).toMatchObject({ kind: 'failed', isRetryable: true });
});

test('after a GOAWAY streams in flight finish, new ones are not looked at, and the session closes', async () => {
  const { client, session, closed } = await foreignServer((stream) => {
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  const { stream, answer } = request(client);
  await answer;
  const watched = watch(stream);
  session.close();
  await eventually('the client has seen it', () => !client.isOpen);
  stream.write(Buffer.from('still here'));
  stream.end();
  await watched.until('end');
  expect(watched.text()).toBe('still here');
  await eventually('the session is closed', () => closed.length > 0);
});

test('a drain of our server: what is in flight finishes, what comes at the same moment is answered, then it closes', async () => {
  const { session, connection, closed } = await foreignClient((server, stream) => {
    server.respond(stream, OK, false);
    const { events } = watch(stream, (bytes) => void stream.write(bytes));
    void eventually('its end', () => events.includes('end')).then(() => stream.end());
  });
  const before = open(session);
  await once(before, 'response');
  connection.drain();
  const during = open(session);
  await once(during, 'response');
  for (const stream of [before, during]) stream.resume().end('bye');
  await Promise.all([once(before, 'close'), once(during, 'close')]);
  expect([before.rstCode, during.rstCode]).toEqual([0, 0]);
  await eventually('the session is closed', () => closed.length > 0);
  expect(closed).toEqual(['drained']);
});

test('PING is answered', async () => {
  const { session } = await foreignClient(() => undefined);
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  session.ping(Buffer.from('12345678'), (_error, _duration, payload) => resolve(payload));
  expect((await promise).toString()).toBe('12345678');
});

test('an end that is followed by an abort at once is a reset and nothing after it', async () => {
  const { client, session } = await foreignServer((stream) => {
    stream.on('error', () => undefined);
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  const first = request(client);
  await first.answer;
  watch(first.stream);
  first.stream.end();
  first.stream.abort();
  const second = request(client);
  await second.answer;
  const watched = watch(second.stream);
  second.stream.end(); // the session is still good
  await watched.until('end');
  expect(session.destroyed).toBe(false);
});

test('an answer goes before its data, also where there is room for the data only', async () => {
  const streams: TunnelStream[] = [];
  const { session, connection } = await foreignClient((_server, stream) => streams.push(stream), {
    initialWindowSize: 4_194_304,
    maxFrameSize: 1_048_576,
  });
  session.setLocalWindowSize(16_777_216);
  const [busy, small] = [open(session), open(session)];
  const answered = once(small, 'response');
  let text = '';
  small.setEncoding('latin1').on('data', (piece: string) => {
    text += piece;
  });
  busy.resume();
  const [first, second] = await eventually('both requests', () => streams.length === 2 && streams);
  if (first === undefined || second === undefined) throw new TypeError('two streams');
  await eventually('the window', () => session.state.effectiveLocalWindowSize === 16_777_216);
  connection.respond(first, OK, false);
  for (let left = 524_288; left > 0; left -= 1_000) first.write(Buffer.alloc(1_000));
  connection.respond(second, [...OK, ['baggage', 'x'.repeat(4_000)]], false);
  second.write(Buffer.from('after the answer'));
  second.end();
  await answered;
  await eventually('the data', () => text === 'after the answer');
  expect(session.destroyed).toBe(false);
});
