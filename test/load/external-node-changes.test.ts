import { appendFileSync, cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AuthorityReport } from '#control-plane/authority-report.ts';
import { authoritiesOf, isInPhase, makeOperatorAuthority, runCa, signingRoot } from '#test/kit/authority.ts';
import { curlFrom } from '#test/kit/calls.ts';
import { eventually } from '#test/kit/eventually.ts';
import { startForeignClient } from '#test/kit/foreign-client.ts';
import { failuresOf, type Load, startLoad, underLoad } from '#test/kit/load.ts';
import type { Mesh } from '#test/kit/mesh.ts';
import { openStockBed, type StockBed } from '#test/kit/stock/bed.ts';
import type { StockZtunnel } from '#test/kit/stock/player.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#test/kit/stock/tables.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml } from '#test/kit/yaml.ts';

const PICKER = 'spiffe://cluster.local/ns/depot/sa/picker';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';

let bed: StockBed;
let mesh: Mesh;
let stock: StockZtunnel;

beforeAll(async () => {
  bed = await openStockBed(['--svid-ttl', '20s']);
  mesh = bed.mesh;
  stock = bed.stock();
});

afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
});

const get = (...call: readonly [from: string, url: string]): ReturnType<typeof curlFrom> =>
  curlFrom(mesh, ...call);

describe('policies', () => {
  const allow = (namespace: string, principal: string): string =>
    policyYaml(namespace, 'allow', `{rules: [{from: [{source: {principals: ["${principal.slice(9)}"]}}]}]}`);
  const works = async (from: string, url: string): Promise<boolean> => (await get(from, url)).code === 0;
  /** Calls until the answer to a CONNECT is 401: a call that the new policy cut halfway had a 200. */
  const refused = async (end: string, call: () => Promise<boolean>): Promise<void> => {
    const before = stock.entries('response').length;
    await eventually(
      'the policy is in force',
      async () =>
        !(await call()) &&
        stock
          .entries('response')
          .slice(before)
          .some((entry) => entry.end === end && entry.status === 401),
    );
  };

  test('our side lets in from the stock side whom its policy allows, and nobody else', async () => {
    mesh.write('policy.yaml', allow('shop', PICKER));
    await refused('client', () => works('depot/store-1', 'http://catalog.shop:8080/'));
    expect(await works('depot/picker-1', 'http://catalog.shop:8080/')).toBe(true);
    expect(await works('outside/outsider-1', `http://${bed.catalog.addresses[0]}:8080/`)).toBe(false);
    mesh.remove('policy.yaml');
    await eventually('it is lifted', () => works('depot/store-1', 'http://catalog.shop:8080/'));
  });

  test('the stock side is told what it needs to do the same', async () => {
    mesh.write(
      'policy.yaml',
      allow('depot', WEB) + peerAuthenticationYaml('depot', 'default', '{mtls: {mode: STRICT}}'),
    );
    await refused('server', () => works('depot/picker-1', 'http://store:8080/'));
    expect(await works('shop/web-1', 'http://store.depot:8080/')).toBe(true);
    expect(await works('outside/outsider-1', `http://${bed.store.addresses[0]}:8080/`)).toBe(false);
    mesh.remove('policy.yaml');
    await eventually('it is lifted', () => works('depot/picker-1', 'http://store:8080/'));
  });
});

test('a namespace leaves the mesh and comes back while the stock ztunnel runs', async () => {
  const before = stock.entries('zds').length;
  const later = (): readonly string[] =>
    stock
      .entries('zds')
      .slice(before)
      .map(({ hex, fds }) => `${hex.slice(0, 2)} ${fds}`);
  mesh.write('depot.yaml', namespaceYaml('depot', false));
  await eventually(
    'both pods are deleted',
    () => later().filter((message) => message === '12 0').length === 2,
  );
  expect((await get('depot/picker-1', 'http://catalog.shop:8080/')).code).toBe(0);
  mesh.write('depot.yaml', namespaceYaml('depot', true));
  await eventually('both pods are added', () => later().filter((message) => message === '0a 1').length === 2);
  await mesh.until('they are enrolled', ({ workloads }) =>
    workloads.filter(({ node }) => node === 'n3').every(({ enrolled }) => enrolled),
  );
  const taken = stock.entries('taken').length;
  expect((await get('shop/web-1', 'http://store.depot:8080/')).code).toBe(0);
  await eventually('it is tunnelled', () =>
    stock
      .entries('taken')
      .slice(taken)
      .some(({ at }) => at === 'hbone'),
  );
});

describe('restarts', () => {
  const urlOf = (workload: StockBed['store']): string => `http://${workload.addresses[0]}:8080/`;

  test('one stock ztunnel after another serves our calls, and no new connection fails', async () => {
    const before = stock;
    const caller = { namespace: 'shop', name: 'caller-1', node: 'n1', url: urlOf(bed.store) };
    const { short } = await underLoad(mesh, caller, async (moreCalls) => {
      stock = await bed.startStock();
      await before.run({ do: 'drain' });
      await moreCalls(30);
      await before.stop();
      await moreCalls(30);
    });
    expect(short.errors).toEqual([]);
    expect(stock.entries('taken').filter(({ at }) => at === 'hbone').length).toBeGreaterThan(0);
  });

  test('our ztunnel restarts under calls of the stock side, and no new connection fails', async () => {
    const caller = { namespace: 'depot', name: 'caller-2', node: 'n3', url: urlOf(bed.catalog) };
    const { short } = await underLoad(mesh, caller, async (moreCalls) => {
      expect((await mesh.tulle('restart', 'ztunnel/n1')).code).toBe(0);
      await moreCalls(30);
    });
    expect(short.errors).toEqual([]);
  });

  test('the control plane restarts, and a stock ztunnel that comes back is sent nothing again', async () => {
    const gone = 'Kubernetes//Pod/depot/caller-2';
    await stock.until('ads response', ({ removed }) => removed.includes(gone));
    const before = stock.entries('ads response').length;
    expect((await mesh.tulle('restart', 'control-plane')).code).toBe(0);
    await stock.until('ads end');
    await stock.run({ do: 'connect-ads' });
    const later = () => stock.entries('ads response').slice(before);
    await eventually('both types are answered', () => later().length >= 2);
    expect(later()).toMatchObject([
      { type: AUTHORIZATION_TYPE, resources: [], removed: [] },
      { type: ADDRESS_TYPE, resources: [], removed: [] },
    ]);
  });
});

