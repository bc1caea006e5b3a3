import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import type { HboneRequest } from '#test/kit/stock/commands.ts';
import type { Entry } from '#test/kit/stock/journal.ts';
import { type StockZtunnel, startStockZtunnel } from '#test/kit/stock/player.ts';
import { ADS_METADATA, ADS_REQUESTS, CSR, FROM_CLIENT, FROM_SERVER, ZDS } from '#test/kit/stock/recording.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#test/kit/stock/tables.ts';
import { bytesField } from '#test/kit/stock/wire.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';

const UNAUTHENTICATED = 16;
const PERMISSION_DENIED = 7;
const PICKER = 'spiffe://cluster.local/ns/depot/sa/picker';
const STORE = 'spiffe://cluster.local/ns/depot/sa/store';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';

const ADD = ZDS.filter(({ fd }) => fd).map(({ hex }) => hex);
const [HELLO, ACK] = ZDS.filter(({ direction }) => direction === '<-').map(({ hex }) => hex);
const REFUSED = ZDS.at(-1)?.hex ?? '';
const SNAPSHOT_SENT = '1a00';

let mesh: Mesh;
let stock: StockZtunnel;
let web: WorkloadStatus;
let catalog: WorkloadStatus;
let picker: WorkloadStatus;
let store: WorkloadStatus;

beforeAll(async () => {
  const namespaces = namespaceYaml('shop', true) + namespaceYaml('outside', false);
  mesh = await openMesh({
    files: {
      'mesh.yaml': namespaces + serviceYaml('shop', 'catalog') + serviceYaml('depot', 'store'),
      'depot.yaml': namespaceYaml('depot', true),
    },
    flags: ['--nodes', 'n1', '--external-node', 'n3'],
  });
  stock = await startStock();
  await stock.until('ready');
  const idle = ['sleep', 'infinity'];
  const runs = [
    {
      namespace: 'depot',
      name: 'store-1',
      serviceAccount: 'store',
      node: 'n3',
      command: serverCommand('store-1'),
    },
    { namespace: 'depot', name: 'picker-1', serviceAccount: 'picker', node: 'n3', command: idle },
    {
      namespace: 'shop',
      name: 'catalog-1',
      serviceAccount: 'catalog',
      node: 'n1',
      command: serverCommand('catalog-1'),
    },
    { namespace: 'shop', name: 'web-1', serviceAccount: 'web', node: 'n1', command: idle },
  ].map((run) => ({ ...run, labels: { app: run.serviceAccount } }));
  const started: WorkloadStatus[] = [];
  for (const run of runs) started.push(await mesh.run(run, true));
  [store, picker, catalog, web] = started as [WorkloadStatus, WorkloadStatus, WorkloadStatus, WorkloadStatus];
  await mesh.run({ namespace: 'outside', name: 'outsider', node: 'n1', command: idle }, false);
});

afterAll(async () => {
  await stock?.stop();
  await mesh?.[Symbol.asyncDispose]();
});

async function startStock(): Promise<StockZtunnel> {
  const { nodes } = await mesh.status();
  const { netns = '' } = nodes.find(({ name }) => name === 'n3') ?? {};
  return startStockZtunnel(netns, join(mesh.state, 'run', 'n3', 'ztunnel.env'));
}

function get(from: string, url: string, ...flags: readonly string[]): ReturnType<Mesh['exec']> {
  return mesh.exec(from, ['curl', '-sS', '-m', '5', ...flags, url]);
}

function token(node: string): string {
  return readFileSync(join(mesh.state, 'tokens', node), 'utf8');
}

