import { expect, test } from 'vitest';
import type { Resource } from '#api/resource.ts';
import { service, tablesOf, workload } from '#test/kit/resources.ts';
import { answerName, type NameAnswer, type NameQuestion } from './resolve.ts';

const vip = (...ips: readonly string[]) => ips.map((ip) => ({ network: '', ip }));
const CATALOG = service({ name: 'catalog', namespace: 'shop', addresses: vip('10.96.1.1', 'fd00:10:96::1') });
const EXTERNAL = service({
  name: 'api',
  namespace: 'shop',
  hostname: 'api.example.com',
  addresses: vip('240.240.0.1'),
});
const WILDCARD = service({
  name: 'wild',
  namespace: 'shop',
  hostname: '*.wild.example.com',
  addresses: vip('240.240.0.2'),
});
const PEERS = service({ name: 'peers', namespace: 'shop', addresses: [] });
const UNADDRESSED = service({ name: 'x', namespace: 'shop', hostname: 'x.example.com', addresses: [] });

function ask(question: Partial<NameQuestion> & { name: string }, ...more: readonly Resource[]): NameAnswer {
  return answerName({
    tables: tablesOf(CATALOG, EXTERNAL, WILDCARD, PEERS, UNADDRESSED, ...more),
    type: 'A',
    clientNamespace: 'shop',
    network: '',
    clusterDomain: 'cluster.local',
    ipv6: true,
    random: () => 0.5,
    ...question,
  });
}

test.each([
  { name: 'catalog', from: 'shop', ip: '10.96.1.1' },
  { name: 'CaTaLoG', from: 'shop', ip: '10.96.1.1' },
  { name: 'catalog.shop', from: 'other', ip: '10.96.1.1' },
  { name: 'catalog.shop.svc', from: 'other', ip: '10.96.1.1' },
  { name: 'catalog.shop.svc.cluster.local', from: 'other', ip: '10.96.1.1' },
  { name: 'api.example.com', from: 'other', ip: '240.240.0.1' },
  { name: 'a.wild.example.com', from: 'other', ip: '240.240.0.2' },
  { name: 'a.b.wild.example.com', from: 'other', ip: '240.240.0.2' },
])('$name asked for from namespace $from is $ip', ({ name, from, ip }) => {
  expect(ask({ name, clientNamespace: from })).toMatchObject({ kind: 'found', addresses: [ip] });
});

test.each([
  { name: 'catalog', from: 'other' },
  { name: 'catalog.other', from: 'shop' },
  { name: 'wild.example.com', from: 'shop' },
  { name: 'example.com', from: 'shop' },
  { name: '', from: 'shop' },
  { name: 'x.example.com', from: 'shop' },
  { name: '__proto__', from: 'shop' },
])('$name asked for from namespace $from goes upstream', ({ name, from }) => {
  expect(ask({ name, clientNamespace: from })).toEqual({ kind: 'forward', reason: 'unknown-name' });
});

test('what is not an address goes upstream, also for a name of the mesh', () => {
  expect(ask({ name: 'catalog', type: 'other' })).toEqual({
    kind: 'forward',
    reason: 'not-an-address-query',
  });
});

test.each([
  { name: 'api.example.com.shop.svc.cluster.local', alias: 'api.example.com' },
  { name: 'api.example.com.svc.cluster.local', alias: 'api.example.com' },
  { name: 'API.example.com.cluster.local', alias: 'api.example.com' },
  { name: 'catalog.shop.shop.svc.cluster.local', alias: 'catalog.shop' },
  { name: 'a.wild.example.com.shop.svc.cluster.local', alias: undefined },
])('$name, with a search domain behind it, is an alias of $alias', ({ name, alias }) => {
  const answer = ask({ name });
  expect(answer.kind === 'found' && answer.addresses.length).toBe(1);
  expect(answer.kind === 'found' && answer.alias).toBe(alias);
});

test.each([
  { when: 'the service has none of that family', name: 'api.example.com', type: 'AAAA', ipv6: true },
  { when: 'IPv6 is off', name: 'catalog', type: 'AAAA', ipv6: false },
] as const)('a name of the mesh is answered without addresses when $when', ({ name, type, ipv6 }) => {
  expect(ask({ name, type, ipv6 })).toMatchObject({ kind: 'found', addresses: [] });
});

test('AAAA gives the IPv6 addresses', () => {
  expect(ask({ name: 'catalog', type: 'AAAA' })).toMatchObject({ addresses: ['fd00:10:96::1'] });
});

