import { readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import { type HostPort, isIp, parseIp } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { PORT_DNS } from './capture/capture.ts';
import { bindUdp, closeDescriptor, listenInNamespace } from './capture/in-pod-sockets.ts';
import { hasCode } from './capture/native.ts';
import { createForwarder, type Forwarder } from './dns/forward.ts';
import { answerName } from './dns/resolve.ts';
import type { QueryReport } from './dns/respond.ts';
import { type DnsServer, serveDns } from './dns/serve.ts';
import type { Tables } from './tables/tables.ts';

/** What the resolvers of all pods share. */
export interface PodDnsOptions {
  readonly tables: Tables;
  readonly network: string;
  readonly clusterDomain: string;
  readonly preferredNamespace?: string;
  readonly ownsClusterDomain: boolean;
  readonly ipv6: boolean;
  readonly nameServers: readonly HostPort[];
  /** Asks name servers from there; absent: from each pod. */
  readonly egressForwarder?: Forwarder;
  readonly onQuery: (report: QueryReport, client: Workload | undefined) => void;
  readonly logger: Logger;
}

const BACKLOG = 128;

/**
 * Answers the DNS queries of one pod, on port 15053 of its loopback addresses, where packet rules lead them.
 * @param client the pod's workload, as far as it is known.
 * @param netnsFd stays the caller's and has to stay open until the server is closed.
 * @throws NativeError when the sockets cannot be made
 */
export async function servePodDns(
  options: PodDnsOptions,
  client: () => Workload | undefined,
  netnsFd: number,
): Promise<DnsServer> {
  const { nameServers, logger } = options;
  return serveDns({
    ...openSockets(netnsFd, options.ipv6),
    resolve: ({ name, type }) => {
      const workload = client();
      if (workload === undefined) return { kind: 'unknown-client' };
      const { namespace: clientNamespace } = workload;
      return answerName({ ...options, name, type, clientNamespace, random: Math.random });
    },
    forwarder: options.egressForwarder ?? createForwarder({ nameServers, netnsFd }),
    logger,
    onQuery: (report) => options.onQuery(report, client()),
  });
}

/** Name servers of this process, by `/etc/resolv.conf`. */
export function systemNameServers(path = '/etc/resolv.conf'): readonly HostPort[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return [];
  }
  const addresses = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map(([, address = '']) => address);
  return addresses.filter(isIp).map((address) => ({ ip: parseIp(address), port: 53 }));
}

/** Both protocols on 127.0.0.1, and on ::1 where the pod has it. */
function openSockets(netnsFd: number, ipv6: boolean): Pick<Parameters<typeof serveDns>[0], 'udp' | 'tcp'> {
  const opened: number[] = [];
  const keep = (fd: number): number => {
    opened.push(fd);
    return fd;
  };
  try {
    const listen = (ip: string): number =>
      keep(listenInNamespace(netnsFd, { ip, port: PORT_DNS, transparent: false, backlog: BACKLOG }));
    const bind = (ip: string): number => keep(bindUdp(netnsFd, { ip, port: PORT_DNS }));
    const v4 = { udp: [{ fd: bind('127.0.0.1'), family: 4 as const }], tcp: [listen('127.0.0.1')] };
    const udp6 = ipv6 ? unlessMissing(() => bind('::1')) : undefined;
    if (udp6 === undefined) return v4;
    return { udp: [...v4.udp, { fd: udp6, family: 6 }], tcp: [...v4.tcp, listen('::1')] };
  } catch (error) {
    for (const fd of opened) closeDescriptor(fd);
    throw error;
  }
}

function unlessMissing(open: () => number): number | undefined {
  try {
    return open();
  } catch (error) {
    if (hasCode(error, 'EADDRNOTAVAIL') || hasCode(error, 'EAFNOSUPPORT')) return undefined;
    throw error;
  }
}