describe('another authority', () => {
  /** Of all on the stock node: one runs the load. */
  const ON_STOCK_NODE = ['default', 'picker', 'store'].map(
    (name) => `spiffe://cluster.local/ns/depot/sa/${name}`,
  );

  /** Roots that each identity of the stock ztunnel has now. */
  const rootsOfStock = (): readonly (readonly string[])[] =>
    ON_STOCK_NODE.map(
      (name) => stock.entries('certificate').findLast(({ identity }) => identity === name)?.roots ?? [],
    );
  const stockOf = ({ rotation }: AuthorityReport): unknown =>
    rotation?.clients.find(({ name }) => name === 'node/n3');

  /** How many a ztunnel of ours has refused for their certificates. */
  const refused = (): number =>
    mesh.accessLog('n1').filter(({ error }) => String(error).startsWith('TLS handshake failed: ')).length;

  let loads = 0;
  /** From either side to the other, through services. */
  const bothWays = (): Promise<readonly Load[]> => {
    loads += 1;
    const load = (namespace: string, node: string, host: string): Promise<Load> => {
      const to = { url: `http://${host}:8080/`, tcp: `${host}:9000` };
      return startLoad(mesh, { namespace, name: `rotated-${loads}`, node, ...to });
    };
    return Promise.all([load('shop', 'n1', 'store.depot'), load('depot', 'n3', 'catalog.shop')]);
  };

  /** A folder with the authority that signs now, for certificates of it later on; it trusts those that come, too. */
  const keepAuthority = (): { readonly state: string; readonly trustNext: () => void } => {
    const state = join(mesh.directory, `kept-${loads}`);
    cpSync(join(mesh.state, 'ca'), join(state, 'ca'), { recursive: true });
    const trustNext = (): void =>
      appendFileSync(join(state, 'ca/root.pem'), readFileSync(join(mesh.state, 'ca/root.pem'), 'utf8'));
    return { state, trustNext };
  };

  test.each([
    { which: 'a new one', order: async () => ['rotate'] },
    {
      which: "an operator's",
      order: async () => {
        const { signing, root } = await makeOperatorAuthority(mesh.directory);
        return ['import', ...signing, ...root];
      },
    },
  ])(
    '$which takes over when the stock ztunnel has its root, and no call fails',
    { timeout: 120_000 },
    async ({ order }) => {
      const running = await bothWays();
      const callsGoOn = (): Promise<unknown> => Promise.all(running.map((load) => load.moreCalls(30)));
      await eventually('all are known', () => rootsOfStock().every((roots) => roots.length === 1));
      const before = await authoritiesOf(mesh);
      const old = keepAuthority();
      using foreign = startForeignClient(old.state, bed.outsider.netns, bed.catalog.addresses[0] ?? '');
      const askAsOld = (): ReturnType<typeof foreign.ask> =>
        foreign.ask({ headers: { ':method': 'CONNECT', ':authority': `${bed.catalog.addresses[0]}:8080` } });

      const refusedBefore = refused();
      const args = await order();
      await stock.run({ do: 'hold-renewals', hold: true });
      expect((await runCa(mesh, ...args)).code).toBe(0);
      await eventually('ours has acknowledged the root', async () => {
        const { rotation } = await authoritiesOf(mesh);
        return rotation?.clients.some(({ name, state }) => name === 'node/n1' && state === 'acknowledged');
      });
      await callsGoOn();
      const waiting = await authoritiesOf(mesh);
      expect(waiting.rotation?.phase).toBe('distributing');
      expect(stockOf(waiting)).toMatchObject({ done: false, state: 'holds-older', waitsFor: ON_STOCK_NODE });
      expect(signingRoot(waiting)).toBe(signingRoot(before));

      await stock.run({ do: 'hold-renewals', hold: false });
      await eventually('the new authority signs', () => isInPhase(mesh, 'retiring'), 30_000);
      expect(rootsOfStock().map((roots) => roots.length)).toEqual([2, 2, 2]);
      old.trustNext();
      expect(await askAsOld()).toMatchObject({ kind: 'response', status: 200 });
      await callsGoOn();

      await eventually('the old root is gone', () => isInPhase(mesh, undefined), 60_000);
      const after = await authoritiesOf(mesh);
      expect(after.trusted).toEqual([signingRoot(after)]);
      expect(after.trusted).not.toEqual(before.trusted);
      await eventually(
        'ours refuses what the old one signs',
        async () => (await askAsOld()).kind === 'failed',
      );
      await eventually('its record', () => refused() > refusedBefore);
      await eventually(
        'the stock side trusts the new root alone',
        () => rootsOfStock().every((roots) => roots.join() === after.trusted.join()),
        30_000,
      );
      await callsGoOn();
      const reports = await Promise.all(running.map((load) => load.end()));
      expect(reports.flatMap(failuresOf)).toEqual([]);
    },
  );
});

test('the stock ztunnel had nothing to complain of', () => {
  expect(stock.errors()).toBe('');
  expect(stock.entries('tls failed')).toEqual([]);
});