test('a service that is IPv4 only has no AAAA record', () => {
  const only = service({
    name: 'v4',
    namespace: 'shop',
    addresses: CATALOG.addresses,
    ipFamilies: 'IPV4_ONLY',
  });
  expect(ask({ name: 'v4', type: 'AAAA' }, only)).toMatchObject({ addresses: [] });
});

test('VIPs of other networks are not answered', () => {
  expect(ask({ name: 'catalog', network: 'west' })).toMatchObject({ kind: 'found', addresses: [] });
});

test('a headless service gives one address of each healthy endpoint', () => {
  const services = { 'shop/peers.shop.svc.cluster.local': {} };
  const answer = ask(
    { name: 'peers', random: () => 0.5 },
    workload({ name: 'p1', addresses: ['10.0.0.1', '10.0.0.9', 'fd00::1'], services }),
    workload({ name: 'p2', addresses: ['10.0.0.2'], services }),
    workload({ name: 'p3', addresses: ['fd00::3'], services }),
    workload({ name: 'p4', addresses: ['10.0.0.4'], services, status: 'UNHEALTHY' }),
    workload({ name: 'p5', addresses: ['10.0.0.5'], services, network: 'west' }),
  );
  expect(answer.kind === 'found' && answer.addresses.toSorted()).toEqual(['10.0.0.1', '10.0.0.2']);
});

test('a headless service without endpoints exists', () => {
  expect(ask({ name: 'peers' })).toMatchObject({ kind: 'found', addresses: [] });
});

test('ranges of addresses are not answered', () => {
  const range = service({
    name: 'range',
    namespace: 'shop',
    hostname: 'range.example.com',
    addresses: [{ network: '', ip: '10.9.0.0', length: 16 }],
  });
  expect(ask({ name: 'range.example.com' }, range).kind).toBe('forward');
});

test.each([
  { preferredNamespace: 'b', clientNamespace: 'shop', canonical: undefined, ip: '10.9.0.2' },
  { preferredNamespace: 'b', clientNamespace: 'c', canonical: undefined, ip: '10.9.0.3' },
  { preferredNamespace: 'b', clientNamespace: 'shop', canonical: 'c', ip: '10.9.0.3' },
  { preferredNamespace: 'zz', clientNamespace: 'shop', canonical: undefined, ip: '10.9.0.1' },
])(
  'of one name in a, b and c $ip is meant from $clientNamespace, $preferredNamespace preferred, $canonical canonical',
  ({ ip, canonical, ...question }) => {
    const contenders = ['a', 'b', 'c'].map((namespace, index) =>
      service({
        namespace,
        hostname: 'same.example.com',
        addresses: vip(`10.9.0.${index + 1}`),
        canonical: namespace === canonical,
      }),
    );
    expect(ask({ name: 'same.example.com', ...question }, ...contenders)).toMatchObject({ addresses: [ip] });
  },
);

test('addresses come in an order that the dice decide', () => {
  const twins = service({ name: 'twins', namespace: 'shop', addresses: vip('10.0.0.1', '10.0.0.2') });
  const rolls = [0.9, 0.1];
  const answer = ask({ name: 'twins', random: () => rolls.shift() ?? 0 }, twins);
  expect(answer).toMatchObject({ addresses: ['10.0.0.2', '10.0.0.1'] });
});

test.each([
  { name: 'nobody.shop.svc.cluster.local', type: 'A', kind: 'no-such-name' },
  { name: 'cluster.local', type: 'A', kind: 'no-such-name' },
  { name: 'nobody.shop.SVC.cluster.local', type: 'other', kind: 'no-such-name' },
  { name: 'catalog.shop.svc.cluster.local', type: 'A', kind: 'found' },
  { name: 'catalog.shop.svc.cluster.local', type: 'other', kind: 'found' },
  { name: 'notcluster.local', type: 'A', kind: 'forward' },
  { name: 'nobody.shop', type: 'A', kind: 'forward' },
  { name: 'example.com', type: 'other', kind: 'forward' },
] as const)(
  'where nobody else knows the cluster’s names, $type of $name is $kind',
  ({ name, type, kind }) => {
    expect(ask({ name, type, ownsClusterDomain: true }).kind).toBe(kind);
  },
);

test('a name of the mesh has no other records than addresses', () => {
  const answer = ask({ name: 'catalog.shop.svc.cluster.local', type: 'other', ownsClusterDomain: true });
  expect(answer).toMatchObject({ kind: 'found', addresses: [] });
});
