/**
 * The byte path alone: `node test/bench/hbone-pair.ts [seconds] [rows]`. Two byte workers, each a process of its own, on loopback: no root,
 * no namespaces, no control plane; policy, records and mutual TLS are on. For comparing one change with another; what a
 * processor's second buys says more than the rates when the machine is shared.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { DuplexOptions } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource } from '#api/resource.ts';
import type { Svid } from '#certs/svid.ts';
import { temporaryAuthority } from '#certs/testing.ts';
import { workerConfig } from '#test/kit/carried-node.ts';
import { policy, rule, workload } from '#test/kit/resources.ts';
import { Carrier } from '#ztunnel/carrier.ts';
import type { PodSockets } from '#ztunnel/pod-sockets.ts';

const NEAR = '127.0.43.1';
const FAR = '127.0.43.2';
const APPLICATION = { ip: FAR, port: 8080 };

const web = workload({ name: 'web', serviceAccount: 'web', addresses: [NEAR] });
const cart = workload({ name: 'cart', serviceAccount: 'cart', node: 'n2', addresses: [FAR] });
const allow = policy({
  name: 'allow',
  rules: [rule({ principals: [{ kind: 'exact', value: 'cluster.local/ns/default/sa/web' }] })],
});
const strict = policy({
  name: 'strict',
  scope: 'GLOBAL',
  action: 'DENY',
  rules: [rule({ notPrincipals: [{ kind: 'presence' }] })],
});
const resources: readonly Resource[] = [web, cart];

type ToProxy =
  | { readonly kind: 'start'; readonly side: 'near' | 'far'; readonly svid: Svid; readonly target: number }
  | { readonly kind: 'usage' };
type FromProxy =
  | { readonly kind: 'listening'; readonly outbound: number; readonly hbone: number }
  | { readonly kind: 'usage'; readonly cpuUs: number; readonly rssBytes: number; readonly records: number };

/** A byte worker in a process of its own. */
function runProxy(): void {
  let records = 0;
  // An exit of its own writes the profile of `node --cpu-prof`.
  process.on('SIGTERM', () => process.exit(0));
  process.on('message', (message: ToProxy) => {
    if (message.kind === 'start') {
      startProxy(message, (count) => {
        records += count;
      }).catch((error: unknown) => {
        throw error;
      });
      return;
    }
    const { user, system } = process.cpuUsage();
    answer({ kind: 'usage', cpuUs: user + system, rssBytes: process.memoryUsage.rss(), records });
  });
}

function answer(message: FromProxy): void {
  process.send?.(message);
}

async function startProxy(
  { side, svid, target }: ToProxy & { readonly kind: 'start' },
  onRecords: (count: number) => void,
): Promise<void> {
  const ip = side === 'near' ? NEAR : FAR;
  const ports = new Map<number, Server>();
  const carrier = new Carrier({
    config: workerConfig(side === 'near' ? 'n1' : 'n2'),
    openSockets: () => socketsOf(ip, target, ports),
    send: (message) => {
      if (message.kind === 'records') onRecords(structuredClone(message.records).length);
    },
  });
  await carrier.handle({
    kind: 'tables',
    update: { type: AUTHORIZATION_TYPE, updated: [allow, strict], removed: [] },
  });
  await carrier.handle({ kind: 'tables', update: { type: ADDRESS_TYPE, updated: resources, removed: [] } });
  await carrier.handle({ kind: 'svid', svid });
  const { uid, name, namespace, serviceAccount } = side === 'near' ? web : cart;
  await carrier.handle({
    kind: 'add-pod',
    request: 0,
    pod: { uid, name, namespace, serviceAccount },
    netnsFd: 0,
  });
  await Promise.all([...ports.values()].map((server) => server.listening || once(server, 'listening')));
  answer({ kind: 'listening', outbound: portOf(ports.get(15001)), hbone: portOf(ports.get(15008)) });
}

