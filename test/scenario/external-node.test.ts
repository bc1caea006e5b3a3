import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { curlFrom } from '#test/kit/calls.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Mesh } from '#test/kit/mesh.ts';
import { openStockBed, type StockBed } from '#test/kit/stock/bed.ts';
import type { Entry } from '#test/kit/stock/journal.ts';
import type { StockZtunnel } from '#test/kit/stock/player.ts';
import { ADS_METADATA, ADS_REQUESTS, CSR, ZDS } from '#test/kit/stock/recording.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#test/kit/stock/tables.ts';
import { bytesField } from '#test/kit/stock/wire.ts';
import { serviceYaml } from '#test/kit/yaml.ts';

const UNAUTHENTICATED = 16;
const PERMISSION_DENIED = 7;
const STORE = 'spiffe://cluster.local/ns/depot/sa/store';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';

const ADD = ZDS.filter(({ fd }) => fd).map(({ hex }) => hex);
const [HELLO, ACK] = ZDS.filter(({ direction }) => direction === '<-').map(({ hex }) => hex);
const REFUSED = ZDS.at(-1)?.hex ?? '';
const SNAPSHOT_SENT = '1a00';

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

function token(node: string): string {
  return readFileSync(join(mesh.state, 'tokens', node), 'utf8');
}

/** The uid under which a pod's node agent tells of it. */
function uidOf(namespace: string, name: string): string {
  const file = join(mesh.state, 'pods', `${namespace}_${name}.json`);
  return (JSON.parse(readFileSync(file, 'utf8')) as { metadata: { uid: string } }).metadata.uid;
}

/** The process that serves ZDS on the external node. */
async function nodeAgentPid(): Promise<number> {
  const arguments_ = `node-agent\0--state\0${mesh.state}\0--node\0n3`;
  for (const entry of await readdir('/proc')) {
    const commandLine = /^\d+$/.test(entry)
      ? await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')
      : '';
    if (commandLine.includes(arguments_)) return Number(entry);
  }
  throw new Error('no node agent runs');
}

describe('enrolment', () => {
  /** The recorded `add` with other names. */
  const add = (uid: string, name: string, namespace: string, serviceAccount: string): string => {
    const info = [name, namespace, serviceAccount].map((text, i) => bytesField(i + 1, text));
    const body = Buffer.concat([bytesField(1, uid), bytesField(2, Buffer.concat(info))]);
    return bytesField(1, body).toString('hex');
  };
  const addOf = (name: string, serviceAccount: string): string =>
    add(uidOf('depot', name), name, 'depot', serviceAccount);
  const messages = (of: StockZtunnel): readonly string[] =>
    of.entries('zds').map(({ direction, hex, fds }) => `${direction} ${hex}${fds === 1 ? ' fd' : ''}`);

  test('the words that are compared with are the recorded ones', () => {
    expect(ADD).toEqual([add('u-c', 'c', 'default', 'c'), add('u-s1', 's1', 'default', 's')]);
    expect([HELLO, ACK]).toEqual(['0801', '0a00']);
  });

  test('the node agent says what was recorded, message by message', () => {
    expect(messages(stock)).toEqual([
      `<- ${HELLO}`,
      ...[`-> ${SNAPSHOT_SENT}`, `<- ${ACK}`],
      ...[`-> ${addOf('store-1', 'store')} fd`, `<- ${ACK}`],
      ...[`-> ${addOf('picker-1', 'picker')} fd`, `<- ${ACK}`],
    ]);
  });

  test('a ztunnel that starts again is told of the pods that are there, in the recorded order', async () => {
    await stock.stop();
    stock = await bed.startStock();
    const [first, second] = [addOf('store-1', 'store'), addOf('picker-1', 'picker')];
    expect(messages(stock)).toEqual([
      `<- ${HELLO}`,
      ...[`-> ${first} fd`, `<- ${ACK}`],
      ...[`-> ${second} fd`, `<- ${ACK}`],
      ...[`-> ${SNAPSHOT_SENT}`, `<- ${ACK}`],
    ]);
    expect((await curlFrom(mesh, 'depot/picker-1', 'http://catalog.shop:8080/')).code).toBe(0);
  });

  test('a node agent that was killed tells of the same pods again, and nothing is disturbed', async () => {
    const before = messages(stock).length;
    const words = [`-> ${addOf('store-1', 'store')} fd`, `-> ${addOf('picker-1', 'picker')} fd`];
    process.kill(await nodeAgentPid(), 'SIGKILL');
    await eventually('the ztunnel is told of its pods', () => messages(stock).length >= before + 7, 30_000);
    const told = messages(stock).slice(before);
    const acks = words.map(() => `<- ${ACK}`);
    expect(told[0]).toBe(`<- ${HELLO}`);
    expect(told.slice(1, 5).toSorted()).toEqual([...words, ...acks].toSorted()); // In whatever order of pods.
    expect(told.slice(5)).toEqual([`-> ${SNAPSHOT_SENT}`, `<- ${ACK}`]);
    expect((await curlFrom(mesh, 'depot/picker-1', 'http://catalog.shop:8080/')).code).toBe(0);
  });

  test('a pod that the ztunnel refuses is not in the mesh, is tried again, and the connection stays', async () => {
    const error = Buffer.from(REFUSED, 'hex').subarray(4).toString();
    await stock.run({ do: 'refuse-next-add', error });
    const before = messages(stock).length;
    await mesh.run({ namespace: 'depot', name: 'late-1', node: 'n3', command: ['sleep', 'infinity'] }, true);
    const added = `-> ${addOf('late-1', 'default')} fd`;
    expect(messages(stock).slice(before)).toEqual([added, `<- ${REFUSED}`, added, `<- ${ACK}`]);
    expect(mesh.logOf('node-agent-n3')).toContain('Address already in use');
  });

  test('a pod that ends is deleted', async () => {
    const deleted = `-> ${bytesField(2, bytesField(2, uidOf('depot', 'late-1'))).toString('hex')}`;
    const { pid } = (await mesh.status()).workloads.find(({ name }) => name === 'late-1') ?? {};
    if (pid === undefined) throw new Error('late-1 does not run');
    process.kill(pid);
    await eventually('late-1 is deleted', () => messages(stock).includes(deleted));
    await eventually('that is acknowledged', () => messages(stock).at(-1) === `<- ${ACK}`);
    await stock.until('ads response', ({ removed }) => removed.includes('Kubernetes//Pod/depot/late-1'));
  });
});

