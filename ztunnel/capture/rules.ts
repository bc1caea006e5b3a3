import { familyOf } from '#api/address.ts';
import {
  type CaptureScope,
  CONNECTION_MARK,
  PACKET_MARK,
  PORT_DNS,
  PORT_HBONE,
  PORT_INBOUND_PLAINTEXT,
  PORT_OUTBOUND,
  PROBE_IPV4,
  PROBE_IPV6,
  type Probe,
} from './capture.ts';

/** The one table of ours in a pod's namespace (family inet). */
export const TABLE: string = 'tulle';
/** Names of its counters of refused UDP packets. */
export const REFUSED_INBOUND: string = 'udp_refused_inbound';
export const REFUSED_OUTBOUND: string = 'udp_refused_outbound';

/** Where replies to a caller's spoofed address find their way back to the ztunnel: ambient's numbers. */
export const ROUTE_TABLE: number = 100;
export const ROUTE_RULE_PREFERENCE: number = 32764;

/** The field shares the other bits of a mark. */
const MARK_MASK = '0xfff';
const OF_ZTUNNEL = `meta mark and ${MARK_MASK} == ${hex(PACKET_MARK)}`;
const NOT_OF_ZTUNNEL = `meta mark and ${MARK_MASK} != ${hex(PACKET_MARK)}`;

/**
 * A connection's first packet. Any other of a connection that netfilter has not seen before belongs to one that is older
 * than the rules: redirected, it would be reset.
 */
const FIRST_SYN = 'tcp flags and (fin | syn | rst | ack) == syn';

/** The ztunnel's ports for what is redirected. */
const REDIRECT_TARGETS = `{ ${PORT_OUTBOUND}, ${PORT_INBOUND_PLAINTEXT}, ${PORT_DNS} }`;

export interface RuleOptions {
  readonly scope: CaptureScope;
  /** `refuse` takes effect with the scope `both`. */
  readonly udp: 'allow' | 'refuse';
  readonly probes: readonly Probe[];
}

/**
 * The packet rules of a pod as one nft script, to be loaded in the pod's namespace: fact sheet ambient-wire.md, 6.3. It
 * replaces whatever rules of ours are there, in one transaction. The chains stay where they are, also in the scope
 * `nothing`: without a NAT chain the kernel would stop to translate the connections that were captured.
 */
export function rulesOf(options: RuleOptions): string {
  const { scope } = options;
  const refuseUdp = scope === 'both' && options.udp === 'refuse';
  const chains = [
    chain('raw_prerouting', 'filter hook prerouting priority raw', [
      // A resolver's answers to the ztunnel, whose ports may clash with those of the application's own queries.
      `${NOT_OF_ZTUNNEL} udp sport 53 ct zone set 1`,
    ]),
    chain('raw_output', 'filter hook output priority raw', [
      // Where queries are not redirected any more, all go there: to the kernel a query is then of another connection than
      // earlier ones of its socket, which were redirected, and the answer of the same one as the query.
      scope === 'nothing' ? 'udp dport 53 ct zone set 1' : `${OF_ZTUNNEL} udp dport 53 ct zone set 1`,
    ]),
    chain('mangle_prerouting', 'filter hook prerouting priority mangle', [
      `iifname "lo" ${OF_ZTUNNEL} ct direction original ct mark set ct mark and 0xfffff000 or ${hex(CONNECTION_MARK)}`,
    ]),
    chain('mangle_output', 'route hook output priority mangle', [
      `ct direction reply ct mark and ${MARK_MASK} == ${hex(CONNECTION_MARK)} meta mark set ${hex(CONNECTION_MARK)}`,
    ]),
    chain(
      'nat_prerouting',
      'nat hook prerouting priority -100',
      scope === 'both' ? captureInbound(options.probes) : [],
    ),
    chain('nat_output', 'nat hook output priority -100', scope === 'nothing' ? [] : captureOutbound()),
    chain('filter_input', 'filter hook input priority filter', [
      'iifname "lo" accept',
      'ct status dnat accept',
      // The ztunnel's own ports take what was redirected to them, nothing that was sent to them.
      `tcp dport ${REDIRECT_TARGETS} ${FIRST_SYN} reject with tcp reset`,
      'udp sport 53 ct direction reply accept',
      ...(refuseUdp ? [`meta l4proto udp counter name ${REFUSED_INBOUND} reject`] : []),
    ]),
    chain('filter_output', 'filter hook output priority filter', [
      'oifname "lo" accept',
      'ct status dnat accept',
      ...(refuseUdp ? [`${NOT_OF_ZTUNNEL} meta l4proto udp counter name ${REFUSED_OUTBOUND} reject`] : []),
    ]),
  ];
  const body = [counter(REFUSED_INBOUND), counter(REFUSED_OUTBOUND), ...chains].join('');
  return `add table inet ${TABLE}\nflush table inet ${TABLE}\ntable inet ${TABLE} {\n${body}}\n`;
}

/** The scope of a table as nft lists it; undefined for an empty text. */
export function scopeIn(listing: string): CaptureScope | undefined {
  if (listing.trim() === '') return undefined;
  if (listing.includes(`redirect to :${PORT_INBOUND_PLAINTEXT}`)) return 'both';
  return listing.includes(`redirect to :${PORT_OUTBOUND}`) ? 'outbound' : 'nothing';
}

/** Takes the table away, whether or not it is there. */
export const REMOVE_RULES: string = `add table inet ${TABLE}\ndelete table inet ${TABLE}\n`;

function captureInbound(probes: readonly Probe[]): readonly string[] {
  return [
    'iifname "lo" accept',
    `ip saddr ${PROBE_IPV4} accept`,
    `ip6 saddr ${PROBE_IPV6} accept`,
    ...probes.map(
      ({ from, port }) => `${familyOf(from) === 6 ? 'ip6' : 'ip'} saddr ${from} tcp dport ${port} accept`,
    ),
    `tcp dport ${PORT_HBONE} accept`,
    `tcp dport ${REDIRECT_TARGETS} accept`,
    `${NOT_OF_ZTUNNEL} ${FIRST_SYN} redirect to :${PORT_INBOUND_PLAINTEXT}`,
  ];
}

function captureOutbound(): readonly string[] {
  return [
    'oifname "lo" accept',
    `${OF_ZTUNNEL} accept`,
    `meta mark and ${MARK_MASK} == ${hex(CONNECTION_MARK)} accept`,
    `ip daddr ${PROBE_IPV4} accept`,
    `ip6 daddr ${PROBE_IPV6} accept`,
    `udp dport 53 redirect to :${PORT_DNS}`,
    `tcp dport 53 ${FIRST_SYN} redirect to :${PORT_DNS}`,
    `${FIRST_SYN} redirect to :${PORT_OUTBOUND}`,
  ];
}

function chain(name: string, type: string, rules: readonly string[]): string {
  const lines = [`type ${type}; policy accept;`, ...rules].map((line) => `    ${line}\n`);
  return `  chain ${name} {\n${lines.join('')}  }\n`;
}

function counter(name: string): string {
  return `  counter ${name} {\n  }\n`;
}

function hex(mark: number): string {
  return `0x${mark.toString(16)}`;
}