/** Sockets of one pod: what is captured goes to the application, what is dialled to the one port that there is. */
function socketsOf(ip: string, target: number, ports: Map<number, Server>): PodSockets {
  const dial = (to: string, from?: string): Socket => {
    const options: TcpNetConnectOpts & DuplexOptions = {
      host: to,
      port: target,
      ...(from !== undefined && { localAddress: from }),
      allowHalfOpen: true,
      noDelay: true,
      highWaterMark: 512 * 1024,
    };
    return connect(options);
  };
  return {
    listen: (server, port) => {
      ports.set(port, server);
      server.listen({ port: 0, host: ip, backlog: 4096 });
    },
    originalDestination: () => APPLICATION,
    // Not from the caller's address: without a ztunnel's own binding the kernel searches all ports for a free one.
    dial: (to) => dial(to.ip),
    dialOutside: (to) => dial(to.ip, ip),
    hasAddress: (address) => address === ip,
  };
}

function portOf(server: Server | undefined): number {
  const address = server?.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

interface Proxies {
  readonly near: ChildProcess;
  readonly far: ChildProcess;
  readonly port: number;
}

interface Row {
  readonly name: string;
  readonly unit: 'Gb/s' | '1/s';
  /** Work done so far: bytes, or requests. */
  readonly run: (port: number, done: AbortSignal, count: (amount: number) => void) => void;
}

const REQUEST = Buffer.alloc(110, 'request ');
const RESPONSE_SIZE = 250;
/** First byte of what an application is sent: which kind it is. */
const ECHO = 0x72;
const SINK = 0x73;

const ROWS: readonly Row[] = [
  { name: 'bulk, 1 connection', unit: 'Gb/s', run: (port, done, count) => bulk(port, done, count) },
  {
    name: 'bulk, 8 connections',
    unit: 'Gb/s',
    run: (port, done, count) => {
      for (let each = 0; each < 8; each++) bulk(port, done, count);
    },
  },
  ...[1, 32, 256].map(
    (connections): Row => ({
      name: `requests, ${connections} connections`,
      unit: '1/s',
      run: (port, done, count) => {
        for (let each = 0; each < connections; each++) ask(port, done, count);
      },
    }),
  ),
  {
    name: 'new connections',
    unit: '1/s',
    run: (port, done, count) => {
      for (let each = 0; each < 16; each++) comeAndGo(port, done, count);
    },
  },
];

async function runBench(seconds: number, wanted: string): Promise<void> {
  const application = createServer({ allowHalfOpen: true, noDelay: true }, serveApplication);
  application.listen(0, FAR);
  await once(application, 'listening');
  const proxies = await startProxies(portOf(application));
  console.log('row                        rate          CPU of both, per request or GB    MB near, far');
  for (const row of ROWS.filter(({ name }) => name.includes(wanted)))
    console.log(await measure(row, proxies, seconds));
  for (const child of [proxies.near, proxies.far]) {
    child.kill();
    await once(child, 'exit');
  }
  process.exit(0);
}

async function startProxies(applicationPort: number): Promise<Proxies> {
  await using ca = await temporaryAuthority();
  const far = fork(import.meta.filename, { execArgv: process.execArgv });
  const near = fork(import.meta.filename, { execArgv: process.execArgv });
  const start = async (child: ChildProcess, message: ToProxy): Promise<FromProxy & { kind: 'listening' }> => {
    child.send(message);
    const [listening] = (await once(child, 'message')) as [FromProxy & { kind: 'listening' }];
    return listening;
  };
  const farSvid = await ca.svid('spiffe://cluster.local/ns/default/sa/cart');
  const nearSvid = await ca.svid('spiffe://cluster.local/ns/default/sa/web');
  const { hbone } = await start(far, { kind: 'start', side: 'far', svid: farSvid, target: applicationPort });
  const { outbound } = await start(near, { kind: 'start', side: 'near', svid: nearSvid, target: hbone });
  return { near, far, port: outbound };
}

async function measure(row: Row, proxies: Proxies, seconds: number): Promise<string> {
  let amount = 0;
  const done = new AbortController();
  row.run(proxies.port, done.signal, (more) => {
    amount += more;
  });
  await delay(500);
  const [from, before] = [amount, await usageOf(proxies)];
  const started = performance.now();
  await delay(seconds * 1000);
  const work = amount - from;
  const elapsed = (performance.now() - started) / 1000;
  const after = await usageOf(proxies);
  done.abort();
  await delay(300);
  const cpuUs = after.cpuUs - before.cpuUs;
  const rate = row.unit === 'Gb/s' ? (work * 8) / 1e9 / elapsed : work / elapsed;
  const cost =
    row.unit === 'Gb/s' ? `${((cpuUs / work) * 1e3).toFixed(2)} s/GB` : `${(cpuUs / work).toFixed(1)} us`;
  const rateText = `${rate.toFixed(rate < 100 ? 2 : 0)} ${row.unit}`;
  return `${row.name.padEnd(26)} ${rateText.padEnd(13)} ${cost.padEnd(33)} ${after.megabytes.join(', ')}`;
}

async function usageOf({
  near,
  far,
}: Proxies): Promise<{ readonly cpuUs: number; readonly megabytes: readonly number[] }> {
  const usages = await Promise.all(
    [near, far].map(async (child) => {
      child.send({ kind: 'usage' } satisfies ToProxy);
      const [usage] = (await once(child, 'message')) as [FromProxy & { kind: 'usage' }];
      return usage;
    }),
  );
  return {
    cpuUs: usages.reduce((sum, { cpuUs }) => sum + cpuUs, 0),
    megabytes: usages.map(({ rssBytes }) => Math.round(rssBytes / 1e6)),
  };
}

function serveApplication(socket: Socket): void {
  let kind: number | undefined;
  let received = 0;
  socket.on('error', () => undefined);
  socket.on('end', () => socket.end());
  socket.on('data', (bytes: Buffer) => {
    kind ??= bytes[0];
    received += bytes.length;
    if (kind === SINK) bulkBytes(bytes.length);
    else if (received >= REQUEST.length) {
      received -= REQUEST.length;
      socket.write(RESPONSE);
    }
  });
}

const RESPONSE = Buffer.alloc(RESPONSE_SIZE, 'response ');
/** Where the application counts what it is sent in bulk. */
let bulkBytes: (amount: number) => void = () => undefined;

function bulk(port: number, done: AbortSignal, count: (amount: number) => void): void {
  bulkBytes = count;
  const piece = Buffer.alloc(256 * 1024, SINK);
  const socket = connect({ port, host: NEAR, noDelay: true });
  socket.on('error', () => undefined);
  const push = (): void => {
    while (!done.aborted) if (!socket.write(piece)) return;
    socket.destroy();
  };
  socket.on('connect', push);
  socket.on('drain', push);
}

function ask(port: number, done: AbortSignal, count: (amount: number) => void): void {
  const socket = connect({ port, host: NEAR, noDelay: true });
  let left = RESPONSE_SIZE;
  REQUEST[0] = ECHO;
  socket.on('error', () => undefined);
  socket.on('connect', () => socket.write(REQUEST));
  socket.on('data', (bytes: Buffer) => {
    left -= bytes.length;
    if (left > 0) return;
    left = RESPONSE_SIZE;
    count(1);
    if (done.aborted) socket.destroy();
    else socket.write(REQUEST);
  });
}

function comeAndGo(port: number, done: AbortSignal, count: (amount: number) => void): void {
  if (done.aborted) return;
  const socket = connect({ port, host: NEAR, noDelay: true });
  let left = RESPONSE_SIZE;
  socket.on('error', () => undefined);
  socket.on('connect', () => socket.end(REQUEST));
  socket.on('data', (bytes: Buffer) => {
    left -= bytes.length;
  });
  socket.on('close', () => {
    if (left === 0) count(1);
    comeAndGo(port, done, count);
  });
}

if (process.send === undefined) await runBench(Number(process.argv[2] ?? 4), process.argv[3] ?? '');
else runProxy();
