import { familyOf, type Ip } from '#api/address.ts';
import type { ServicePort } from '#api/service.ts';
import type { Endpoint, Tables } from '#ztunnel/tables/tables.ts';

/** The table of ours in a node's namespace (family inet). */
const VIP_TABLE = 'tulle-vips';

/** A VIP and port, and what is behind it. */
interface Frontend {
  readonly ip: Ip;
  readonly port: number;
  readonly backends: readonly Backend[];
}

interface Backend {
  readonly ip: Ip;
  readonly port: number;
  readonly weight: number;
}

/**
 * Packet rules that translate the VIPs of services to their endpoints for what is routed through a node, as one nft script
 * that replaces the table's rules in one transaction. Only a connection's first packet meets them. A port without
 * endpoints, and one that a VIP does not have, is refused with a reset; services that keep the caller's destination
 * (PASSTHROUGH) are left alone.
 */
export function vipRulesOf(tables: Tables): string {
  const frontends = frontendsOf(tables);
  const served = frontends.filter(({ backends }) => backends.length > 0);
  const vips = [...new Set(frontends.map(({ ip }) => ip))];
  const own = [...new Set(served.flatMap(({ backends }) => backends.map(({ ip }) => ip)))];
  const chains = [
    chain('refuse', 'filter hook prerouting priority -110', [
      ...served.map(({ ip, port }) => `${daddr(ip)} tcp dport ${port} accept`),
      ...([4, 6] as const).flatMap((family) => refuseAll(vips.filter((ip) => familyOf(ip) === family))),
    ]),
    chain('translate', 'nat hook prerouting priority -100', served.map(translate)),
    // A pod that reaches itself through a VIP has to see another caller, or it answers itself directly.
    chain(
      'hairpin',
      'nat hook postrouting priority 100',
      ([4, 6] as const).flatMap((family) => masquerade(own.filter((ip) => familyOf(ip) === family))),
    ),
  ];
  return `add table inet ${VIP_TABLE}\nflush table inet ${VIP_TABLE}\ntable inet ${VIP_TABLE} {\n${chains.join('')}}\n`;
}

function frontendsOf(tables: Tables): readonly Frontend[] {
  const frontends = [...tables.services()].flatMap((service) => {
    if (service.loadBalancing?.mode === 'PASSTHROUGH') return [];
    const vips = service.addresses.filter((vip) => vip.network === '' && isHost(vip.ip, vip.length));
    const mine = vips.filter(({ ip }) => tables.serviceByVip('', ip, '') === service);
    const endpoints = tables.endpointsOf(service);
    return mine.flatMap(({ ip }) =>
      service.ports.map((port) => ({
        ip,
        port: port.servicePort,
        backends: backendsOf(ip, port, endpoints),
      })),
    );
  });
  return frontends.sort((a, b) => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : a.port - b.port));
}

function isHost(ip: Ip, length: number | undefined): boolean {
  return length === undefined || length === (familyOf(ip) === 4 ? 32 : 128);
}

function backendsOf(vip: Ip, port: ServicePort, endpoints: readonly Endpoint[]): readonly Backend[] {
  return endpoints
    .flatMap(({ workload, ports }) => {
      const ip = workload.addresses.find((address) => familyOf(address) === familyOf(vip));
      const target = ports.get(port.servicePort) ?? port.targetPort;
      const weight = workload.capacity;
      return ip === undefined || target === 0 || weight === 0 ? [] : [{ ip, port: target, weight }];
    })
    .sort((a, b) => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : a.port - b.port));
}

function translate({ ip, port, backends }: Frontend): string {
  let start = 0;
  const elements = backends.map((backend) => {
    const end = start + backend.weight - 1;
    const range = start === end ? `${start}` : `${start}-${end}`;
    start += backend.weight;
    return `${range} : ${backend.ip} . ${backend.port}`;
  });
  const family = familyOf(ip) === 4 ? 'ip' : 'ip6';
  const choice = `numgen random mod ${start} map { ${elements.join(', ')} }`;
  return `${daddr(ip)} tcp dport ${port} dnat ${family} addr . port to ${choice}`;
}

function refuseAll(vips: readonly Ip[]): readonly string[] {
  const [first] = vips;
  if (first === undefined) return [];
  const addressed = `${familyOf(first) === 4 ? 'ip' : 'ip6'} daddr { ${vips.join(', ')} } ct state new`;
  return [`${addressed} meta l4proto tcp reject with tcp reset`, `${addressed} reject`];
}

function masquerade(endpoints: readonly Ip[]): readonly string[] {
  const [first] = endpoints;
  if (first === undefined) return [];
  const family = familyOf(first) === 4 ? 'ip' : 'ip6';
  const pairs = endpoints.map((ip) => `${ip} . ${ip}`).join(', ');
  return [`ct status dnat ${family} saddr . ${family} daddr { ${pairs} } masquerade`];
}

function daddr(ip: Ip): string {
  return `${familyOf(ip) === 4 ? 'ip' : 'ip6'} daddr ${ip}`;
}

function chain(name: string, type: string, rules: readonly string[]): string {
  const lines = [`type ${type}; policy accept;`, ...rules].map((line) => `    ${line}\n`);
  return `  chain ${name} {\n${lines.join('')}  }\n`;
}
