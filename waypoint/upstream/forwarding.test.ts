import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { SETTINGS } from '#ztunnel/hbone/testing.ts';
import type { RetryPolicy } from '../model.ts';
import type { RequestRecord } from '../request-record.ts';
import { type Balancer, createBalancer } from './balance.ts';
import type { ForwardPlan } from './forward-plan.ts';
import { Forwarding } from './forwarding.ts';
import { formatReply, sendReply } from './local-reply.ts';
import { RequestBody } from './request-body.ts';
import { RequestLog } from './request-log.ts';
import {
  APP,
  cluster,
  deadPort,
  endpoint,
  hboneGate,
  http2App,
  httpApp,
  type Listening,
  MemoryExchange,
  rawApp,
  WAYPOINT,
} from './testing.ts';
import { createUpstream, type Upstream } from './upstream.ts';

/** One request over real sockets, with what its route says given by the test. */

const NO_RETRY: RetryPolicy = {
  attempts: 0,
  on: { connectFailure: false, reset: false, statusCodes: [] },
  perTryTimeoutMs: 0,
  backoffMs: 0,
  maxBackoffMs: 250,
};
const SAFE: RetryPolicy = { ...NO_RETRY, attempts: 1, on: { ...NO_RETRY.on, connectFailure: true } };
const ALL: RetryPolicy = {
  ...NO_RETRY,
  attempts: 2,
  on: { connectFailure: true, reset: true, statusCodes: [500, 503] },
};

let upstream: Upstream;
let balancer: Balancer;
let records: RequestRecord[];

beforeEach(() => {
  upstream = createUpstream({ svid: () => undefined, settings: SETTINGS });
  balancer = createBalancer();
  records = [];
});
afterEach(() => upstream.close());

interface Options {
  readonly hasBody?: boolean;
  readonly plan?: Partial<ForwardPlan>;
  readonly head?: Partial<MemoryExchange['head']>;
  readonly retry?: RetryPolicy;
}

/** Forwards to the ports in turn. */
function forward(ports: readonly number[], options: Options = {}): MemoryExchange {
  const { plan: overrides, head, retry = NO_RETRY, hasBody = false } = options;
  const exchange = new MemoryExchange(head, { hasBody });
  const log = new RequestLog(exchange, (record) => records.push(record));
  const body = new RequestBody(exchange.body, [], () => forwarding.stop());
  const { method, target, authority, headers } = exchange.head;
  const to = overrides?.cluster ?? cluster(ports.map((port) => endpoint(port)));
  const plan: ForwardPlan = {
    cluster: to,
    newest: () => to,
    retry,
    timeoutMs: 0,
    hashKey: undefined,
    sticksTo: undefined,
    requestOf: (attempt) => ({
      method,
      target,
      authority,
      scheme: 'http',
      headers: [...headers, 'x-attempt', String(attempt)],
      hasBody: exchange.body !== undefined,
      ...(exchange.head.upgrade !== undefined && { upgrade: exchange.head.upgrade }),
    }),
    authority: exchange.downstream.authority,
    faultOfTry: () => undefined,
    answer: (_status, list) => list,
    reply: (reply) => {
      log.status = reply.status;
      sendReply(exchange, formatReply(reply, false));
    },
    responseKbps: undefined,
    ...overrides,
  };
  const forwarding = new Forwarding({ upstream, balancer, random: () => 0.5 }, { exchange, body, plan, log });
  exchange.onClose = (complete) => {
    if (!complete) forwarding.stop();
    log.finish();
  };
  forwarding.start();
  return exchange;
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}

test('an answer comes back with its headers, body and trailers', async () => {
  await using app = await httpApp((_request, response) => {
    response.writeHead(201, { 'x-from': 'app', trailer: 'x-last' });
    response.write('hel');
    response.addTrailers({ 'x-last': 'yes' });
    response.end('lo');
  });
  const exchange = forward([app.port]);
  await exchange.over;
  expect([exchange.status, exchange.header('x-from'), exchange.text]).toEqual([201, 'app', 'hello']);
  expect(exchange.trailers).toEqual(['x-last', 'yes']);
  expect(records[0]).toMatchObject({ status: 201, attempts: 1, flags: [] });
});

