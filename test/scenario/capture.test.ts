import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { createNetns, linkNetns, type Netns } from '#test/kit/netns.ts';
import { probeTcp, probeUdp, udpProbeCommand } from '#test/kit/netns-probe.ts';
import { loadCommand, serverCommand } from '#test/kit/programs/programs.ts';
import { startRelay } from '#test/kit/relay.ts';
import { type CapturedPod, CaptureError } from '#ztunnel/capture/capture.ts';
import { createNftablesCapture } from '#ztunnel/capture/nftables.ts';

/** Two pods side by side; `catalog` serves HTTP on 8080 and echoes on 9000, `web` calls it. A relay plays the ztunnel. */
let web: Netns;
let catalog: Netns;
let directory: string;
const capture = createNftablesCapture();

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-capture-'));
  web = await createNetns('capture-web');
  catalog = await createNetns('capture-catalog');
  await linkNetns(
    { netns: web, device: 'eth0', addresses: ['10.9.1.2/24', '169.254.7.127/32', 'fd09:1::2/64'] },
    { netns: catalog, device: 'eth0', addresses: ['10.9.1.3/24', 'fd09:1::3/64'] },
  );
  await catalog.exec('ip', ['route', 'add', '169.254.7.127', 'dev', 'eth0']);
  const [command = '', ...args] = serverCommand('catalog');
  catalog.spawn(command, args, { stdio: 'inherit' });
  await eventually(
    'the server listens',
    async () => (await probeTcp(web, { host: 'fd09:1::3', port: 8080 })) === 'connected',
  );
});

afterAll(async () => {
  await web?.remove();
  await catalog?.remove();
  rmSync(directory, { recursive: true, force: true });
});

function pod(netns: Netns, udp: 'allow' | 'refuse' = 'allow'): CapturedPod {
  return { uid: netns.name, netnsPath: netns.path, udp };
}

/** Captures for the length of a test. */
async function captured(
  netns: Netns,
  scope: 'both' | 'outbound',
  udp: 'allow' | 'refuse' = 'allow',
): Promise<AsyncDisposable> {
  await capture.apply(pod(netns, udp), scope);
  return { [Symbol.asyncDispose]: () => capture.remove(pod(netns)) };
}

test.each([
  { family: 'IPv4', host: '10.9.1.3', url: 'http://10.9.1.3:8080/' },
  { family: 'IPv6', host: 'fd09:1::3', url: 'http://[fd09:1::3]:8080/' },
])(
  'connections old and new outlive being captured and released, again and again, over $family',
  async ({ family, host, url }) => {
    const file = join(directory, `load-${family}.json`);
    const [command = '', ...args] = loadCommand(url, `${host}:9000`, file);
    const load = web.spawn(command, args, { stdio: 'inherit' });
    const calls = (): number => JSON.parse(readFileSync(`${file}.live`, 'utf8')).short.ok;
    const moreCalls = async (): Promise<void> => {
      const before = calls();
      await eventually('more calls', () => calls() > before + 20);
    };
    await eventually('the load runs', () => calls() > 20);

    for (let turn = 0; turn < 3; turn++) {
      await using outbound = await startRelay(web.path);
      await using inbound = await startRelay(catalog.path);
      for (const scope of ['outbound', 'both', 'outbound', 'nothing', 'both'] as const) {
        await Promise.all([web, catalog].map((netns) => capture.apply(pod(netns), scope)));
        await moreCalls();
      }
      expect(outbound.connections).toContainEqual({
        direction: 'outbound',
        from: expect.any(String),
        to: { ip: host, port: 8080 },
      });
      expect(inbound.connections).toContainEqual({
        direction: 'inbound',
        from: expect.any(String),
        to: { ip: host, port: 8080 },
      });
      await Promise.all([web, catalog].map((netns) => capture.apply(pod(netns), 'nothing')));
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
      await capture.remove(pod(netns));
    }
  },
);

