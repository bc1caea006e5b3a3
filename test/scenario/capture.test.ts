import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CaptureBed, METHODS, makeCaptureBed } from '#test/kit/capture-bed.ts';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { probeTcp } from '#test/kit/netns-probe.ts';
import { loadCommand, serverCommand } from '#test/kit/programs/programs.ts';
import type { Relay } from '#test/kit/relay.ts';
import type { RelayedConnection } from '#test/kit/relay-in-pod.ts';
import { callSockets, serveSockets } from '#test/kit/socket-calls.ts';
import { CaptureError } from '#ztunnel/capture/capture.ts';

/** `catalog` serves HTTP on 8080, echoes on 9000 and tells on 7000 what it sees; `web` calls it. A relay plays the ztunnel. */
describe.each(METHODS)('%s', (method) => {
  let bed: CaptureBed;
  let directory: string;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'tulle-capture-'));
    bed = await makeCaptureBed(method);
    const [command = '', ...args] = serverCommand('catalog');
    bed.catalog.spawn(command, args, { stdio: 'inherit' });
    await serveSockets(bed.catalog, 7000);
    await eventually(
      'the server listens',
      async () => (await probeTcp(bed.web, { host: 'fd09:1::3', port: 8080 })) === 'connected',
    );
  });

  afterAll(async () => {
    await bed?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  test.each([
    { family: 'IPv4', host: '10.9.1.3', url: 'http://10.9.1.3:8080/' },
    { family: 'IPv6', host: 'fd09:1::3', url: 'http://[fd09:1::3]:8080/' },
  ])(
    'connections old and new outlive being captured and released, again and again, over $family',
    async ({ family, host, url }) => {
      const { web, catalog, capture, pod } = bed;
      const file = join(directory, `load-${family}.json`);
      const [command = '', ...args] = loadCommand(url, `${host}:9000`, file);
      await using cleanUp = new AsyncDisposableStack();
      const load = web.spawn(command, args, { stdio: 'inherit' });
      cleanUp.defer(async () => {
        await endProcess(load);
        for (const netns of [web, catalog]) await capture.remove(pod(netns));
      });
      const calls = (): number => JSON.parse(readFileSync(`${file}.live`, 'utf8')).short.ok;
      const moreCalls = async (): Promise<void> => {
        const before = calls();
        await eventually('more calls', () => calls() > before + 20);
      };
      await eventually('the load runs', () => calls() > 20);

      for (let turn = 0; turn < 3; turn++) {
        await using outbound = await bed.relay(web);
        await using inbound = await bed.relay(catalog);
        for (const scope of ['outbound', 'both', 'outbound', 'nothing', 'both'] as const) {
          await Promise.all([web, catalog].map((netns) => capture.apply(pod(netns), scope)));
          await moreCalls();
        }
        for (const [relay, direction] of [
          [outbound, 'outbound'],
          [inbound, 'inbound'],
        ] as const) {
          await relayed(relay, (all) =>
            all.some((one) => one.direction === direction && one.to.ip === host && one.to.port === 8080),
          );
        }
        await Promise.all([web, catalog].map((netns) => capture.apply(pod(netns), 'nothing')));
        await moreCalls(); // what was under way then is captured still
        const before = outbound.connections.length + inbound.connections.length;
        await moreCalls();
        expect(outbound.connections.length + inbound.connections.length).toBe(before);
        if (turn === 2) await endProcess(load);
        else
          await eventually('short ones have ended', async () => (await capture.countCaptured(pod(web))) <= 2);
      }

      const { short, keepAlive, long } = JSON.parse(readFileSync(file, 'utf8'));
      expect([short.errors, keepAlive.errors, long.errors]).toEqual([[], [], []]);
      for (const netns of [web, catalog]) {
        await eventually(
          'nothing captured is left',
          async () => (await capture.countCaptured(pod(netns))) === 0,
        );
      }
    },
  );

  const FAMILIES = [
    { kind: 'plain', host: '10.9.1.3', client: '10.9.1.2' },
    { kind: 'plain', host: 'fd09:1::3', client: 'fd09:1::2' },
    { kind: 'mapped', host: '10.9.1.3', client: '10.9.1.2' },
    { kind: 'device', host: '10.9.1.3', client: '10.9.1.2' },
    { kind: 'device', host: 'fd09:1::3', client: 'fd09:1::2' },
    { kind: 'bound', host: '10.9.1.3', client: '10.9.1.2', source: '10.9.1.2' },
    { kind: 'bound', host: 'fd09:1::3', client: 'fd09:1::2', source: 'fd09:1::2' },
  ] as const;

  // Packet rules cannot turn the packets of a socket that is bound to a device; they go nowhere.
  const CAPTURED = FAMILIES.filter(({ kind }) => method === 'ebpf' || kind !== 'device');

  test.each(CAPTURED)(
    'the application sees whom it dials, and what comes after a half-close: $kind socket to $host',
    async (way) => {
      await using relay = await bed.relay(bed.web);
      await using _captured = await bed.captured(bed.web, 'both');
      const [reply] = await callSockets(bed.web, [{ ...way, port: 7000 }]);
      expect(reply).toEqual({
        peer: { ip: way.host, port: 7000 },
        local: { ip: way.client, port: expect.any(Number) },
        server: {
          accepted: { ip: way.client, port: expect.any(Number) },
          peer: { ip: way.client, port: expect.any(Number) },
          local: { ip: way.host, port: 7000 },
        },
        reply: 'pingend',
      });
      await relayed(relay, ({ length }) => length > 0);
      expect(relay.connections).toMatchObject([
        { direction: 'outbound', from: way.client, to: { ip: way.host, port: 7000 } },
      ]);
    },
  );

  test.each(FAMILIES)(
    'the application sees its caller, not the ztunnel: $kind socket to $host',
    async (way) => {
      await using relay = await bed.relay(bed.catalog);
      await using _captured = await bed.captured(bed.catalog, 'both');
      const [reply] = await callSockets(bed.web, [{ ...way, port: 7000 }]);
      const port = method === 'ebpf' ? reply?.local.port : expect.any(Number); // packet rules do not keep it
      expect(reply).toMatchObject({
        server: {
          accepted: { ip: way.client, port },
          peer: { ip: way.client, port },
          local: { ip: way.host, port: 7000 },
        },
        reply: 'pingend',
      });
      await relayed(relay, ({ length }) => length > 0);
      expect(relay.connections).toMatchObject([
        { direction: 'inbound', from: way.client, to: { ip: way.host, port: 7000 } },
      ]);
    },
  );

  test('both sides see each other when both are captured', async () => {
    await using outbound = await bed.relay(bed.web);
    await using inbound = await bed.relay(bed.catalog);
    await using _web = await bed.captured(bed.web, 'both');
    await using _catalog = await bed.captured(bed.catalog, 'both');
    for (const { host, client } of FAMILIES.slice(0, 2)) {
      const [reply] = await callSockets(bed.web, [{ host, port: 7000 }]);
      expect(reply).toMatchObject({
        peer: { ip: host, port: 7000 },
        local: { ip: client },
        server: { accepted: { ip: client }, peer: { ip: client } },
        reply: 'pingend',
      });
    }
    for (const relay of [outbound, inbound]) await relayed(relay, ({ length }) => length === 2);
  });

  test('a port that nobody listens on is refused through the ztunnel, too', async () => {
    await using relay = await bed.relay(bed.web);
    await using _captured = await bed.captured(bed.web, 'both');
    const replies = await callSockets(bed.web, [
      { host: '10.9.1.3', port: 7999 },
      { host: 'fd09:1::3', port: 7999 },
    ]);
    // It is connected to the ztunnel by then.
    for (const reply of replies) expect(reply.error ?? reply.server).toSatisfy(isRefusal);
    await relayed(relay, ({ length }) => length === 2);
    expect(relay.connections.map(({ to }) => to)).toEqual([
      { ip: '10.9.1.3', port: 7999 },
      { ip: 'fd09:1::3', port: 7999 },
    ]);
  });

  test('a strict pod without a ztunnel is closed, in both directions', async () => {
    await using _web = await bed.captured(bed.web, 'both');
    const refused = method === 'ebpf' ? 'EPERM' : 'ECONNREFUSED';
    expect(await probeTcp(bed.web, { host: '10.9.1.3', port: 8080 })).toBe(refused);
    expect(await probeTcp(bed.web, { host: 'fd09:1::3', port: 8080 })).toBe(refused);
    expect(await probeTcp(bed.catalog, { host: '10.9.1.2', port: 8080 })).toBe('ECONNREFUSED');
    expect(await probeTcp(bed.catalog, { host: 'fd09:1::2', port: 8080 })).toBe('ECONNREFUSED');
  });

  test.each(['outbound', 'both'] as const)(
    'nobody outside gets anything from the ports of the ztunnel (%s)',
    async (scope) => {
      await using relay = await bed.relay(bed.catalog);
      await using _captured = await bed.captured(bed.catalog, scope);
      const calls = ['10.9.1.3', 'fd09:1::3'].flatMap((host) =>
        [15001, 15006, 15053].map((port) => ({ host, port })),
      );
      for (const reply of await callSockets(bed.web, calls)) {
        expect(reply.error).toBe('ECONNREFUSED');
      }
      expect(relay.connections).toEqual([]);
    },
  );

  test('probes of the node, and calls of a pod to itself, are left alone', async () => {
    await using relay = await bed.relay(bed.catalog);
    await using _captured = await bed.captured(bed.catalog, 'both');
    const probe = { host: '10.9.1.3', source: '169.254.7.127' };
    expect(await probeTcp(bed.web, { ...probe, port: 8080 })).toBe('connected');
    for (const host of ['10.9.1.3', 'fd09:1::3', '127.0.0.1', '::1']) {
      expect(await probeTcp(bed.catalog, { host, port: 8080 })).toBe('connected');
    }
    expect(relay.connections).toEqual([]);
    // Packet rules know the node's address only.
    await probeTcp(bed.web, { ...probe, port: 9000 });
    if (method === 'ebpf') await relayed(relay, ({ length }) => length === 1);
    else expect(relay.connections).toEqual([]);
  });

  test('tunnels are left alone', async () => {
    await using relay = await bed.relay(bed.catalog);
    const listen = "require('net').createServer((s) => s.end()).listen(15008, '::', () => console.log('up'))";
    const tunnel = bed.catalog.spawn(process.execPath, ['-e', listen], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(tunnel.stdout ?? process.stdin, 'data');
    const mode = 'permissive'; // in a strict pod that is not the ztunnel's does not get it
    await using _captured = await bed.captured(bed.catalog, 'both', { mode });
    expect(await probeTcp(bed.web, { host: '10.9.1.3', port: 15008 })).toBe('connected');
    expect(await probeTcp(bed.web, { host: 'fd09:1::3', port: 15008 })).toBe('connected');
    expect(relay.connections).toEqual([]);
    await endProcess(tunnel);
  });

  test('a failure names the pod, what went wrong and what to do; a pod that is gone has nothing to remove', async () => {
    const gone = { ...bed.pod(bed.web), uid: 'uid-1', netnsPath: '/run/netns/tulletest-no-such' };
    await expect(bed.capture.apply(gone, 'both')).rejects.toThrow(CaptureError);
    await expect(bed.capture.apply(gone, 'both')).rejects.toThrow(
      /pod uid-1.*tulletest-no-such.*The pod is gone\.$/,
    );
    const named = { ...gone, name: 'shop/web-1' };
    await expect(bed.capture.apply(named, 'both')).rejects.toThrow(/pod shop\/web-1/);
    expect(await bed.capture.countCaptured(gone)).toBe(0);
    expect(await bed.capture.scopeOf(gone)).toBeUndefined();
    await bed.capture.remove(gone);
  });
});

/** Waits for what a relay saw: it may be in a process of its own. */
async function relayed(
  { connections }: Relay,
  check: (connections: readonly RelayedConnection[]) => boolean,
): Promise<void> {
  await eventually('the relay has seen them', () => check(connections));
}

function isRefusal(outcome: unknown): boolean {
  return outcome === null || outcome === 'ECONNREFUSED' || outcome === 'ECONNRESET';
}
