import { expect, test } from 'vitest';
import { service, tablesOf, workload } from '#test/kit/resources.ts';
import { vipRulesOf } from './vip-rules.ts';

const vip = (...ips: readonly string[]) => ips.map((ip) => ({ network: '', ip }));
const PORTS = [{ servicePort: 80, targetPort: 8080, appProtocol: 'UNKNOWN' as const }];
const CATALOG = service({
  name: 'catalog',
  namespace: 'shop',
  addresses: vip('10.96.1.1', 'fd00:10:96::1'),
  ports: PORTS,
});
const KEY = 'shop/catalog.shop.svc.cluster.local';
const endpoint = (name: string, addresses: readonly string[], more = {}) =>
  workload({
    name,
    namespace: 'shop',
    uid: `Kubernetes//Pod/shop/${name}`,
    addresses,
    services: { [KEY]: {} },
    ...more,
  });

test('a service is translated to its endpoints by weight, family by family', () => {
  const rules = vipRulesOf(
    tablesOf(
      CATALOG,
      endpoint('a', ['10.244.1.2', 'fd00:10:244:1::2']),
      endpoint('b', ['10.244.2.2'], {
        capacity: 3,
        services: { [KEY]: { 80: 9090 } },
      }),
      endpoint('c', ['10.244.2.3'], { capacity: 0 }),
      endpoint('d', ['10.244.2.4'], { status: 'UNHEALTHY' }),
    ),
  );
  expect(rules).toBe(`add table inet tulle-vips
flush table inet tulle-vips
table inet tulle-vips {
  chain refuse {
    type filter hook prerouting priority -110; policy accept;
    ip daddr 10.96.1.1 tcp dport 80 accept
    ip6 daddr fd00:10:96::1 tcp dport 80 accept
    ip daddr { 10.96.1.1 } ct state new meta l4proto tcp reject with tcp reset
    ip daddr { 10.96.1.1 } ct state new reject
    ip6 daddr { fd00:10:96::1 } ct state new meta l4proto tcp reject with tcp reset
    ip6 daddr { fd00:10:96::1 } ct state new reject
  }
  chain translate {
    type nat hook prerouting priority -100; policy accept;
    ip daddr 10.96.1.1 tcp dport 80 dnat ip addr . port to numgen random mod 4 map { 0 : 10.244.1.2 . 8080, 1-3 : 10.244.2.2 . 9090 }
    ip6 daddr fd00:10:96::1 tcp dport 80 dnat ip6 addr . port to numgen random mod 1 map { 0 : fd00:10:244:1::2 . 8080 }
  }
  chain hairpin {
    type nat hook postrouting priority 100; policy accept;
    ct status dnat ip saddr . ip daddr { 10.244.1.2 . 10.244.1.2, 10.244.2.2 . 10.244.2.2 } masquerade
    ct status dnat ip6 saddr . ip6 daddr { fd00:10:244:1::2 . fd00:10:244:1::2 } masquerade
  }
}
`);
});

test('a service without endpoints is refused and not translated', () => {
  const rules = vipRulesOf(tablesOf(CATALOG));
  expect(rules).toContain('ip daddr { 10.96.1.1 } ct state new meta l4proto tcp reject with tcp reset');
  expect(rules).not.toContain('dnat');
});

test('what keeps its destination, a range and another network are left alone', () => {
  const passthrough = {
    ...CATALOG,
    loadBalancing: { routingPreference: [], mode: 'PASSTHROUGH', healthPolicy: 'ONLY_HEALTHY' },
  } as const;
  const range = { ...CATALOG, addresses: [{ network: '', ip: '10.97.0.0', length: 16 }] };
  const elsewhere = { ...CATALOG, addresses: [{ network: 'other', ip: '10.96.1.1' }] };
  for (const other of [passthrough, range, elsewhere]) {
    expect(vipRulesOf(tablesOf(other, endpoint('a', ['10.244.1.2'])))).not.toContain('daddr');
  }
});
