import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { curlFrom } from '#test/kit/calls.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Mesh } from '#test/kit/mesh.ts';
import { openStockBed, type StockBed } from '#test/kit/stock/bed.ts';
import type { HboneRequest } from '#test/kit/stock/commands.ts';
import type { Entry } from '#test/kit/stock/journal.ts';
import type { StockZtunnel } from '#test/kit/stock/player.ts';
import { FROM_CLIENT, FROM_SERVER } from '#test/kit/stock/recording.ts';

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

const get = (
  ...call: readonly [from: string, url: string, ...flags: string[]]
): ReturnType<typeof curlFrom> => curlFrom(mesh, ...call);

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
      expect(await addressSeen('shop/web-1', 'http://store.depot:8080/', family)).toBe(
        bed.web.addresses[nth],
      );
      const address = bed.store.addresses[nth] ?? '';
      expect(
        await addressSeen('shop/web-1', `http://${address.includes(':') ? `[${address}]` : address}:8080/`),
      ).toBe(bed.web.addresses[nth]);
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
        new RegExp(`^(${bed.store.addresses[0]}|\\[${bed.store.addresses[1]}\\]):8080$`),
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
        bed.picker.addresses[nth],
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
    const ip = bed.catalog.addresses[0] ?? '';
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
      ['other pod', connect(`${bed.web.addresses[0]}:8080`)],
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
    expect(await addressSeen('depot/picker-1', 'http://store:8080/')).toBe(bed.picker.addresses.at(-1));
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
    { from: 'shop/web-1', to: () => bed.store },
    { from: 'depot/picker-1', to: () => bed.catalog },
  ])('a closed port resets the connection of $from', async ({ from, to }) => {
    // Said at once or when it is read from: curl has a code for each.
    const script = `import socket
try: socket.create_connection(('${to().addresses[0]}', 9999)).recv(1)
except OSError as error: print(type(error).__name__)`;
    const { stdout } = await mesh.exec(from, ['python3', '-c', script]);
    expect(stdout).toBe('ConnectionResetError\n');
  });

  test('plaintext from outside the mesh reaches the stock side with its address', async () => {
    const seen = await addressSeen('outside/outsider-1', `http://${bed.store.addresses[0]}:8080/`);
    expect(seen).toBe(bed.outsider.addresses[0]);
    await stock.until('taken', ({ at, pod }) => at === 'inbound' && pod === 'depot/store-1');
  });
});

test('the stock ztunnel had nothing to complain of', () => {
  expect(stock.errors()).toBe('');
  expect(stock.entries('tls failed')).toEqual([]);
});
