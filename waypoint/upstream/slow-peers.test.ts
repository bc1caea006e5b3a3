import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { SETTINGS } from '#ztunnel/hbone/testing.ts';
import type { Attempt, AttemptHandlers } from './attempt.ts';
import { cluster, downstream, endpoint, http2App, httpApp, type Listening } from './testing.ts';
import { createUpstream, type Upstream } from './upstream.ts';

/** Hundreds of clients that do not read, or applications that do not: what is kept for them is bounded, and others go on. */

const CLIENTS = 200;
const ANSWER_BYTES = 100 * 1024 * 1024;

let upstream: Upstream;
/** Bytes of answers that applications have written. */
let poured: number;

beforeEach(() => {
  poured = 0;
  upstream = createUpstream({ svid: () => undefined, settings: SETTINGS });
});
afterEach(() => upstream.close());

const GET = {
  method: 'GET',
  target: '/',
  authority: 'a',
  scheme: 'http',
  headers: [],
  hasBody: false,
} as const;

interface Sent {
  readonly attempt: Attempt;
  /** Bytes of the answer that were handed over. */
  readonly received: () => number;
  readonly over: Promise<void>;
}

/** @param reads whether the client takes what comes */
function send(
  port: number,
  request: Parameters<Upstream['send']>[2],
  protocol: Protocol,
  reads: boolean,
): Sent {
  const to = endpoint(port);
  const target = { caller: downstream().caller, endpoint: to, address: to.address, cluster: cluster([to]) };
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  promise.catch(() => undefined);
  let received = 0;
  const handlers: AttemptHandlers = {
    onInform: () => undefined,
    onHead: () => undefined,
    onData: (chunk) => {
      received += chunk.length;
      if (!reads) attempt.pause();
    },
    onEnd: () => resolve(),
    onUpgrade: () => undefined,
    onFailure: ({ reason }) => reject(new Error(reason)),
    onDrain: () => undefined,
  };
  const attempt = upstream.send(protocol, target, request, handlers);
  return { attempt, received: () => received, over: promise };
}

type Protocol = 'http1' | 'http2';

/** Answers `/short` at once; else with more than anybody reads, or without reading what is sent. */
async function appFor(protocol: Protocol): Promise<Listening> {
  const piece = Buffer.alloc(64 * 1024);
  const pour = (write: (chunk: Buffer) => boolean, again: (pour: () => void) => void): void => {
    let left = ANSWER_BYTES;
    const push = (): void => {
      for (let hasRoom = true; hasRoom && left > 0; left -= piece.length) {
        poured += piece.length;
        hasRoom = write(piece);
      }
    };
    again(push);
    push();
  };
  if (protocol === 'http1')
    return await httpApp((request, response) => {
      if (request.url === '/short') response.end('ok');
      else if (request.method === 'GET')
        pour(
          (chunk) => response.write(chunk),
          (push) => response.on('drain', push),
        );
    });
  return await http2App((stream, headers) => {
    stream.respond({ ':status': 200 });
    if (headers[':path'] === '/short') stream.end('ok');
    else if (headers[':method'] === 'GET')
      pour(
        (chunk) => stream.write(chunk),
        (push) => stream.on('drain', push),
      );
  });
}

test.each(['http1', 'http2'] as const)(
  '%s: answers that nobody reads are not collected',
  async (protocol) => {
    await using app = await appFor(protocol);
    const stalled = Array.from({ length: CLIENTS }, () => send(app.port, GET, protocol, false));
    await eventually('all have begun', () => stalled.every(({ received }) => received() > 0));
    let last = -1;
    await eventually('nothing moves', () => {
      const isStill = poured === last;
      last = poured;
      return isStill;
    });
    const live = send(app.port, { ...GET, target: '/short' }, protocol, true);
    await live.over;
    expect(live.received()).toBe(2);
    const most = Math.max(...stalled.map(({ received }) => received()));
    expect(most).toBeLessThanOrEqual(256 * 1024);
    for (const { attempt } of stalled) attempt.abort();
  },
);

test.each(['http1', 'http2'] as const)('%s: bodies that nobody reads are not collected', async (protocol) => {
  await using app = await appFor(protocol);
  const post = { ...GET, method: 'POST', hasBody: true };
  const piece = Buffer.alloc(16 * 1024);
  const stalled = Array.from({ length: CLIENTS }, () => {
    const sent = send(app.port, post, protocol, true);
    let taken = piece.length;
    // As a request's body is: no more once it is asked to wait.
    while (sent.attempt.write(piece)) taken += piece.length;
    return { ...sent, taken };
  });
  const live = send(app.port, { ...GET, target: '/short' }, protocol, true);
  await live.over;
  expect(live.received()).toBe(2);
  expect(Math.max(...stalled.map(({ taken }) => taken))).toBeLessThanOrEqual(512 * 1024);
  for (const { attempt } of stalled) attempt.abort();
});