test('a connection is used again when its answer is complete', async () => {
  await using app = await httpApp((_request, response) => response.end('ok'));
  for (let count = 0; count < 3; count++) await forward([app.port]).over;
  expect(app.sockets().made).toBe(1);
});

test('a body is streamed, with its trailers, to the application', async () => {
  const seen = Promise.withResolvers<{ readonly text: string; readonly trailers: unknown }>();
  await using app = await httpApp((request, response) => {
    textOf(request).then((text) => {
      seen.resolve({ text, trailers: request.trailers });
      response.end();
    }, seen.reject);
  });
  const exchange = forward([app.port], { hasBody: true, head: { method: 'POST' } });
  exchange.send('one,');
  exchange.send('two', true, ['x-sum', '7']);
  expect(await seen.promise).toEqual({ text: 'one,two', trailers: { 'x-sum': '7' } });
  await exchange.over;
});

test('answers before the answer are passed on', async () => {
  await using app = await httpApp((_request, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' });
    response.end('ok');
  });
  const exchange = forward([app.port]);
  await exchange.over;
  expect(exchange.informed).toEqual([103]);
  expect(exchange.status).toBe(200);
});

test('no connection is retried at another endpoint, for any method', async () => {
  await using app = await httpApp((request, response) => {
    textOf(request).then(
      (text) => response.end(`got ${text}`),
      () => undefined,
    );
  });
  const exchange = forward([await deadPort(), app.port], {
    retry: SAFE,
    hasBody: true,
    head: { method: 'POST' },
  });
  exchange.send('once', true);
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([200, 'got once']);
  expect(records[0]).toMatchObject({ attempts: 2, flags: [] });
});

test('a denial at the destination is 403, and is not tried again', async () => {
  await using ca = await temporaryAuthority();
  await using gate = await hboneGate(await ca.svid(APP), '401');
  const svid = await ca.svid(WAYPOINT);
  upstream.close();
  upstream = createUpstream({
    svid: () => svid,
    settings: SETTINGS,
    hopOf: () => ({ ip: '127.0.0.1', port: gate.port }),
  });
  const to = cluster([endpoint(1, { tunnel: 'HBONE' }), endpoint(2, { tunnel: 'HBONE' })]);
  const exchange = forward([], { retry: ALL, plan: { cluster: to, newest: () => to } });
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([403, 'denied by policy at the destination']);
  expect(records[0]).toMatchObject({ attempts: 1, flags: ['UAEX'] });
  expect(records[0]?.details).toContain('denies');
  expect(gate.connects).toHaveLength(1);
});

test('where no retry connects either, the answer is 503 and says so', async () => {
  const exchange = forward([await deadPort()], { retry: SAFE });
  await exchange.over;
  expect(exchange.status).toBe(503);
  expect(exchange.text).toContain('retried and the latest reset reason: remote connection failure');
  expect(records[0]).toMatchObject({ attempts: 2, flags: ['URX', 'UF'], retrySkipped: 'attempts-exhausted' });
});

test.each([
  { method: 'GET', tries: 3 },
  { method: 'PUT', tries: 3 },
  { method: 'POST', tries: 1 },
  { method: 'PATCH', tries: 1 },
])('a request that is cut off is made $tries times for $method', async ({ method, tries }) => {
  let seen = 0;
  await using app = await rawApp((socket) => {
    seen += 1;
    socket.destroy();
  });
  const exchange = forward([app.port], { retry: ALL, head: { method } });
  await exchange.over;
  expect([exchange.status, seen]).toEqual([503, tries]);
  expect(records[0]?.flags).toContain('UC');
});

test('a status that the route names is retried for any method, with the whole body', async () => {
  const bodies: string[] = [];
  await using app = await httpApp((request, response) => {
    textOf(request).then(
      (text) => {
        bodies.push(`${request.headers['x-attempt']}:${text}`);
        response.writeHead(bodies.length < 3 ? 503 : 200).end('done');
      },
      () => undefined,
    );
  });
  const exchange = forward([app.port], { retry: ALL, hasBody: true, head: { method: 'POST' } });
  exchange.send('part one, ');
  await eventually('the first try has begun', () => app.sockets().made > 0);
  exchange.send('part two', true);
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([200, 'done']);
  expect(bodies).toEqual([1, 2, 3].map((attempt) => `${attempt}:part one, part two`));
});

