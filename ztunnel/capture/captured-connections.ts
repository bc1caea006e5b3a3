import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { ipToBytes } from '#api/address.ts';
import { type Capture, PORT_DNS, PORT_INBOUND_PLAINTEXT, PORT_OUTBOUND } from './capture.ts';
import { withinNamespace } from './native.ts';

/** Local ports on which a ztunnel has connections that were captured: those for IPv6 are {@link IPV6_PORTS} as well. */
const CAPTURE_PORTS: ReadonlySet<number> = new Set([PORT_OUTBOUND, PORT_INBOUND_PLAINTEXT, PORT_DNS]);
const IPV6_PORTS: { readonly first: 15064; readonly last: 15079 } = { first: 15064, last: 15079 };
/** TIME_WAIT, CLOSE, LISTEN: nothing flows there any more, or yet (include/net/tcp_states.h). */
const IDLE_STATES: readonly string[] = ['06', '07', '0A'];
/**
 * LAST_ACK, CLOSING: both ends have closed, and the kernel sees to the rest by itself. With packet rules, that goes by the
 * rules.
 */
const CLOSED_STATES: readonly string[] = ['09', '0B'];
const STATES: Readonly<Record<Capture['method'], ReadonlySet<string>>> = {
  nftables: new Set(IDLE_STATES),
  ebpf: new Set([...IDLE_STATES, ...CLOSED_STATES]),
};
/** Where a ztunnel dials the application from while eBPF shows the real caller; over IPv6, from the application's address. */
const DIALS_FROM: ReadonlySet<string> = new Set(procForms('127.0.0.6'));

/**
 * Connections of a pod that a ztunnel carries because they were captured: those that came to its listeners, and those that
 * it opened to the application, under a caller's address or, with eBPF, from 127.0.0.6 or, over IPv6, the application's own
 * address, where they cannot be told from those of the application to itself. (A tunnel's own connection to port 15008 is
 * neither; it may idle in a peer's pool for minutes.) Reads the kernel's tables at once, inside the
 * namespace; cost grows with the pod's sockets.
 * @throws NativeError when the namespace cannot be entered
 */
export function countCapturedConnections(netnsFd: number, method: Capture['method']): number {
  return withinNamespace(netnsFd, () => {
    const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
    const own = new Set(addresses.flatMap(({ address }) => procForms(address)));
    return (
      countIn(readTable('/proc/thread-self/net/tcp'), own, method) +
      countIn(readTable('/proc/thread-self/net/tcp6'), own, method)
    );
  });
}

/** Counts in the text of /proc/net/tcp or tcp6. `own`: the namespace's addresses as {@link procForms} has them. */
export function countIn(table: string, own: ReadonlySet<string>, method: Capture['method']): number {
  let count = 0;
  for (const line of table.split('\n').slice(1)) {
    const [, local = '', remote = '', state = ''] = line.trim().split(/\s+/, 4);
    if (local === '' || STATES[method].has(state)) continue;
    const [ip = '', port = ''] = local.split(':');
    const [remoteIp = ''] = remote.split(':');
    const isOfOthers = !(own.has(ip) || isLoopback(ip));
    const isToApplication = DIALS_FROM.has(ip) ? own.has(remoteIp) : isIpv6(ip) && ip === remoteIp;
    if (isCapturePort(Number.parseInt(port, 16)) || isOfOthers || isToApplication) count++;
  }
  return count;
}

/** Neither IPv4 nor loopback. */
function isIpv6(ip: string): boolean {
  return ip.length === 32 && !ip.startsWith('0000000000000000');
}

function isCapturePort(port: number): boolean {
  return CAPTURE_PORTS.has(port) || (port >= IPV6_PORTS.first && port <= IPV6_PORTS.last);
}

/** An address as /proc/net/tcp and tcp6 print it: 32-bit words in the machine's (little-endian) order. */
export function procForms(ip: string): readonly string[] {
  const bytes = Buffer.from(ipToBytes(ip.replace(/%.*$/, '')));
  const words = bytes.swap32().toString('hex').toUpperCase();
  return bytes.length === 4 ? [words, `0000000000000000FFFF0000${words}`] : [words];
}

function isLoopback(ip: string): boolean {
  return /^(0000000000000000FFFF0000)?[0-9A-F]{6}7F$/.test(ip) || ip === '00000000000000000000000001000000';
}

function readTable(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // no IPv6 in this kernel
  }
}
