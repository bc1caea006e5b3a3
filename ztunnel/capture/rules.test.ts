import { expect, test } from 'vitest';
import { countIn, procForms } from './captured-connections.ts';
import { REMOVE_RULES, rulesOf, scopeIn } from './rules.ts';

test('the whole rule set of a pod that refuses UDP', () => {
  expect(rulesOf({ scope: 'both', udp: 'refuse', probes: [] })).toBe(`add table inet tulle
flush table inet tulle
table inet tulle {
  counter udp_refused_inbound {
  }
  counter udp_refused_outbound {
  }
  chain raw_prerouting {
    type filter hook prerouting priority raw; policy accept;
    meta mark and 0xfff != 0x539 udp sport 53 ct zone set 1
  }
  chain raw_output {
    type filter hook output priority raw; policy accept;
    meta mark and 0xfff == 0x539 udp dport 53 ct zone set 1
  }
  chain mangle_prerouting {
    type filter hook prerouting priority mangle; policy accept;
    iifname "lo" meta mark and 0xfff == 0x539 ct direction original ct mark set ct mark and 0xfffff000 or 0x111
  }
  chain mangle_output {
    type route hook output priority mangle; policy accept;
    ct direction reply ct mark and 0xfff == 0x111 meta mark set 0x111
  }
  chain nat_prerouting {
    type nat hook prerouting priority -100; policy accept;
    iifname "lo" accept
    ip saddr 169.254.7.127 accept
    ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff accept
    tcp dport 15008 accept
    tcp dport { 15001, 15006, 15053 } accept
    meta mark and 0xfff != 0x539 tcp flags and (fin | syn | rst | ack) == syn redirect to :15006
  }
  chain nat_output {
    type nat hook output priority -100; policy accept;
    oifname "lo" accept
    meta mark and 0xfff == 0x539 accept
    meta mark and 0xfff == 0x111 accept
    ip daddr 169.254.7.127 accept
    ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff accept
    udp dport 53 redirect to :15053
    tcp dport 53 tcp flags and (fin | syn | rst | ack) == syn redirect to :15053
    tcp flags and (fin | syn | rst | ack) == syn redirect to :15001
  }
  chain filter_input {
    type filter hook input priority filter; policy accept;
    iifname "lo" accept
    ct status dnat accept
    tcp dport { 15001, 15006, 15053 } tcp flags and (fin | syn | rst | ack) == syn reject with tcp reset
    udp sport 53 ct direction reply accept
    meta l4proto udp counter name udp_refused_inbound reject
  }
  chain filter_output {
    type filter hook output priority filter; policy accept;
    oifname "lo" accept
    ct status dnat accept
    meta mark and 0xfff != 0x539 meta l4proto udp counter name udp_refused_outbound reject
  }
}
`);
});

test.each([
  { scope: 'both', inbound: true, outbound: true },
  { scope: 'outbound', inbound: false, outbound: true },
  { scope: 'nothing', inbound: false, outbound: false },
] as const)(
  '$scope redirects inbound: $inbound, outbound: $outbound, and always leaves the NAT chains',
  (example) => {
    const rules = rulesOf({ scope: example.scope, udp: 'refuse', probes: [] });
    expect(rules.includes('redirect to :15006')).toBe(example.inbound);
    expect(rules.includes('redirect to :15001')).toBe(example.outbound);
    expect(rules.match(/type nat hook/g)).toHaveLength(2);
    expect(rules).toContain('meta mark set 0x111');
  },
);

test.each([
  { scope: 'both', udp: 'refuse', refuses: true },
  { scope: 'both', udp: 'allow', refuses: false },
  { scope: 'outbound', udp: 'refuse', refuses: false },
  { scope: 'nothing', udp: 'refuse', refuses: false },
] as const)('UDP is refused with scope $scope, udp $udp: $refuses', ({ scope, udp, refuses }) => {
  expect(rulesOf({ scope, udp, probes: [] }).includes('meta l4proto udp counter')).toBe(refuses);
});

