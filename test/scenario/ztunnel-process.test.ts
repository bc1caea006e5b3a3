import { request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import pino from 'pino';
import { expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { listeningPorts, makeZtunnelBed, POD, resolveInPod, type ZtunnelBed } from '#test/kit/ztunnel-bed.ts';
import { parseZtunnelConfig } from '#ztunnel/config.ts';
import { runZtunnel, ZtunnelStartError } from '#ztunnel/main.ts';

const logger = pino({ level: 'silent' });
const CART = 'Kubernetes//Pod/shop/cart-1';

interface RunningZtunnel extends AsyncDisposable {
  readonly stop: () => Promise<void>;
  readonly get: (path: string) => Promise<{ readonly status: number | undefined; readonly body: string }>;
  readonly post: (path: string) => Promise<{ readonly status: number | undefined; readonly body: string }>;
  readonly ended: Promise<void>;
}

function startZtunnel({ state, port }: ZtunnelBed): RunningZtunnel {
  const address = `https://127.0.0.1:${port}`;
  const config = parseZtunnelConfig(['--state', state, '--node', 'n1', '--name-servers', ''], {
    XDS_ADDRESS: address,
    CA_ADDRESS: address,
  });
  const ports = { admin: 0, stats: 0, readiness: 0 };
  const controller = new AbortController();
  const ended = runZtunnel({ ...config, ports, drainMs: 1000 }, controller.signal, logger);
  const stop = async (): Promise<void> => {
    controller.abort();
    await ended;
  };
  const ask = (method: string) => (path: string) => call(join(state, 'run/n1/ztunnel.sock'), method, path);
  return { stop, ended, get: ask('GET'), post: ask('POST'), [Symbol.asyncDispose]: stop };
}

async function call(
  socketPath: string,
  method: string,
  path: string,
): Promise<{ readonly status: number | undefined; readonly body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number | undefined; body: string }>();
  const sent = request({ socketPath, method, path, agent: false }, (response) => {
    text(response).then((body) => resolve({ status: response.statusCode, body }), reject);
  });
  sent.on('error', reject).end();
  return promise;
}

async function untilReady(ztunnel: RunningZtunnel): Promise<void> {
  await eventually('the ztunnel is ready', async () => (await ztunnel.get('/healthz/ready')).status === 200);
}

async function dumpOf(ztunnel: RunningZtunnel): Promise<{
  readonly certificates: readonly { readonly identity: string; readonly state: string }[];
  readonly workloads: readonly { readonly uid: string }[];
  readonly workloadState: Readonly<Record<string, { readonly state: string }>>;
}> {
  return JSON.parse((await ztunnel.get('/config_dump')).body);
}

test('it configures itself, certifies its workloads, serves its pods, and then is ready', async () => {
  await using bed = await makeZtunnelBed();
  await using ztunnel = startZtunnel(bed);
  await untilReady(ztunnel);
  const identity = 'spiffe://cluster.local/ns/shop/sa/cart';
  await eventually('the certificate', async () => {
    const { certificates } = await dumpOf(ztunnel);
    return certificates.some((each) => each.identity === identity && each.state === 'Available');
  });
  const dump = await dumpOf(ztunnel);
  expect(dump.workloads.map(({ uid }) => uid)).toEqual([CART]);
  expect(dump.workloadState[POD.uid]?.state).toBe('Up');
  expect(await listeningPorts(bed.pod)).toEqual(['15001', '15006', '15008', '15053']);
  const metrics = (await ztunnel.get('/metrics')).body;
  expect(metrics).toContain('\nworkload_manager_active_proxy_count 1\n');
});

test('it answers the names of the mesh inside the pod, in both families, also without a control plane', async () => {
  await using bed = await makeZtunnelBed();
  await using ztunnel = startZtunnel(bed);
  await untilReady(ztunnel);
  expect(await resolveInPod(bed.pod, '127.0.0.1', 'cart.shop', 'A')).toEqual(['10.96.1.0']);
  await bed.controlPlane[Symbol.asyncDispose]();
  expect(await resolveInPod(bed.pod, '[::1]', 'cart', 'AAAA')).toEqual(['fd00:10:96::100']);
  expect(await resolveInPod(bed.pod, '127.0.0.1', 'example.com', 'A')).toBe('ESERVFAIL');
  expect((await ztunnel.get('/healthz/ready')).status).toBe(200);
});

test('a pod that is taken away is let go of: its listeners, its resolver', async () => {
  await using bed = await makeZtunnelBed();
  await using ztunnel = startZtunnel(bed);
  await untilReady(ztunnel);
  await bed.agent.del(POD.uid);
  await eventually('nothing listens', async () => (await listeningPorts(bed.pod)).length === 0);
  expect((await dumpOf(ztunnel)).workloadState).toEqual({});
  await bed.agent.add(POD, bed.pod.path);
  expect(await listeningPorts(bed.pod)).toHaveLength(4);
});

test('a pod whose ports are taken is refused and served as soon as they are free', async () => {
  await using bed = await makeZtunnelBed();
  const taker = bed.pod.spawn(process.execPath, ['-e', "require('node:net').createServer().listen(15008)"]);
  await eventually('the port is taken', async () => (await listeningPorts(bed.pod)).includes('15008'));
  await using ztunnel = startZtunnel(bed);
  await eventually('it says what is missing', async () => {
    const { body } = await ztunnel.get('/healthz/ready');
    return (
      body.includes('workload proxy manager') &&
      (await dumpOf(ztunnel)).workloadState[POD.uid]?.state === 'Pending'
    );
  });
  taker.kill('SIGKILL');
  await untilReady(ztunnel);
});

test('without the node agent it is not ready and goes on', async () => {
  await using bed = await makeZtunnelBed();
  await using ztunnel = startZtunnel(bed);
  await untilReady(ztunnel);
  bed.agent.close();
  await eventually('it is not ready', async () => (await ztunnel.get('/healthz/ready')).status === 500);
  expect(await resolveInPod(bed.pod, '127.0.0.1', 'cart', 'A')).toEqual(['10.96.1.0']);
});

test('an order to drain ends it, and its listeners with it', async () => {
  await using bed = await makeZtunnelBed();
  const ztunnel = startZtunnel(bed);
  await untilReady(ztunnel);
  expect((await ztunnel.post('/drain')).status).toBe(202);
  await ztunnel.ended;
  expect(await listeningPorts(bed.pod)).toEqual([]);
});

test('a second one beside it takes over without a moment in which nothing listens', async () => {
  await using bed = await makeZtunnelBed();
  const old = startZtunnel(bed);
  await untilReady(old);
  await using _next = startZtunnel(bed);
  await eventually('both serve the pod', () => bed.agent.connected() === 2);
  await old.stop();
  expect(await listeningPorts(bed.pod)).toHaveLength(4);
  expect(await resolveInPod(bed.pod, '127.0.0.1', 'cart', 'A')).toEqual(['10.96.1.0']);
});

test('a port or namespace that cannot be had ends it with one message', async () => {
  await using bed = await makeZtunnelBed();
  const config = parseZtunnelConfig(['--state', bed.state, '--node', 'n1', '--egress-netns', '/nowhere'], {});
  const { signal } = new AbortController();
  await expect(runZtunnel(config, signal, logger)).rejects.toThrow(ZtunnelStartError);
  await expect(runZtunnel(config, signal, logger)).rejects.toThrow('/nowhere');
});
