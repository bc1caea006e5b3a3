import { once } from 'node:events';
import { createServer } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseIdentity } from '#certs/identity.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { startCarrierProcess } from '#test/kit/carrier-process.ts';
import { type H2specReport, runH2spec } from '#test/kit/h2spec.ts';
import { workload } from '#test/kit/resources.ts';
import { openTlsFront } from '#test/kit/tls-front.ts';
import type { ConnectionSettings } from '#ztunnel/hbone/connection.ts';
import { createHboneServer, type HboneServer } from '#ztunnel/hbone/server.ts';

/** h2spec has no client certificate and makes no CONNECT, so it goes through a front that has one. */

const CART = '127.0.65.2';
const IDENTITY = 'spiffe://cluster.local/ns/default/sa/cart';
const CLIENT = 'spiffe://cluster.local/ns/default/sa/web';
const SETTINGS: ConnectionSettings = {
  streamWindowBytes: 4_194_304,
  connectionWindowBytes: 16_777_216,
  frameBytes: 1_048_576,
  pingIntervalMs: 10_000,
  pingTimeoutMs: 20_000,
};

let ca: TemporaryAuthority;
beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});

async function check(at: { readonly ip: string; readonly port: number }): Promise<H2specReport> {
  const svid = await ca.svid(CLIENT);
  await using front = await openTlsFront(at, { svid, expected: [parseIdentity(IDENTITY)] });
  return await runH2spec(front.port);
}

/** An answer and its end when the request has ended, as h2spec expects of a server of web pages. */
async function answeringServer(): Promise<HboneServer> {
  return createHboneServer(await ca.svid(IDENTITY), {
    settings: SETTINGS,
    handshakeTimeoutMs: 10_000,
    onSession: () => undefined,
    onSessionClose: () => undefined,
    onRefused: () => undefined,
    onRequest: ({ connection }, stream) => {
      stream.start({
        onData: () => undefined,
        onEnd: () => {
          connection.respond(stream, [[':status', '200']], false);
          stream.write(Buffer.from('a page'));
          stream.end();
        },
        onDrain: () => undefined,
        onFinish: () => undefined,
        onAbort: () => undefined,
      });
    },
  });
}

const NO_CONTENT = 'a tunnel has no content, so content-length is a field like any other (RFC 9113, 8.5)';
const LATE_DATA =
  'DATA that crosses with the end of its stream is usual: it is dropped, and counts against the window of the connection';

/** What h2spec would have otherwise, by its number, and why it is not so. */
const DEVIATIONS: ReadonlyMap<string, string> = new Map([
  ['http2/4.2/3', 'h2spec takes 16 KiB for the largest frame; the SETTINGS allow 1 MiB'],
  ['http2/5.1/8', LATE_DATA],
  ['http2/5.1/11', LATE_DATA],
  ['http2/8.1.2.6/1', NO_CONTENT],
  ['http2/8.1.2.6/2', NO_CONTENT],
]);

const REFUSED_AT_ONCE =
  'every request but CONNECT is answered with 400 and reset at once, so the stream is over when the next frame comes';

/** The same for port 15008 itself, beside those. */
const OF_TUNNELS_ONLY: ReadonlyMap<string, string> = new Map(
  [
    ...['generic/2/2', 'generic/2/3', 'http2/5.1/5', 'http2/5.1.2/1', 'http2/6.1/2'],
    ...['http2/6.9/2', 'http2/6.9.1/3', 'http2/8.1/1'],
  ].map((id) => [id, REFUSED_AT_ONCE]),
);

test('the HTTP/2 under HBONE keeps the rules of HTTP/2, but for what it knows better', async () => {
  const hbone = await answeringServer();
  const listener = createServer({ noDelay: true }, (socket) => hbone.accept(socket));
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as { readonly port: number };
  const { failed, passed } = await check({ ip: '127.0.0.1', port });
  listener.close();
  expect([...failed].filter(([id]) => !DEVIATIONS.has(id))).toEqual([]);
  expect(passed.length).toBeGreaterThanOrEqual(140);
}, 300_000);

test('port 15008 of a ztunnel keeps them as far as it lets h2spec ask', async () => {
  const cart = workload({ name: 'cart', serviceAccount: 'cart', node: 'n2', addresses: [CART] });
  await using carrier = await startCarrierProcess({
    node: 'n2',
    resources: [cart],
    svids: [await ca.svid(IDENTITY)],
    pods: [cart],
    applications: [],
  });
  const at = { ip: CART, port: 15008 };
  const { failed, passed } = await check({ ip: CART, port: carrier.portOf(at) });
  const isKnown = (id: string): boolean => DEVIATIONS.has(id) || OF_TUNNELS_ONLY.has(id);
  expect([...failed].filter(([id]) => !isKnown(id))).toEqual([]);
  expect(passed.length).toBeGreaterThanOrEqual(120);
  expect(carrier.isAlive()).toBe(true);
}, 300_000);
