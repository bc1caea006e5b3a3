import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CaptureBed, METHODS, makeCaptureBed } from '#test/kit/capture-bed.ts';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Netns } from '#test/kit/netns.ts';
import { probeTcp, probeUdp, udpProbeCommand } from '#test/kit/netns-probe.ts';
import { askResolvers, PYTHON } from '#test/kit/socket-calls.ts';

const UDP_SERVER =
  "const s = require('dgram').createSocket('udp6'); s.on('message', (m, f) => s.send('server', f.port, f.address)); s.bind(Number(process.argv[1]), () => console.log('up'))";

/** A UDP server in a namespace that answers `server`. */
async function udpServer(netns: Netns, port: number): Promise<AsyncDisposable> {
  const child = netns.spawn(process.execPath, ['-e', UDP_SERVER, `${port}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout ?? process.stdin, 'data');
  return { [Symbol.asyncDispose]: async () => void (await endProcess(child, 'SIGKILL')) };
}

/** UDP and DNS of a captured pod. The relay answers `dns` to queries; a resolver in `web` answers `server`. */
describe.each(METHODS)('%s', (method) => {
  let bed: CaptureBed;

  beforeAll(async () => {
    bed = await makeCaptureBed(method);
  });
  afterAll(async () => {
    await bed?.[Symbol.asyncDispose]();
  });

  test('UDP passes a pod that allows it, and is refused and counted by one that does not', async () => {
    const { web, catalog, capture, pod } = bed;
    await using _inWeb = await udpServer(web, 4444);
    await using _inCatalog = await udpServer(catalog, 4444);
    await using _captured = await bed.captured(catalog, 'both', { udp: 'allow' });
    const inbound = { host: '10.9.1.3', port: 4444 };
    const outbound = { host: 'fd09:1::2', port: 4444 };
    expect(await probeUdp(web, inbound)).toBe('server');
    expect(await probeUdp(catalog, outbound)).toBe('server');

    await capture.apply(pod(catalog, { udp: 'refuse' }), 'both');
    expect(await probeUdp(web, inbound)).toBe('ECONNREFUSED');
    expect(await probeUdp(catalog, outbound)).toBe('ECONNREFUSED');
    expect(await probeUdp(catalog, { host: '10.9.1.2', port: 4444 })).toBe('ECONNREFUSED');
    const counted = async (): Promise<readonly (number | undefined)[]> => {
      const counters = await capture.counters(pod(catalog));
      return [counters.get('udp_inbound'), counters.get('udp_outbound')];
    };
    expect(await counted()).toEqual([1, 2]);

    await capture.apply(pod(catalog, { udp: 'allow' }), 'both');
    expect(await probeUdp(web, inbound)).toBe('server');
    expect(await counted()).toEqual([1, 2]);
  });

  test('DNS goes to the ztunnel while captured, also in a pod that refuses UDP, and to the resolver after', async () => {
    const { web, catalog, capture, pod } = bed;
    await using _resolver = await udpServer(web, 53);
    const [command = '', ...args] = udpProbeCommand({ host: '10.9.1.2', port: 53 });
    const client = catalog.spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const answers = createInterface({ input: client.stdout ?? process.stdin })[Symbol.asyncIterator]();
    const ask = async (): Promise<string> => {
      client.stdin?.write('\n');
      return String((await answers.next()).value);
    };
    expect(await ask()).toBe('server');
    {
      await using _relay = await bed.relay(catalog);
      await using _captured = await bed.captured(catalog, 'both', { udp: 'refuse' });
      if (method === 'nftables') expect(await ask()).toBe('dns'); // a socket that was connected before keeps its way with eBPF
      expect(await probeUdp(catalog, { host: '10.9.1.2', port: 53 })).toBe('dns');
      await capture.apply(pod(catalog), 'nothing');
      expect(await ask()).toBe('server');
    }
    expect(await ask()).toBe('server');
    await endProcess(client, 'SIGKILL');
  });

  test.each([
    { family: 'IPv4', resolvers: ['10.9.1.2', '10.9.1.77', '192.0.2.53'] },
    { family: 'IPv6', resolvers: ['fd09:1::2', 'fd09:1::77', '2001:db8::53'] },
  ])('an answer comes from whom was asked, over $family: $resolvers', async ({ resolvers }) => {
    const { catalog } = bed;
    await using _relay = await bed.relay(catalog);
    await using _captured = await bed.captured(catalog, 'both');
    for (const route of ['192.0.2.0/24', '2001:db8::/32']) {
      await catalog.exec('ip', ['route', 'replace', route, 'dev', 'eth0']);
    }
    // As a C library does: each by a connected socket; all of them, at once, by one that is not.
    expect(await askResolvers(catalog, resolvers, 'connected')).toEqual(
      resolvers.map((from) => [from, 'dns']),
    );
    const answers = await askResolvers(catalog, resolvers, 'together');
    expect(answers.map(([, answer]) => answer)).toEqual(resolvers.map(() => 'dns'));
    for (const [from] of answers) expect(resolvers).toContain(from);
  });

  test('DNS over TCP goes to the ztunnel, also in a pod that refuses UDP', async () => {
    const { catalog } = bed;
    await using relay = await bed.relay(catalog);
    await using _captured = await bed.captured(catalog, 'both', { udp: 'refuse' });
    for (const host of ['10.9.1.2', 'fd09:1::2']) {
      // Nobody listens there.
      expect(await probeTcp(catalog, { host, port: 53 })).toBe('connected');
    }
    expect(relay.connections).toEqual([]);
  });

  test('a client that closes its DNS connection first leaves none behind at the ztunnel', async () => {
    const { catalog } = bed;
    await using _relay = await bed.relay(catalog);
    await using _captured = await bed.captured(catalog, 'both');
    for (const host of ['10.9.1.2', 'fd09:1::2']) {
      expect(await catalog.exec(PYTHON, ['-c', DNS_CLIENT, host])).toBe('dns\n');
    }
    await eventually('no socket of the resolver is left', async () => {
      const sockets = await catalog.exec('ss', ['-Htn', 'state', 'connected', 'sport = :15053']);
      return sockets.trim() === '';
    });
  });
});

const DNS_CLIENT =
  'import socket, sys; client = socket.create_connection((sys.argv[1], 53)); print(client.recv(3).decode()); client.close()';
