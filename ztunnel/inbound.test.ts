import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  type ClientHttp2Session,
  connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { connect as connectTcp, createServer, type Server } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { HostPort } from '#api/address.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import { clientTlsOptions } from '#certs/peer.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { workerConfig } from '#test/kit/carried-node.ts';
import { eventually } from '#test/kit/eventually.ts';
import { LoopbackPods } from '#test/kit/loopback-pods.ts';
import { service, workload } from '#test/kit/resources.ts';
import type { AccessRecord } from './access-log.ts';
import { Carrier } from './carrier.ts';
import type { PodSockets } from './pod-sockets.ts';

/** A foreign client, node:http2 over mutual TLS, asks our server what it once asked a stock one; the answers are the same. */

const POD = '127.0.42.5';
const OTHER_POD = '127.0.42.6';
const VIP = '10.96.0.10';
const s = workload({
  name: 's',
  serviceAccount: 's',
  addresses: [POD],
  canonicalName: '',
  canonicalRevision: '',
  workloadName: '',
  services: { 'default/s.default.svc.cluster.local': { 80: 8080 } },
});
const s1 = workload({ name: 's1', addresses: [OTHER_POD] });
const serviceS = service({ name: 's', addresses: [{ network: '', ip: VIP }] });

/** Name of what was asked, and the answer of the stock server. */
const recorded: ReadonlyMap<string, Readonly<Record<string, unknown>>> = new Map(
  readFileSync(new URL('../test/fixtures/ztunnel/hbone-from-stock-server.jsonl', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line.includes('"response"'))
    .map((line) => {
      const [name, , headers] = JSON.parse(line) as [string, string, Record<string, unknown>];
      return [name, headers];
    }),
);

let ca: TemporaryAuthority;
let carrier: Carrier;
let records: AccessRecord[];
/** Whom the application was to see as its peer, by connection. */
let callers: (HostPort | undefined)[];
let session: ClientHttp2Session;
let server: Server;

beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});
beforeEach(async () => {
  const pods = new LoopbackPods();
  records = [];
  callers = [];
  carrier = new Carrier({
    config: workerConfig('n1'),
    openSockets: () => recordingCallers(pods.socketsOf(POD)),
    send: (message) => message.kind === 'records' && records.push(...message.records),
  });
  await carrier.handle({ kind: 'tables', update: { type: AUTHORIZATION_TYPE, updated: [], removed: [] } });
  await carrier.handle({
    kind: 'tables',
    update: { type: ADDRESS_TYPE, updated: [s, s1, serviceS], removed: [] },
  });
  await carrier.handle({ kind: 'svid', svid: await ca.svid('spiffe://cluster.local/ns/default/sa/s') });
  const pod = { uid: s.uid, name: 's', namespace: 'default', serviceAccount: 's' };
  await carrier.handle({ kind: 'add-pod', request: 1, pod, netnsFd: 0 });
  await eventually('its listeners', () => pods.portOf({ ip: POD, port: 15008 }) > 1);
  server = createServer((socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n'));
  await pods.serve(server, { ip: POD, port: 8080 });
  session = await openSession(pods.portOf({ ip: POD, port: 15008 }));
});
afterEach(async () => {
  session.destroy();
  server.close();
  await carrier.handle({ kind: 'drain', request: 2, deadlineMs: 0 });
});

function recordingCallers(sockets: PodSockets): PodSockets {
  return {
    ...sockets,
    dial: (to, caller) => {
      callers.push(caller);
      return sockets.dial(to, caller);
    },
  };
}

async function openSession(port: number): Promise<ClientHttp2Session> {
  const svid = await ca.svid('spiffe://cluster.local/ns/default/sa/c');
  const expected = [{ trustDomain: 'cluster.local', namespace: 'default', serviceAccount: 's' }];
  const near = connectTcp({ host: POD, port, localAddress: '127.0.42.1' });
  const socket = connectTls({ socket: near, ...clientTlsOptions(svid, expected) });
  await once(socket, 'secureConnect');
  expect(socket.getProtocol()).toBe('TLSv1.3');
  expect(socket.getCipher().name).toBe('TLS_AES_256_GCM_SHA384');
  const client = connect('https://peer', { createConnection: () => socket });
  await once(client, 'remoteSettings');
  return client;
}

async function ask(headers: OutgoingHttpHeaders): Promise<{
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly rstCode: number | undefined;
}> {
  const stream = session.request(headers, { endStream: false });
  let text = '';
  stream.setEncoding('latin1').on('data', (piece: string) => {
    text += piece;
  });
  const [response] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  stream.end();
  if (!stream.closed) await once(stream, 'close');
  return { headers: response, text, rstCode: stream.rstCode };
}

const CONNECT = { ':method': 'CONNECT' };

test.each<{ readonly name: string; readonly headers: OutgoingHttpHeaders; readonly error?: string }>([
  { name: 'ip:port', headers: { ...CONNECT, ':authority': `${POD}:8080` } },
  {
    name: 'with forwarded and baggage',
    headers: {
      ...CONNECT,
      ':authority': `${POD}:8080`,
      forwarded: 'for="10.99.0.1:1";host=s.default.svc.cluster.local',
      baggage: 'k8s.namespace.name=default,service.name=c',
    },
  },
  { name: 'hostname authority', headers: { ...CONNECT, ':authority': 's.default.svc.cluster.local:80' } },
  {
    name: 'vip authority',
    headers: { ...CONNECT, ':authority': `${VIP}:80` },
    error: `ip mismatch: ${POD} != ${VIP}:80`,
  },
  { name: 'other pod', headers: { ...CONNECT, ':authority': `${OTHER_POD}:8080` }, error: 'ip mismatch' },
  {
    name: 'closed port',
    headers: { ...CONNECT, ':authority': `${POD}:8081` },
    error: 'connection failed: Connection refused (os error 111)',
  },
  { name: 'loopback', headers: { ...CONNECT, ':authority': '127.0.0.1:8080' }, error: 'ip mismatch' },
  {
    name: 'port 15008',
    headers: { ...CONNECT, ':authority': `${POD}:15008` },
    error: 'attempted recursive call to ourselves',
  },
  {
    name: 'port 15001',
    headers: { ...CONNECT, ':authority': `${POD}:15001` },
    error: 'attempted recursive call to ourselves',
  },
  {
    name: 'port 15006',
    headers: { ...CONNECT, ':authority': `${POD}:15006` },
    error: 'attempted recursive call to ourselves',
  },
  {
    name: 'no port',
    headers: { ...CONNECT, ':authority': POD },
    error: `no valid authority pseudo header: ${POD}`,
  },
  {
    name: 'GET',
    headers: { ':method': 'GET', ':path': '/', ':authority': `${POD}:8080` },
    error: 'expected method CONNECT, got GET',
  },
])('the answer to $name is that of a stock server', async ({ name, headers, error }) => {
  const stock = recorded.get(name);
  expect(stock).toBeDefined();
  const answer = await ask(headers);
  expect(Object.fromEntries(Object.entries(answer.headers))).toEqual(stock);
  expect(answer.rstCode).toBe(0);
  expect(answer.text).toBe(stock?.[':status'] === 200 ? 'HTTP/1.1 200 OK\r\n\r\n' : '');
  const record = await eventually('a record', () => records.find(({ event }) => event !== 'opened'));
  if (error === undefined) expect(record.error).toBeUndefined();
  else expect(record.error).toContain(error);
});

test("the application's peer is who called, with the port that the caller's ztunnel names", async () => {
  for (const forwarded of ['for="127.0.42.1:40000"', 'for="127.0.42.2:40000";host=s', undefined]) {
    const named = forwarded === undefined ? {} : { forwarded };
    await ask({ ...CONNECT, ':authority': `${POD}:8080`, ...named });
  }
  // Many connections share the tunnel's own port, and another's address is not the tunnel's to name.
  expect(callers).toEqual([
    { ip: '127.0.42.1', port: 40_000 },
    { ip: '127.0.42.1', port: 0 },
    { ip: '127.0.42.1', port: 0 },
  ]);
});

test("a name that is nobody's is 503", async () => {
  const answer = await ask({ ...CONNECT, ':authority': 'nobody.default.svc.cluster.local:80' });
  expect(answer.headers[':status']).toBe(503);
});

test("our server's settings are those of a stock server", () => {
  const [, stock] = JSON.parse(
    readFileSync(
      new URL('../test/fixtures/ztunnel/hbone-from-stock-server.jsonl', import.meta.url),
      'utf8',
    ).split('\n')[0] ?? '',
  ) as [string, Record<string, unknown>];
  const { initialWindowSize, maxFrameSize, maxConcurrentStreams, maxHeaderListSize } = session.remoteSettings;
  expect({ initialWindowSize, maxFrameSize, maxConcurrentStreams, maxHeaderListSize }).toEqual({
    initialWindowSize: stock['initialWindowSize'],
    maxFrameSize: stock['maxFrameSize'],
    maxConcurrentStreams: stock['maxConcurrentStreams'],
    maxHeaderListSize: stock['maxHeaderListSize'],
  });
});

test("the caller's labels come from its baggage, when nothing better is known and it stays in its namespace", async () => {
  await ask({
    ...CONNECT,
    ':authority': `${POD}:8080`,
    baggage: 'k8s.namespace.name=default,k8s.pod.name=c-1',
  });
  await ask({
    ...CONNECT,
    ':authority': `${POD}:8080`,
    baggage: 'k8s.namespace.name=elsewhere,k8s.pod.name=liar',
  });
  const [first, second] = await eventually('two records', () => {
    const closed = records.filter(({ event }) => event === 'closed');
    return closed.length === 2 && closed;
  });
  expect(first?.source.workload?.name).toBe('c-1');
  expect(second?.source.workload).toBeUndefined();
});