test('the application sees its caller, not the ztunnel', async () => {
  await using relay = await startRelay(catalog.path);
  await using _captured = await captured(catalog, 'both');
  for (const { host, caller } of [
    { host: '10.9.1.3', caller: '::ffff:10.9.1.2' },
    { host: '[fd09:1::3]', caller: 'fd09:1::2' },
  ]) {
    const answer = await web.exec('curl', ['-sS', '--max-time', '5', `http://${host}:8080/`]);
    expect(JSON.parse(answer).remoteAddress).toBe(caller);
  }
  expect(relay.connections).toHaveLength(2);
});

test('a captured pod without a ztunnel is closed, in both directions', async () => {
  await using _web = await captured(web, 'both');
  expect(await probeTcp(web, { host: '10.9.1.3', port: 8080 })).toBe('ECONNREFUSED');
  expect(await probeTcp(web, { host: 'fd09:1::3', port: 8080 })).toBe('ECONNREFUSED');
  expect(await probeTcp(catalog, { host: '10.9.1.2', port: 8080 })).toBe('ECONNREFUSED');
});

test.each(['outbound', 'both'] as const)(
  'what is not redirected does not reach the ztunnel (%s)',
  async (scope) => {
    await using relay = await startRelay(catalog.path);
    await using _captured = await captured(catalog, scope);
    for (const port of [15001, 15006, 15053]) {
      expect(await probeTcp(web, { host: '10.9.1.3', port })).toBe('ECONNREFUSED');
      expect(await probeTcp(web, { host: 'fd09:1::3', port })).toBe('ECONNREFUSED');
    }
    expect(relay.connections).toEqual([]);
  },
);