test('when tries run out, the last answer is the answer', async () => {
  await using app = await httpApp((_request, response) => response.writeHead(503).end('not now'));
  const exchange = forward([app.port], { retry: ALL });
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([503, 'not now']);
  expect(records[0]).toMatchObject({ attempts: 3, flags: ['URX'], retrySkipped: 'attempts-exhausted' });
});

test('a body that is too large to be kept is sent once, and that is recorded', async () => {
  let seen = 0;
  await using app = await httpApp((request, response) => {
    seen += 1;
    request.resume().on('end', () => response.writeHead(503).end());
  });
  const exchange = forward([app.port], { retry: ALL, hasBody: true, head: { method: 'POST' } });
  for (let part = 0; part < 5; part++) exchange.send(Buffer.alloc(16 * 1024));
  exchange.send('', true);
  await exchange.over;
  expect([exchange.status, seen, records[0]?.retrySkipped]).toEqual([503, 1, 'body-not-kept']);
});

test('a storm of failures is retried within the budget only', async () => {
  let seen = 0;
  await using app = await httpApp((_request, response) => {
    seen += 1;
    setTimeout(() => response.writeHead(503).end(), 20);
  });
  const plan = { cluster: cluster([endpoint(app.port)]) };
  const exchanges = Array.from({ length: 50 }, () => forward([app.port], { retry: ALL, plan }));
  await Promise.all(exchanges.map(({ over }) => over));
  const skipped = records.filter(({ retrySkipped }) => retrySkipped === 'over-budget').length;
  expect(skipped).toBeGreaterThan(30);
  expect(seen).toBeLessThan(50 + 40);
});

test('a request that takes too long is answered with 504, and given up upstream', async () => {
  await using app = await rawApp(() => undefined);
  const exchange = forward([app.port], { plan: { timeoutMs: 50 } });
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([504, 'upstream request timeout']);
  expect(records[0]?.flags).toEqual(['UT']);
  await eventually('its connection is closed', () => app.sockets().open === 0);
});

