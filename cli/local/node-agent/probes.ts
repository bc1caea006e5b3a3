import { createSocket } from 'node:dgram';
import { familyOf, type Ip } from '#api/address.ts';
import { PROBE_IPV4, PROBE_IPV6, type Probe } from '#ztunnel/capture/capture.ts';

/** Any: nothing is sent. */
const SOME_PORT = 9;

/**
 * Who may probe a pod: this node, under the address that it reaches the pod from, and whom ambient has its probes come from.
 * An address without a route to it has no such address of the node.
 */
export async function probesOf(
  addresses: readonly Ip[],
  ports: readonly number[],
): Promise<readonly Probe[]> {
  if (ports.length === 0) return [];
  const own = await Promise.all(addresses.map(sourceTowards));
  const sources = new Set([...own.filter((ip) => ip !== undefined), PROBE_IPV4, PROBE_IPV6]);
  return [...sources].flatMap((from) => ports.map((port) => ({ from, port })));
}

/** The address that this namespace's packets to another would have; undefined: there is no way. */
function sourceTowards(ip: Ip): Promise<Ip | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(familyOf(ip) === 6 ? 'udp6' : 'udp4');
    const finish = (address: Ip | undefined): void => {
      socket.close();
      resolve(address);
    };
    socket.once('error', () => finish(undefined));
    socket.connect(SOME_PORT, ip, () => finish(socket.address().address));
  });
}
