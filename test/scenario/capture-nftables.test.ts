import { once } from 'node:events';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CaptureBed, makeCaptureBed } from '#test/kit/capture-bed.ts';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';

/** What only packet rules have to do. */
let bed: CaptureBed;

beforeAll(async () => {
  bed = await makeCaptureBed('nftables');
});
afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
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

const SLOW_RESOLVER =
  "const s = require('dgram').createSocket('udp6'); s.on('message', (m, f) => setTimeout(() => s.send('server', f.port, f.address), 400)); s.bind(53, () => console.log('up'))";

test('what was tracked while a pod was captured is forgotten with its rules', async () => {
  const { web, catalog } = bed;
  const resolver = web.spawn(process.execPath, ['-e', SLOW_RESOLVER], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(resolver.stdout ?? process.stdin, 'data');
  const ask = (): Promise<string> => catalog.exec(process.execPath, ['-e', ASK_FROM_ONE_PORT]);
  {
    await using _relay = await bed.relay(catalog);
    await using _captured = await bed.captured(catalog, 'both');
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
  await endProcess(resolver);
});

test('rules are put in place over what a crashed agent left, and removed without a trace', async () => {
  const { catalog, capture, pod } = bed;
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
