import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { type Application, startApplication } from '#test/kit/application.ts';
import { type CarrierProcess, startCarrierProcess } from '#test/kit/carrier-process.ts';
import { eventually } from '#test/kit/eventually.ts';
import { workload } from '#test/kit/resources.ts';
import { podLimits } from './limits.ts';

/** A ztunnel in a process of its own that has too little of something: it says so, refuses, and goes on. */

const WEB = '127.0.73.1';
const CART = '127.0.73.2';
const OTHER = '127.0.73.3';
const web = workload({ name: 'web', serviceAccount: 'web', addresses: [WEB] });
const cart = workload({ name: 'cart', serviceAccount: 'cart', node: 'n1', addresses: [CART] });
const other = workload({ name: 'other', serviceAccount: 'other', node: 'n1', addresses: [OTHER] });

// A process starts, and much comes at once, on a machine that may have much else to do.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let ca: TemporaryAuthority;
let application: Application;
let carrier: CarrierProcess;
let sockets: Socket[];

beforeAll(async () => {
  ca = await temporaryAuthority();
  application = await startApplication('0.0.0.0');
});
afterAll(async () => {
  application[Symbol.dispose]();
  await ca[Symbol.asyncDispose]();
});
beforeEach(async () => {
  sockets = [];
  const identities = ['web', 'cart', 'other'];
  const { port } = application;
  carrier = await startCarrierProcess({
    node: 'n1',
    resources: [web, cart, other],
    svids: await Promise.all(
      identities.map((name) => ca.svid(`spiffe://cluster.local/ns/default/sa/${name}`)),
    ),
    pods: [web, cart, other],
    // Of `web` what it dials leaves the mesh; of the others, plaintext comes in.
    aims: [
      { podIp: WEB, to: { ip: '127.0.73.99', port: 8080 } },
      { podIp: CART, to: { ip: CART, port: 8080 } },
      { podIp: OTHER, to: { ip: OTHER, port: 8080 } },
    ],
    applications: [
      { at: { ip: '127.0.73.99', port: 8080 }, port },
      { at: { ip: CART, port: 8080 }, port },
      { at: { ip: OTHER, port: 8080 }, port },
    ],
    settings: { limits: { ...podLimits(20_000, 1), sockets: 60 } },
  });
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await carrier[Symbol.asyncDispose]();
});

/** Calls a port of a pod; whether the echo came. */
async function call(ip: string, port: 15001 | 15006): Promise<boolean> {
  const socket = connect(carrier.portOf({ ip, port }), ip);
  sockets.push(socket);
  socket.on('error', () => undefined);
  socket.write('x');
  const { promise, resolve } = Promise.withResolvers<boolean>();
  socket.once('data', () => resolve(true));
  socket.once('close', () => resolve(false));
  return await promise;
}

/** How many of so many calls at once are answered. */
async function answered(count: number, ip: string, port: 15001 | 15006): Promise<number> {
  const calls = await Promise.all(Array.from({ length: count }, () => call(ip, port)));
  return calls.filter(Boolean).length;
}

function limitDescriptors(count: number): void {
  execFileSync('prlimit', ['--pid', `${carrier.pid}`, `--nofile=${count}:`]);
}

test('a pod has so many sockets and no more, by name, and another pod is served', async () => {
  const [ip, port] = [CART, 15006 as const];
  // Two sockets for each.
  const served = await answered(80, ip, port);
  expect(served).toBeGreaterThan(10);
  expect(served).toBeLessThanOrEqual(30);
  await eventually('it is told', () => carrier.shed.some(({ shortage }) => shortage === 'pod-sockets'));
  expect(carrier.shed.find(({ shortage }) => shortage === 'pod-sockets')?.error).toBe(
    'pod default/cart has 60 sockets, as many as one may have',
  );
  expect(await call(OTHER, 15006)).toBe(true);
  for (const socket of sockets) socket.destroy();
  await eventually('it is served again', () => call(ip, port));
});

test.each([
  { side: 'callers', ip: WEB, port: 15001 as const },
  { side: 'those who are called', ip: CART, port: 15006 as const },
])(
  'without descriptors, connections of $side are refused, by name, and served again when there are some',
  async ({ ip, port }) => {
    expect(await call(ip, port)).toBe(true);
    const open = readdirSync(`/proc/${carrier.pid}/fd`).length;
    limitDescriptors(open + 30);
    const served = await answered(58, ip, port);
    expect(served).toBeLessThan(30);
    await eventually('it is told', () => carrier.shed.some(({ shortage }) => shortage === 'descriptors'));
    expect(carrier.shed.find(({ shortage }) => shortage === 'descriptors')?.error).toMatch(
      /descriptors of this process are in use.*; raise its limit of open files$/,
    );
    for (const socket of sockets) socket.destroy();
    limitDescriptors(20_000);
    await eventually('it is served again', () => call(ip, port));
    expect(carrier.isAlive()).toBe(true);
  },
);