test('a timeout of weeks is no timeout of a moment', async () => {
  const weeksMs = 600 * 3_600_000;
  await using app = await rawApp((socket) => {
    setTimeout(() => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate'), 20);
  });
  const retry = { ...ALL, perTryTimeoutMs: weeksMs };
  const exchange = forward([app.port], { plan: { timeoutMs: weeksMs }, retry });
  await exchange.over;
  expect([exchange.status, exchange.text, records[0]?.attempts]).toEqual([200, 'late', 1]);
});

test('a try that takes too long is followed by another', async () => {
  await using slow = await rawApp(() => undefined);
  await using app = await httpApp((_request, response) => response.end('quick'));
  const exchange = forward([slow.port, app.port], { retry: { ...ALL, perTryTimeoutMs: 60 } });
  await exchange.over;
  expect([exchange.status, exchange.text, records[0]?.attempts]).toEqual([200, 'quick', 2]);
});

test('half an answer is a reset, not an end', async () => {
  await using app = await rawApp((socket) => {
    socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly so much');
  });
  const exchange = forward([app.port], { retry: ALL });
  await exchange.over;
  expect([exchange.status, exchange.isAborted, exchange.trailers]).toEqual([200, true, undefined]);
  expect(records[0]).toMatchObject({ status: 200, flags: ['UC'], attempts: 1 });
});

test('half a chunked answer is a reset, not an end', async () => {
  await using app = await rawApp((socket) => {
    socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n');
  });
  const exchange = forward([app.port]);
  await exchange.over;
  expect(exchange.isAborted).toBe(true);
});

test.each([
  { when: 'it is not HTTP', text: 'SSH-2.0-x\r\n' },
  { when: 'its headers do not end', text: `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}` },
  { when: 'it has two lengths', text: 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n' },
])('an answer is 502 when $when', async ({ text }) => {
  await using app = await rawApp((socket) => socket.write(text));
  const exchange = forward([app.port]);
  await exchange.over;
  expect([exchange.status, records[0]?.flags]).toEqual([502, ['UPE']]);
  await eventually('its connection is closed', () => app.sockets().open === 0);
});

test('bytes after an answer end its connection, and nothing else', async () => {
  await using app = await rawApp((socket) => {
    socket.write(
      'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged',
    );
  });
  for (let count = 0; count < 2; count++) {
    const exchange = forward([app.port]);
    await exchange.over;
    expect([exchange.status, exchange.text]).toEqual([200, 'ok']);
  }
  expect(app.sockets().made).toBe(2);
});

test('a client that leaves takes the request with it', async () => {
  await using app = await rawApp(() => undefined);
  const exchange = forward([app.port]);
  await eventually('the request is there', () => app.sockets().open === 1);
  exchange.leave();
  await eventually('its connection is closed', () => app.sockets().open === 0);
});

test('a slow client makes the application wait', async () => {
  let written = 0;
  await using app = await httpApp((_request, response) => {
    const chunk = Buffer.alloc(64 * 1024);
    const push = (): void => {
      while (written < 64 * 1024 * 1024) {
        written += chunk.length;
        if (!response.write(chunk)) return;
      }
      response.end();
    };
    response.on('drain', push);
    push();
  });
  const exchange = forward([app.port], {});
  exchange.hasRoom = false;
  let last = -1;
  await eventually('nothing moves', () => {
    const isStill = last === written && written > 0;
    last = written;
    return isStill;
  });
  expect(written).toBeLessThan(24 * 1024 * 1024);
  exchange.hasRoom = true;
  exchange.onDrain?.();
  await exchange.over;
  expect(exchange.bytesSent()).toBe(64 * 1024 * 1024);
});

test('an application that does not read makes the client wait', async () => {
  await using app = await httpApp((request) => request.pause());
  const exchange = forward([app.port], { hasBody: true, head: { method: 'POST' } });
  await eventually('the body is wanted', () => exchange.sink !== undefined);
  const chunk = Buffer.alloc(64 * 1024);
  let sent = 0;
  for (; sent < 64 * 1024 * 1024 && !exchange.isPaused; sent += chunk.length) {
    exchange.send(chunk);
    if (exchange.isPaused)
      await eventually('it goes on', () => !exchange.isPaused, 300).catch(() => undefined);
  }
  expect(exchange.isPaused).toBe(true);
  expect(sent).toBeLessThan(32 * 1024 * 1024);
  exchange.leave();
});

test('no endpoint is 503 without a try', async () => {
  const exchange = forward([]);
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([503, 'no healthy upstream']);
  expect(records[0]).toMatchObject({ attempts: 0, flags: ['UH'] });
});

test('WebSocket: after the upgrade bytes go both ways', async () => {
  await using app = await rawApp((socket, text) => {
    if (text.startsWith('GET')) {
      expect(text).toContain('upgrade: websocket');
      socket.write(
        'HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nx: y\r\n\r\nhello ',
      );
    } else socket.end(`you said ${text}`);
  });
  const exchange = forward([app.port], { head: { upgrade: 'websocket' } });
  await exchange.responded;
  expect([exchange.status, exchange.header('x')]).toEqual([101, 'y']);
  exchange.upgraded?.events?.onData(Buffer.from('hi'));
  await eventually('the answer', () => exchange.upgraded?.text === 'hello you said hi');
  exchange.upgraded?.events?.onEnd();
  await eventually('it is recorded', () => records.length === 1);
  expect(records[0]).toMatchObject({ status: 101, flags: [] });
});

test('gRPC: messages go both ways at the same time, and end in trailers', async () => {
  await using app = await http2App((stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'grpc-message': 'fine' }));
    stream.on('data', (chunk) => stream.write(`re: ${chunk}`));
    stream.on('end', () => stream.end());
  });
  const plan = { cluster: cluster([endpoint(app.port)], { protocol: 'http2' }) };
  const head = { method: 'POST', headers: ['content-type', 'application/grpc', 'te', 'trailers'] };
  const exchange = forward([], { plan, head, hasBody: true });
  for (const word of ['one', 'two']) {
    exchange.send(word);
    await eventually(word, () => exchange.text.endsWith(`re: ${word}`));
  }
  exchange.send('', true);
  await exchange.over;
  expect(exchange.trailers).toEqual(['grpc-status', '0', 'grpc-message', 'fine']);
  expect(records[0]).toMatchObject({ status: 200, grpcStatus: 0 });
});