describe('configuration', () => {
  const responses = (from = 0): readonly (Entry & { event: 'ads response' })[] =>
    stock.entries('ads response').slice(from);
  const namesOf = ({ resources }: Entry & { event: 'ads response' }): readonly string[] =>
    resources.map(({ name }) => name);

  test('the requests are the recorded ones but for the names, and both types are answered', async () => {
    expect(stock.entries('ads stream')[0]?.metadata).toEqual({
      ...ADS_METADATA,
      authorization: `Bearer ${token('n3')}`,
    });
    const requests = stock.entries('ads request').map(({ request }) => request);
    for (const [i, recorded] of ADS_REQUESTS.slice(0, 2).entries()) {
      const { node, ...rest } = requests[i] ?? {};
      const { node: recordedNode, ...recordedRest } = recorded;
      expect(rest).toEqual(recordedRest);
      expect(Object.keys(node?.metadata.fields ?? {})).toEqual(
        Object.keys(recordedNode?.metadata.fields ?? {}),
      );
      expect(node?.id).toMatch(
        /^ztunnel~10\.240\.0\.\d+~ztunnel-n3\.istio-system~istio-system\.svc\.cluster\.local$/,
      );
    }
    const types = new Set(responses().map(({ type }) => type));
    expect([...types]).toEqual([AUTHORIZATION_TYPE, ADDRESS_TYPE]);
    expect(responses().flatMap(({ errors }) => errors)).toEqual([]);
    expect(responses().flatMap(namesOf)).toEqual(
      expect.arrayContaining([
        'Kubernetes//Pod/shop/web-1',
        'Kubernetes//Pod/depot/store-1',
        'shop/catalog.shop.svc.cluster.local',
      ]),
    );
  });

  test('a change arrives as that change alone', async () => {
    const before = responses().length;
    mesh.write('extra.yaml', serviceYaml('shop', 'extra'));
    const name = 'shop/extra.shop.svc.cluster.local';
    await stock.until('ads response', (entry) => namesOf(entry).includes(name));
    mesh.remove('extra.yaml');
    await stock.until('ads response', ({ removed }) => removed.includes(name));
    expect(responses(before)).toMatchObject([
      { type: ADDRESS_TYPE, resources: [{ name }], removed: [], errors: [] },
      { type: ADDRESS_TYPE, resources: [], removed: [name], errors: [] },
    ]);
  });

  test('what the ztunnel rejects shows in the status, by name and reason, until it takes it', async () => {
    const name = 'shop/odd.shop.svc.cluster.local';
    const rejected = async (): Promise<unknown> =>
      (await mesh.status()).nodes.find((node) => node.name === 'n3')?.xds.flatMap((xds) => xds.rejected);
    await stock.run({ do: 'reject', reasons: { [name]: 'unknown mode: 7; giving up' } });
    mesh.write('odd.yaml', serviceYaml('shop', 'odd'));
    await eventually('the rejection is known', async () => JSON.stringify(await rejected()) !== '[]');
    expect(await rejected()).toEqual([{ name, message: 'unknown mode: 7; giving up' }]);
    await stock.run({ do: 'reject', reasons: {} });
    mesh.write('odd.yaml', serviceYaml('shop', 'odd').replace('8080', '8081'));
    await eventually('the rejection is over', async () => JSON.stringify(await rejected()) === '[]');
  });

  test('a ztunnel that comes back gets what has changed meanwhile, and nothing of what it has', async () => {
    await stock.run({ do: 'disconnect-ads' });
    await stock.until('ads end');
    const before = responses().length;
    await stock.run({ do: 'connect-ads' });
    await eventually('both types are answered', () => responses(before).length >= 2);
    expect(responses(before)).toMatchObject([
      { type: AUTHORIZATION_TYPE, resources: [], removed: [] },
      { type: ADDRESS_TYPE, resources: [], removed: [] },
    ]);
    await stock.run({ do: 'disconnect-ads' });
    mesh.remove('odd.yaml');
    mesh.write('new.yaml', serviceYaml('shop', 'new'));
    const hasChanged = (names: readonly string[]): boolean => names.includes('new') && !names.includes('odd');
    await mesh.until('the change is in force', ({ services }) =>
      hasChanged(services.map(({ name }) => name)),
    );
    await stock.run({ do: 'connect-ads' });
    await eventually('both types are answered', () => responses(before).length >= 4);
    expect(responses(before + 2)).toMatchObject([
      { type: AUTHORIZATION_TYPE, resources: [], removed: [] },
      {
        type: ADDRESS_TYPE,
        resources: [{ name: 'shop/new.shop.svc.cluster.local' }],
        removed: ['shop/odd.shop.svc.cluster.local'],
      },
    ]);
  });

  test.each<{ whose: string; token: () => string; code: number }>([
    { whose: 'another node', token: () => token('n1'), code: PERMISSION_DENIED },
    { whose: 'nobody', token: () => 'x'.repeat(43), code: UNAUTHENTICATED },
    { whose: 'none at all', token: () => '', code: UNAUTHENTICATED },
  ])('the token of $whose gets no configuration', async ({ token: make, code }) => {
    expect(await stock.run({ do: 'try-ads', token: make() })).toMatchObject({ code });
  });
});