/** The uid under which a pod's node agent tells of it. */
function uidOf(namespace: string, name: string): string {
  const file = join(mesh.state, 'pods', `${namespace}_${name}.json`);
  return (JSON.parse(readFileSync(file, 'utf8')) as { metadata: { uid: string } }).metadata.uid;
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
    stock = await startStock();
    await stock.until('ready');
    const [first, second] = [addOf('store-1', 'store'), addOf('picker-1', 'picker')];
    expect(messages(stock)).toEqual([
      `<- ${HELLO}`,
      ...[`-> ${first} fd`, `<- ${ACK}`],
      ...[`-> ${second} fd`, `<- ${ACK}`],
      ...[`-> ${SNAPSHOT_SENT}`, `<- ${ACK}`],
    ]);
    expect((await get('depot/picker-1', 'http://catalog.shop:8080/')).code).toBe(0);
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

describe('traffic', () => {
  const addressSeen = async (from: string, url: string, ...flags: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await get(from, url, ...flags);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return (JSON.parse(stdout) as { remoteAddress: string }).remoteAddress.replace('::ffff:', '');
  };
  const recorded = (from: typeof FROM_CLIENT, kind: string, nth = 0): unknown =>
    from.filter(([first]) => first === kind)[nth]?.[1];

  test.each([
    { family: '-4', nth: 0 },
    { family: '-6', nth: 1 },
  ])(
    "our side calls the stock side ($family) and the application sees the caller's address",
    async ({ family, nth }) => {
      expect(await addressSeen('shop/web-1', 'http://store.depot:8080/', family)).toBe(web.addresses[nth]);
      const address = store.addresses[nth] ?? '';
      expect(
        await addressSeen('shop/web-1', `http://${address.includes(':') ? `[${address}]` : address}:8080/`),
      ).toBe(web.addresses[nth]);
    },
  );

  test('what our client says is what a stock client was recorded to say', async () => {
    const tls = await stock.until('tls', ({ end, san }) => end === 'server' && san === `URI:${WEB}`);
    const expected = recorded(FROM_CLIENT, 'tls') as object;
    expect(tls).toEqual({ event: 'tls', end: 'server', ...expected, san: `URI:${WEB}`, peer: tls.peer });
    const settings = await stock.until('settings', ({ end }) => end === 'server');
    expect(settings.settings).toEqual(recorded(FROM_CLIENT, 'settings'));
    await stock.until('ping answered', ({ end }) => end === 'server');
    const { headers } = await stock.until(
      'request',
      (entry) => entry.end === 'server' && String(entry.headers['forwarded']).includes('host='),
    );
    const stockHeaders = recorded(FROM_CLIENT, 'headers', 1) as Record<string, string>;
    // The name by which it could be handed over, which a stock server does not read, is the only addition.
    expect(Object.keys(headers)).toEqual([...Object.keys(stockHeaders), 'x-tulle-connection']);
    expect(headers).toEqual({
      ':method': 'CONNECT',
      ':authority': expect.stringMatching(
        new RegExp(`^(${store.addresses[0]}|\\[${store.addresses[1]}\\]):8080$`),
      ),
      baggage: expect.stringMatching(
        /^k8s\.cluster\.name=Kubernetes,k8s\.namespace\.name=shop,.*service\.name=web/,
      ),
      forwarded: expect.stringMatching(/^for="[^"]+:\d+";host=store\.depot\.svc\.cluster\.local$/),
      traceparent: expect.stringMatching(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/),
      'x-tulle-connection': expect.stringMatching(/^[0-9a-f]{32}$/),
    });
    await stock.until('stream closed', ({ end, code }) => end === 'server' && code === 0);
  });

  test.each([
    { family: '-4', nth: 0 },
    { family: '-6', nth: 1 },
  ])(
    "the stock side calls our side ($family) and the application sees the caller's address",
    async ({ family, nth }) => {
      expect(await addressSeen('depot/picker-1', 'http://catalog.shop:8080/', family)).toBe(
        picker.addresses[nth],
      );
      const record = await eventually('an access record', () =>
        mesh.accessLog('n1').findLast((line) => line['src.identity'] === PICKER),
      );
      expect(record).toMatchObject({
        direction: 'inbound',
        message: 'connection complete',
        'src.workload': 'picker-1',
        'dst.workload': 'catalog-1',
        'dst.service': 'catalog.shop.svc.cluster.local',
      });
    },
  );

  test('what our server says is what a stock server was recorded to say', async () => {
    const tls = await stock.until('tls', ({ end, san }) => end === 'client' && san.endsWith('/sa/catalog'));
    const { group, cipher, protocol } = recorded(FROM_SERVER, 'tls') as Record<string, unknown>;
    expect(tls).toMatchObject({ cipher, protocol, group: (group as { name: string }).name, alpn: 'h2' });
    const isOfCatalog = (entry: Entry & { event: 'settings' }): boolean =>
      entry.end === 'client' && stock.journal.indexOf(entry) > stock.journal.indexOf(tls);
    const { settings } = await stock.until('settings', isOfCatalog);
    expect(settings).toEqual(recorded(FROM_SERVER, 'settings'));
    await stock.until('ping answered', ({ end }) => end === 'client');
    const { headers } = await stock.until('response', ({ end }) => end === 'client');
    expect(Object.keys(headers)).toEqual(['baggage']);
    expect(headers['baggage']).toMatch(/^k8s\.cluster\.name=Kubernetes,k8s\.namespace\.name=shop/);
  });

  test('our server answers each recorded request as a stock server did', async () => {
    const ip = catalog.addresses[0] ?? '';
    const [vip] = (await mesh.status()).services.find(({ name }) => name === 'catalog')?.addresses ?? [];
    const connect = (authority: string, more: HboneRequest['headers'] = {}): HboneRequest => ({
      headers: { ':method': 'CONNECT', ':authority': authority, ...more },
      body: 'GET / HTTP/1.1\r\nhost: catalog\r\nconnection: close\r\n\r\n',
    });
    const baggage = 'k8s.cluster.name=Kubernetes,k8s.namespace.name=depot,service.name=picker';
    const requests = new Map<string, HboneRequest>([
      ['ip:port', connect(`${ip}:8080`)],
      ['with forwarded and baggage', connect(`${ip}:8080`, { forwarded: 'for="10.1.1.1:1"', baggage })],
      ['hostname authority', connect('catalog.shop.svc.cluster.local:8080')],
      ['vip authority', connect(`${vip}:8080`)],
      ['other pod', connect(`${web.addresses[0]}:8080`)],
      ['closed port', connect(`${ip}:9999`)],
      ['loopback', connect('127.0.0.1:8080')],
      ...['15008', '15001', '15006'].map((port) => [`port ${port}`, connect(`${ip}:${port}`)] as const),
      ['no port', connect(ip)],
      [
        'GET',
        { headers: { ':method': 'GET', ':path': '/', ':scheme': 'https', ':authority': `${ip}:8080` } },
      ],
    ]);
    const answers = await stock.run({ do: 'ask', pod: 'picker-1', ip, requests: [...requests.values()] });
    const statuses = [...requests.keys()].map((name, i) => [name, answers[i]?.status, answers[i]?.code]);
    const recordedStatuses = FROM_SERVER.filter(([, what]) => what === 'response').map(
      ([name, , headers]) => [
        name,
        (headers as { ':status': number })[':status'],
        FROM_SERVER.find(([other, what]) => other === name && what === 'close rst')?.[2],
      ],
    );
    expect(statuses).toEqual(recordedStatuses);
    for (const { status, body } of answers) expect(body.startsWith('HTTP/1.1 200')).toBe(status === 200);
  });

  test('a call between pods of the stock node goes through a tunnel as well', async () => {
    expect(await addressSeen('depot/picker-1', 'http://store:8080/')).toBe(picker.addresses.at(-1));
    await stock.until('tls', ({ end, san }) => end === 'server' && san === `URI:${PICKER}`);
  });

  test.each([
    { from: 'shop/web-1', to: 'store.depot' },
    { from: 'depot/picker-1', to: 'catalog.shop' },
  ])(
    '$from loads megabytes from $to and sends them, each direction ended by itself',
    async ({ from, to }) => {
      const { stdout } = await get(
        from,
        `http://${to}:8080/bytes/20000000`,
        '-o',
        '/dev/null',
        '-w',
        '%{size_download}',
      );
      expect(stdout).toBe('20000000');
      const script = `import socket, threading
s = socket.create_connection(('${to}', 9000))
def send():
    s.sendall(b'x' * 6000000)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
n = 0
while data := s.recv(65536): n += len(data)
print(n)`;
      const echoed = await mesh.exec(from, ['python3', '-c', script]);
      expect(echoed).toMatchObject({ stdout: '6000000\n', stderr: '' });
    },
  );

  test.each([
    { from: 'shop/web-1', to: () => store },
    { from: 'depot/picker-1', to: () => catalog },
  ])('a closed port refuses $from', async ({ from, to }) => {
    expect([7, 52, 56]).toContain((await get(from, `http://${to().addresses[0]}:9999/`)).code);
  });

  test('plaintext from outside the mesh reaches the stock side with its address', async () => {
    const outsider = (await mesh.status()).workloads.find(({ name }) => name === 'outsider');
    expect(await addressSeen('outside/outsider', `http://${store.addresses[0]}:8080/`)).toBe(
      outsider?.addresses[0],
    );
    await stock.until('taken', ({ at, pod }) => at === 'inbound' && pod === 'depot/store-1');
  });
});

describe('policies', () => {
  const allow = (namespace: string, principal: string): string =>
    policyYaml(namespace, 'allow', `{rules: [{from: [{source: {principals: ["${principal.slice(9)}"]}}]}]}`);
  const works = async (from: string, url: string): Promise<boolean> => (await get(from, url)).code === 0;

  test('our side lets in from the stock side whom its policy allows, and nobody else', async () => {
    mesh.write('policy.yaml', allow('shop', PICKER));
    await eventually(
      'the policy is in force',
      async () => !(await works('depot/store-1', 'http://catalog.shop:8080/')),
    );
    await stock.until('response', ({ end, status }) => end === 'client' && status === 401);
    expect(await works('depot/picker-1', 'http://catalog.shop:8080/')).toBe(true);
    expect(await works('outside/outsider', `http://${catalog.addresses[0]}:8080/`)).toBe(false);
    mesh.remove('policy.yaml');
    await eventually('it is lifted', () => works('depot/store-1', 'http://catalog.shop:8080/'));
  });

  test('the stock side is told what it needs to do the same', async () => {
    mesh.write(
      'policy.yaml',
      allow('depot', WEB) + peerAuthenticationYaml('depot', 'default', '{mtls: {mode: STRICT}}'),
    );
    await eventually(
      'the policy is in force',
      async () => !(await works('depot/picker-1', 'http://store:8080/')),
    );
    await stock.until('response', ({ end, status }) => end === 'server' && status === 401);
    expect(await works('shop/web-1', 'http://store.depot:8080/')).toBe(true);
    expect(await works('outside/outsider', `http://${store.addresses[0]}:8080/`)).toBe(false);
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

test('the stock ztunnel had nothing to complain of', () => {
  expect(stock.errors()).toBe('');
  expect(stock.entries('tls failed')).toEqual([]);
});