test('gRPC: an answer of trailers only is one of headers', async () => {
  await using app = await http2App((stream) => {
    stream.respond({ ':status': 200, 'grpc-status': '5' }, { endStream: true });
  });
  const plan = { cluster: cluster([endpoint(app.port)], { protocol: 'http2' }) };
  const exchange = forward([], { plan });
  await exchange.over;
  expect([exchange.status, exchange.header('grpc-status'), records[0]?.grpcStatus]).toEqual([200, '5', 5]);
});

test('gRPC: an answer of trailers only ends as it begins, also while the request goes on', async () => {
  await using app = await http2App((stream) => {
    stream.respond({ ':status': 200, 'grpc-status': '12' }, { endStream: true });
  });
  const plan = { cluster: cluster([endpoint(app.port)], { protocol: 'http2' }) };
  const exchange = forward([], { plan, hasBody: true, head: { method: 'POST' } });
  let trailersAtOnce: readonly string[] | undefined;
  const respond = exchange.respond.bind(exchange);
  exchange.respond = (status, headers) => {
    respond(status, headers);
    process.nextTick(() => {
      trailersAtOnce = exchange.trailers;
    });
  };
  await exchange.over;
  expect(trailersAtOnce).toEqual([]);
});

test('HTTP/2: requests share a connection', async () => {
  await using app = await http2App((stream) => {
    stream.respond({ ':status': 200 });
    stream.end('ok');
  });
  const plan = { cluster: cluster([endpoint(app.port)], { protocol: 'http2' }) };
  const exchanges = Array.from({ length: 20 }, () => forward([], { plan }));
  await Promise.all(exchanges.map(({ over }) => over));
  expect(exchanges.every(({ text }) => text === 'ok')).toBe(true);
  expect(app.sockets().made).toBe(1);
});

test.each([
  { code: 7, when: 'refused', tries: 2, status: 503, flag: 'UR' },
  { code: 8, when: 'reset', tries: 1, status: 503, flag: 'UR' },
])(
  'HTTP/2: a stream that is $when is tried $tries times by default',
  async ({ code, tries, status, flag }) => {
    let seen = 0;
    await using app = await http2App((stream) => {
      seen += 1;
      stream.close(code);
    });
    const plan = { cluster: cluster([endpoint(app.port)], { protocol: 'http2' }) };
    const exchange = forward([], { plan, retry: SAFE });
    await exchange.over;
    expect([seen, exchange.status, records[0]?.flags.at(-1)]).toEqual([tries, status, flag]);
  },
);

test('HTTP/2: half an answer is a reset', async () => {
  await using app = await http2App((stream) => {
    stream.respond({ ':status': 200 });
    stream.write('half', () => stream.session?.destroy());
  });
  const plan = { cluster: cluster([endpoint(app.port)], { protocol: 'http2' }) };
  const exchange = forward([], { plan });
  await exchange.over;
  expect([exchange.status, exchange.isAborted]).toEqual([200, true]);
});