test('probes of the node, tunnels, and calls of a pod to itself are left alone', async () => {
  await using relay = await startRelay(catalog.path);
  await using _captured = await captured(catalog, 'both');
  const listen = "require('net').createServer((s) => s.end()).listen(15008, '::', () => console.log('up'))";
  const tunnel = catalog.spawn(process.execPath, ['-e', listen], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(tunnel.stdout ?? process.stdin, 'data');
  expect(await probeTcp(web, { host: '10.9.1.3', port: 8080, source: '169.254.7.127' })).toBe('connected');
  expect(await probeTcp(web, { host: '10.9.1.3', port: 15008 })).toBe('connected');
  expect(await probeTcp(catalog, { host: '10.9.1.3', port: 8080 })).toBe('connected');
  expect(await probeTcp(catalog, { host: '127.0.0.1', port: 8080 })).toBe('connected');
  expect(relay.connections).toEqual([]);
  await endProcess(tunnel);
});

const ASK_FROM_ONE_PORT = `const s = require('dgram').createSocket('udp4');
s.bind(40053, () => s.connect(53, '10.9.1.2', () => s.send('question')));
const print = (what) => { process.stdout.write(String(what)); process.exit(); };
s.on('message', print).on('error', print);
setTimeout(print, 3000, 'lost');`;

const TRANSLATION_WITHOUT_RULES = `table inet other {
  chain input { type nat hook input priority 100;
    ct state new counter
  }
}
`;

const UDP_SERVER =
  "const s = require('dgram').createSocket('udp6'); s.on('message', (m, f) => setTimeout(() => s.send('server', f.port, f.address), Number(process.argv[2]))); s.bind(Number(process.argv[1]), () => console.log('up'))";

/** A UDP server in a namespace that answers `server`, after some milliseconds. */
async function udpServer(netns: Netns, port: number, delayMs = 0): Promise<AsyncDisposable> {
  const child = netns.spawn(process.execPath, ['-e', UDP_SERVER, `${port}`, `${delayMs}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout ?? process.stdin, 'data');
  return { [Symbol.asyncDispose]: async () => void (await endProcess(child, 'SIGKILL')) };
}

test('UDP passes a pod that allows it, and is refused and counted by one that does not', async () => {
  await using _inWeb = await udpServer(web, 4444);
  await using _inCatalog = await udpServer(catalog, 4444);
  await using _captured = await captured(catalog, 'both', 'allow');
  const inbound = { host: '10.9.1.3', port: 4444 };
  const outbound = { host: 'fd09:1::2', port: 4444 };
  expect(await probeUdp(web, inbound)).toBe('server');
  expect(await probeUdp(catalog, outbound)).toBe('server');

  await capture.apply(pod(catalog, 'refuse'), 'both');
  expect(await probeUdp(web, inbound)).toBe('ECONNREFUSED');
  expect(await probeUdp(catalog, outbound, 2)).toBe('ECONNREFUSED,ECONNREFUSED');
  expect(await capture.countRefusedUdp(pod(catalog))).toEqual({ inbound: 1, outbound: 2 });

  await capture.apply(pod(catalog, 'allow'), 'both');
  expect(await probeUdp(web, inbound)).toBe('server');
  expect(await capture.countRefusedUdp(pod(catalog))).toEqual({ inbound: 1, outbound: 2 });
});

test('DNS goes to the ztunnel while captured, also in a pod that refuses UDP, and to the resolver after', async () => {
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
    await using _relay = await startRelay(catalog.path);
    await using _captured = await captured(catalog, 'both', 'refuse');
    expect(await ask()).toBe('dns');
    await capture.apply(pod(catalog), 'nothing');
    expect(await ask()).toBe('server');
  }
  expect(await ask()).toBe('server');
  await endProcess(client, 'SIGKILL');
});

test('what was tracked while a pod was captured is forgotten with its rules', async () => {
  await using _resolver = await udpServer(web, 53, 400);
  const ask = (): Promise<string> => catalog.exec(process.execPath, ['-e', ASK_FROM_ONE_PORT]);
  {
    await using _relay = await startRelay(catalog.path);
    await using _captured = await captured(catalog, 'both');
    expect(await ask()).toBe('dns');
  }
  // The answer comes when addresses are translated again, and nobody has seen the question.
  const answer = ask();
  await eventually('the question is on its way', async () =>
    (await catalog.exec('ss', ['-Huan'])).includes(':40053'),
  );
  await catalog.exec('nft', ['-f', '-'], TRANSLATION_WITHOUT_RULES);
  expect(await answer).toBe('server');
  await catalog.exec('nft', ['delete', 'table', 'inet', 'other']);
});

test('rules are put in place over what a crashed agent left, and removed without a trace', async () => {
  const before = await catalog.exec('ip', ['rule']);
  await catalog.exec('nft', ['add', 'table', 'inet', 'tulle']);
  await catalog.exec('ip', ['rule', 'add', 'fwmark', '0x111/0xfff', 'pref', '32764', 'lookup', '100']);
  for (const scope of ['both', 'outbound', 'nothing', 'both'] as const) {
    await capture.apply(pod(catalog), scope);
    expect(await capture.scopeOf(pod(catalog))).toBe(scope);
  }
  expect(await catalog.exec('ip', ['-6', 'rule'])).toContain('fwmark 0x111/0xfff lookup 100');
  expect(await catalog.exec('cat', ['/proc/sys/net/ipv4/tcp_migrate_req'])).toBe('1\n');
  await capture.remove(pod(catalog));
  await capture.remove(pod(catalog));
  expect(await capture.scopeOf(pod(catalog))).toBeUndefined();
  expect(await catalog.exec('nft', ['list', 'ruleset'])).toBe('');
  expect(await catalog.exec('ip', ['rule'])).toBe(before);
});

test('a failure names the pod, what the tool said and what to do; a pod that is gone has nothing to remove', async () => {
  const gone = { uid: 'uid-1', netnsPath: '/run/netns/tulletest-no-such', udp: 'allow' } as const;
  await expect(capture.apply(gone, 'both')).rejects.toThrow(CaptureError);
  await expect(capture.apply(gone, 'both')).rejects.toThrow(
    /pod uid-1: .*tulletest-no-such.* The pod is gone/,
  );
  expect(await capture.countCaptured(gone)).toBe(0);
  expect(await capture.scopeOf(gone)).toBeUndefined();
  await capture.remove(gone);
});