describe('certificates', () => {
  test('an identity on the node gets leaf, intermediate and root, as a stock ztunnel needs them', async () => {
    const { code, chain } = await stock.run({ do: 'try-certificate', identity: STORE });
    expect({ code, length: chain.length }).toEqual({ code: 0, length: 3 });
    const [leaf, issuing, root] = chain.map((pem) => new X509Certificate(pem));
    if (leaf === undefined || issuing === undefined || root === undefined) throw new Error('not three');
    expect(chain[2]).toBe(readFileSync(join(mesh.state, 'ca', 'root.pem'), 'utf8'));
    expect(
      leaf.verify(issuing.publicKey) && issuing.verify(root.publicKey) && root.verify(root.publicKey),
    ).toBe(true);
    expect(leaf).toMatchObject({ subjectAltName: `URI:${STORE}`, ca: false });
    expect([issuing.ca, root.ca]).toEqual([true, true]);
    expect(leaf.keyUsage?.toSorted()).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    const seconds = (Date.parse(leaf.validTo) - Date.now()) / 1000;
    expect(Math.abs(seconds - CSR.request.validityDuration)).toBeLessThan(60);
  });

  test('the status names the certificate of a workload on the node', async () => {
    const { workloads } = await mesh.status();
    expect(workloads.find(({ name }) => name === 'store-1')?.certificate).not.toBeNull();
  });

  test.each<{ what: string; identity: string; token?: () => string }>([
    { what: 'of another node', identity: WEB },
    { what: 'of nobody', identity: 'spiffe://cluster.local/ns/depot/sa/nobody' },
    { what: 'of another trust domain', identity: STORE.replace('cluster.local', 'evil.example') },
    { what: "with another node's token", identity: STORE, token: () => token('n1') },
    { what: 'without a token', identity: STORE, token: () => '' },
    { what: 'with a wrong token', identity: STORE, token: () => 'x'.repeat(43) },
  ])('an identity $what is refused', async ({ identity, token: make }) => {
    const own = make === undefined ? {} : { token: make() };
    const answer = await stock.run({ do: 'try-certificate', identity, ...own });
    expect(answer).toMatchObject({ code: UNAUTHENTICATED, chain: [] });
  });
});