test('HTTP/2: a peer that speaks something else is 502', async () => {
  await using app = await rawApp((socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'));
  const plan = { cluster: cluster([endpoint(app.port)], { protocol: 'http2' }) };
  const exchange = forward([], { plan });
  await exchange.over;
  expect([exchange.status, records[0]?.flags]).toEqual([502, ['UPE']]);
});

test('HTTP/2: a client that leaves has its stream cancelled', async () => {
  const closed = Promise.withResolvers<number>();
  await using app = await http2App((stream) => {
    stream.on('close', () => closed.resolve(stream.rstCode ?? -1));
  });
  const plan = { cluster: cluster([endpoint(app.port)], { protocol: 'http2' }) };
  const exchange = forward([], { plan });
  await eventually('the request is there', () => upstream.size().http2 === 1 && app.sockets().open === 1);
  await new Promise((resolve) => setImmediate(resolve));
  exchange.leave();
  expect(await closed.promise).toBe(8);
});

test('connections to an endpoint that has left are closed when they are free', async () => {
  const answered = Promise.withResolvers<void>();
  await using app = await httpApp((_request, response) => {
    answered.promise.then(
      () => response.end('late'),
      () => undefined,
    );
  });
  const exchange = forward([app.port]);
  await eventually('the request is there', () => app.sockets().open === 1);
  upstream.keepOnly([]);
  answered.resolve();
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([200, 'late']);
  await eventually('the connection is closed', () => app.sockets().open === 0);
});

test('an idle connection that says when it ends is not used after that', async () => {
  await using app = await rawApp((socket) => {
    socket.write(
      'HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\nkeep-alive: timeout=1\r\n\r\n',
    );
  });
  await forward([app.port]).over;
  await forward([app.port]).over;
  expect(app.sockets().made).toBe(2);
});

test('what comes behind an answer is not the answer to the request that waits', async () => {
  const forged = 'HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged';
  await using app = await rawApp((socket) => {
    socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok${forged}`);
  });
  upstream.close();
  upstream = createUpstream({ svid: () => undefined, settings: SETTINGS, limits: { maxConnections: 1 } });
  const exchanges = [1, 2, 3].map(() => forward([app.port]));
  await Promise.all(exchanges.map(({ over }) => over));
  expect(exchanges.map(({ text }) => text)).toEqual(['ok', 'ok', 'ok']);
});

test('requests above the limit of connections wait, and fail above that of those who wait', async () => {
  await using app = await httpApp((_request, response) => setTimeout(() => response.end('ok'), 10));
  upstream.close();
  const limits = { maxConnections: 2, maxPending: 3 };
  upstream = createUpstream({ svid: () => undefined, settings: SETTINGS, limits });
  const plan = { cluster: cluster([endpoint(app.port)]) };
  const exchanges = Array.from({ length: 8 }, () => forward([], { plan }));
  await Promise.all(exchanges.map(({ over }) => over));
  const statuses = exchanges.map(({ status }) => status).sort();
  expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(5);
  expect(statuses.at(-1)).toBe(503);
  expect(records.find(({ status }) => status === 503)?.flags).toEqual(['UO']);
  expect(app.sockets().made).toBe(2);
});

test('a large body whose first endpoint does not connect goes to the next, whole', async () => {
  let size = 0;
  await using app = await httpApp((request, response) => {
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
    });
    request.on('end', () => response.end());
  });
  const exchange = forward([await deadPort(), app.port], {
    retry: SAFE,
    hasBody: true,
    head: { method: 'POST' },
  });
  const pieces = 40;
  for (let piece = 0; piece < pieces; piece++) {
    exchange.send(Buffer.alloc(20_000));
    if (exchange.isPaused) await eventually('there is room', () => !exchange.isPaused);
  }
  exchange.send('', true);
  await exchange.over;
  expect([exchange.status, size, records[0]?.attempts]).toEqual([200, pieces * 20_000, 2]);
});

test('a slow answer waits for a slow client', async () => {
  await using app = await httpApp((_request, response) => response.end(Buffer.alloc(256 * 1024)));
  const exchange = forward([app.port], { plan: { responseKbps: 100_000 } });
  exchange.hasRoom = false;
  await eventually('some has come', () => exchange.bytesSent() > 0);
  const before = exchange.bytesSent();
  await new Promise((resolve) => setTimeout(resolve, 120));
  expect(exchange.bytesSent()).toBe(before);
  exchange.hasRoom = true;
  exchange.onDrain?.();
  await exchange.over;
  expect(exchange.bytesSent()).toBe(256 * 1024);
});

test('an answer may come, and end, before its request has', async () => {
  await using app = await rawApp((socket) => {
    socket.write('HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno');
  });
  const exchange = forward([app.port], { hasBody: true, head: { method: 'POST' } });
  await exchange.over;
  expect([exchange.status, exchange.text, exchange.isAborted]).toEqual([413, 'no', false]);
  await eventually('its connection is not used again', () => app.sockets().open === 0);
});

test('a client that leaves in the middle of its body takes the request with it', async () => {
  await using app = await rawApp(() => undefined);
  const exchange = forward([app.port], { hasBody: true, head: { method: 'POST' }, retry: ALL });
  exchange.send('half');
  await eventually('the request is there', () => app.sockets().open === 1);
  exchange.sink?.onAbort();
  exchange.leave();
  await eventually('its connection is closed', () => app.sockets().open === 0);
  expect(app.sockets().made).toBe(1);
});

test('half a head is 502', async () => {
  await using app = await rawApp((socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-le'));
  const exchange = forward([app.port]);
  await exchange.over;
  expect([exchange.status, records[0]?.flags]).toEqual([502, ['UPE']]);
});

test('a connection on which an upgrade was refused is not used again', async () => {
  await using app = await rawApp((socket) => {
    socket.write('HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno');
  });
  await forward([app.port], { head: { upgrade: 'websocket' } }).over;
  const exchange = forward([app.port]);
  await exchange.over;
  expect([exchange.status, app.sockets().made]).toEqual([403, 2]);
});

/** Answers one request on each connection, and closes it when the next comes: an application that closed it a moment ago. */
async function staleApp(close: (socket: Socket) => void): Promise<Listening> {
  const used = new WeakSet<Socket>();
  return await rawApp((socket) => {
    if (used.has(socket)) close(socket);
    else socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
    used.add(socket);
  });
}

/** From now on any idle connection counts as one that was idle for long. */
function takeIdleForStale(): void {
  upstream.close();
  upstream = createUpstream({ svid: () => undefined, settings: SETTINGS, limits: { stillMs: 0 } });
}

const STALE = [
  { how: 'ends', close: (socket: Socket) => void socket.end() },
  { how: 'breaks', close: (socket: Socket) => void socket.resetAndDestroy() },
];

test.each(STALE)('a request whose idle connection $how goes out on a new one', async ({ close }) => {
  takeIdleForStale();
  await using app = await staleApp(close);
  // Two are idle, and both are of no use.
  await Promise.all([1, 2].map(() => forward([app.port], { retry: SAFE }).over));
  const exchange = forward([app.port], { retry: SAFE });
  await exchange.over;
  expect([exchange.status, exchange.text, app.sockets().made]).toEqual([200, 'ok', 3]);
  expect(records.at(-1)).toMatchObject({ attempts: 2, flags: [] });
});

test.each([
  { when: 'it is not safe to repeat', method: 'POST', retry: SAFE, skipped: 'not-safe-to-repeat' },
  { when: 'there are no retries', method: 'GET', retry: NO_RETRY, skipped: undefined },
])('but not when $when', async ({ method, retry, skipped }) => {
  takeIdleForStale();
  await using app = await staleApp((socket) => socket.end());
  await forward([app.port], { retry: SAFE }).over;
  const exchange = forward([app.port], { retry, head: { method } });
  await exchange.over;
  expect([exchange.status, app.sockets().made]).toEqual([503, 1]);
  expect(records.at(-1)).toMatchObject({ attempts: 1, flags: ['UC'] });
  expect(records.at(-1)?.retrySkipped).toBe(skipped);
});

test('nor when the connection was used a moment ago: then the application means it', async () => {
  await using app = await staleApp((socket) => socket.end());
  await forward([app.port], { retry: SAFE }).over;
  const exchange = forward([app.port], { retry: SAFE });
  await exchange.over;
  expect([exchange.status, app.sockets().made]).toEqual([503, 1]);
});

test('nor when an answer has begun, or the connection is new', async () => {
  takeIdleForStale();
  let isFirst = true;
  await using app = await rawApp((socket) => {
    if (isFirst) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
    else socket.end('HTTP/1.1 2');
    isFirst = false;
  });
  for (let count = 0; count < 3; count++) await forward([app.port], { retry: SAFE }).over;
  expect(records.map(({ status, attempts }) => [status, attempts])).toEqual([
    [200, 1],
    [502, 1],
    [502, 1],
  ]);
  await using other = await rawApp((socket) => socket.end());
  await forward([other.port], { retry: SAFE }).over;
  expect(records.at(-1)).toMatchObject({ attempts: 1, flags: ['UC'] });
});

test('an idle connection that the application has closed is never used', async () => {
  await using app = await httpApp((_request, response) => response.end('ok'));
  await forward([app.port], { retry: NO_RETRY }).over;
  app.closeAll();
  await eventually('its end has come', () => upstream.size().http1 === 0);
  const exchange = forward([app.port], { retry: NO_RETRY });
  await exchange.over;
  expect([exchange.status, app.sockets().made]).toEqual([200, 2]);
});
