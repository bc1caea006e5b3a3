import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Mesh } from '#test/kit/mesh.ts';
import { loadCommand } from '#test/kit/programs/programs.ts';
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
  bed = await openStockBed();
  mesh = bed.mesh;
  stock = bed.stock();
});

afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
});

function get(from: string, url: string, ...flags: readonly string[]): ReturnType<Mesh['exec']> {
  return mesh.exec(from, ['curl', '-sS', '-m', '5', ...flags, url]);
}

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
  interface Outcome {
    readonly ok: number;
    readonly errors: readonly string[];
  }

  /** Runs new connections one after another while something happens; how they went. */
  const underLoad = async (
    run: { readonly namespace: string; readonly name: string; readonly node: string; readonly url: string },
    happen: (moreCalls: (n: number) => Promise<void>) => Promise<void>,
  ): Promise<Outcome> => {
    const file = join(mesh.directory, `${run.name}.json`);
    const load = await mesh.run({ ...run, command: loadCommand(run.url, '', file) }, true);
    const read = (path: string): Outcome =>
      (JSON.parse(readFileSync(path, 'utf8')) as { short: Outcome }).short;
    const moreCalls = async (n: number): Promise<void> => {
      const start = read(`${file}.live`).ok;
      await eventually(`${n} more calls`, () => read(`${file}.live`).ok >= start + n, 30_000);
    };
    await eventually('the load runs', () => read(`${file}.live`).ok > 20);
    await happen(moreCalls);
    await endProcess(load.child);
    return read(file);
  };
  const urlOf = (workload: StockBed['store']): string => `http://${workload.addresses[0]}:8080/`;

  test('one stock ztunnel after another serves our calls, and no new connection fails', async () => {
    const before = stock;
    const caller = { namespace: 'shop', name: 'caller-1', node: 'n1', url: urlOf(bed.store) };
    const { errors } = await underLoad(caller, async (moreCalls) => {
      stock = await bed.startStock();
      await before.run({ do: 'drain' });
      await moreCalls(30);
      await before.stop();
      await moreCalls(30);
    });
    expect(errors).toEqual([]);
    expect(stock.entries('taken').filter(({ at }) => at === 'hbone').length).toBeGreaterThan(0);
  });

  test('our ztunnel restarts under calls of the stock side, and no new connection fails', async () => {
    const caller = { namespace: 'depot', name: 'caller-2', node: 'n3', url: urlOf(bed.catalog) };
    const { errors } = await underLoad(caller, async (moreCalls) => {
      expect((await mesh.tulle('restart', 'ztunnel/n1')).code).toBe(0);
      await moreCalls(30);
    });
    expect(errors).toEqual([]);
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

test('the stock ztunnel had nothing to complain of', () => {
  expect(stock.errors()).toBe('');
  expect(stock.entries('tls failed')).toEqual([]);
});