test.each(['both', 'outbound', 'nothing'] as const)('the scope %s is seen in the rules', (scope) => {
  expect(scopeIn(rulesOf({ scope, udp: 'allow', probes: [] }))).toBe(scope);
  expect(scopeIn('')).toBeUndefined();
});

test('removal works whether or not there is anything', () => {
  expect(REMOVE_RULES).toBe('add table inet tulle\ndelete table inet tulle\n');
});

const OWN = new Set([...procForms('10.9.1.3'), ...procForms('fd00:10:244:1::2'), ...procForms('127.0.0.1')]);
const HEADER =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';

test.each([
  { what: 'redirected outbound', line: '0100007F:3A99 020109AC:8D52 01', count: 1 },
  {
    what: 'redirected inbound, IPv4 on a dual-stack listener',
    line: '0000000000000000FFFF00000301090A:3A9E 0000000000000000FFFF00000201090A:8D52 08',
    count: 1,
  },
  { what: "opened under a caller's address", line: '0201090A:8D53 0301090A:1F90 01', count: 1 },
  { what: 'a connection of the application', line: '0301090A:1F90 0201090A:8D53 01', count: 0 },
  { what: 'on loopback', line: '0200007F:1F90 0200007F:8D53 01', count: 0 },
  {
    what: 'on IPv6 loopback',
    line: '00000000000000000000000001000000:1F90 00000000000000000000000001000000:8D53 01',
    count: 0,
  },
  { what: 'dialled by eBPF spread over loopback', line: '0503407F:3A99 0301090A:8D53 01', count: 1 },
  {
    what: 'dialled over IPv6',
    line: '00000000000000000000000001000000:3AD8 00000000000000000000000001000000:8D53 01',
    count: 1,
  },
  { what: 'opened to the application from 127.0.0.6', line: '0600007F:8D53 0301090A:1F90 01', count: 1 },
  {
    what: 'opened to the application from its own IPv6 address',
    line: '100000FD010044020000000002000000:8D53 100000FD010044020000000002000000:1F90 01',
    count: 1,
  },
  { what: 'of the application to itself', line: '0301090A:8D53 0301090A:1F90 01', count: 0 },
  { what: 'a tunnel', line: '0301090A:3AA0 0201090A:8D53 01', count: 0 },
  { what: 'a listener', line: '00000000:3A99 00000000:0000 0A', count: 0 },
  { what: 'closed by both, with packet rules', line: '0100007F:3A99 0301090A:8D52 09', count: 1 },
  { what: 'in TIME_WAIT', line: '0100007F:3A99 020109AC:8D52 06', count: 0 },
])('$what counts $count', ({ line, count }) => {
  const state = line.slice(-2);
  const table = `${HEADER}   0: ${line} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20 4 30 10 -1\n`;
  expect(countIn(table, OWN, 'nftables')).toBe(count);
  expect(countIn(table, OWN, 'ebpf')).toBe(state === '09' ? 0 : count);
});

test('addresses as the kernel prints them', () => {
  expect(procForms('10.9.1.3')).toEqual(['0301090A', '0000000000000000FFFF00000301090A']);
  expect(procForms('fd00:10:244:1::2')).toEqual(['100000FD010044020000000002000000']);
  expect(procForms('fe80::1%eth0')).toEqual(['000080FE000000000000000001000000']);
});

test('whoever asks whether the pod is well gets to the port that it names, and to no other', () => {
  const probes = [
    { from: '10.244.1.1', port: 8080 },
    { from: 'fd00::1', port: 9090 },
  ];
  const rules = rulesOf({ scope: 'both', udp: 'allow', probes });
  expect(rules).toContain('    ip saddr 10.244.1.1 tcp dport 8080 accept\n');
  expect(rules).toContain('    ip6 saddr fd00::1 tcp dport 9090 accept\n');
});
