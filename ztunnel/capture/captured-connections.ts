import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { ipToBytes } from '#api/address.ts';
import { PORT_DNS, PORT_INBOUND_PLAINTEXT, PORT_OUTBOUND } from './capture.ts';
import { withinNamespace } from './native.ts';

/** Local ports on which a ztunnel has connections that were redirected to it. */
const REDIRECTED_PORTS: ReadonlySet<string> = new Set(
  [PORT_OUTBOUND, PORT_INBOUND_PLAINTEXT, PORT_DNS].map((port) =>
    port.toString(16).toUpperCase().padStart(4, '0'),
  ),
);
/** TIME_WAIT, CLOSE, LISTEN: nothing flows there any more, or yet (include/net/tcp_states.h). */
const IDLE_STATES: ReadonlySet<string> = new Set(['06', '07', '0A']);

/**
 * Connections of a pod that live by the packet rules: those that were redirected to the ztunnel, and those that it opened
 * to the application under a caller's address. (A tunnel's own connection to port 15008 is neither; it may idle in a
 * peer's pool for minutes.) Reads the kernel's tables at once, inside the namespace; cost grows with the pod's sockets.
 * @throws NativeError when the namespace cannot be entered
 */
export function countCapturedConnections(netnsFd: number): number {
  return withinNamespace(netnsFd, () => {
    const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
    const own = new Set(addresses.flatMap(({ address }) => procForms(address)));
    return (
      countIn(readTable('/proc/thread-self/net/tcp'), own) +
      countIn(readTable('/proc/thread-self/net/tcp6'), own)
    );
  });
}

/** Counts in the text of /proc/net/tcp or tcp6. `own`: the namespace's addresses as {@link procForms} has them. */
export function countIn(table: string, own: ReadonlySet<string>): number {
  let count = 0;
  for (const line of table.split('\n').slice(1)) {
    const [, local = '', , state = ''] = line.trim().split(/\s+/, 4);
    const [ip = '', port = ''] = local.split(':');
    if (ip === '' || IDLE_STATES.has(state)) continue;
    if (REDIRECTED_PORTS.has(port) || !(own.has(ip) || isLoopback(ip))) count++;
  }
  return count;
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
