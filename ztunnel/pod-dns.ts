import { readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import { type HostPort, isIp, parseIp } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { type AwaitedClient, awaitClient } from './awaited-client.ts';
import { PORT_DNS } from './capture/capture.ts';
import { bindUdp, closeDescriptor, listenInNamespace, type SocketTag } from './capture/in-pod-sockets.ts';
import { hasCode } from './capture/native.ts';
import { createForwarder, type Forwarder } from './dns/forward.ts';
import { answerName } from './dns/resolve.ts';
import type { ClientAnswer, ClientQuestion, QueryReport } from './dns/respond.ts';
import { type DnsServer, serveDns } from './dns/serve.ts';
import { type OfferedSockets, SharedSockets } from './hand-over/take.ts';
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
  /** For every socket that is made in a pod. */
  readonly tag?: SocketTag;
  readonly onQuery: (report: QueryReport, client: Workload | undefined) => void;
  readonly logger: Logger;
}

const BACKLOG = 128;

/** Where a pod's queries are answered. */
export interface DnsPlace {
  /** The pod's network namespace. It stays the caller's and has to stay open until the server is closed. */
  readonly netnsFd: number;
  /** Sockets of another process to share, instead of new ones on their addresses. */
  readonly offered?: OfferedSockets | undefined;
}

/** A pod's resolver. */
export interface PodDns {
  readonly server: DnsServer;
  /** Whether it shares sockets with another process. */
  readonly shared: boolean;
  /** Why sockets that were offered have not been taken. */
  readonly left: readonly string[];
}

/**
 * Answers the DNS queries of one pod, on port 15053 of its loopback addresses, where capture leads them.
 * @param client the pod's workload: while it is not known, queries wait for it
 * @throws NativeError when the sockets cannot be made
 */
export async function servePodDns(
  options: PodDnsOptions,
  client: AwaitedClient,
  { netnsFd, offered }: DnsPlace,
): Promise<PodDns> {
  const { nameServers, logger, tag } = options;
  const { udp, tcp, shared, left } = openSockets(netnsFd, options, offered);
  const untilKnown = awaitClient(client);
  const answer = ({ name, type }: ClientQuestion, asks: Workload | undefined): ClientAnswer => {
    if (asks === undefined) return { kind: 'unknown-client' };
    const { namespace: clientNamespace } = asks;
    return answerName({ ...options, name, type, clientNamespace, random: Math.random });
  };
  const server = await serveDns({
    ...{ udp, tcp },
    resolve: (question) => {
      const known = client.now();
      return known === undefined
        ? untilKnown().then((workload) => answer(question, workload))
        : answer(question, known);
    },
    forwarder: options.egressForwarder ?? createForwarder({ nameServers, netnsFd, ...(tag && { tag }) }),
    logger,
    onQuery: (report) => options.onQuery(report, client.now()),
  });
  return { server, shared, left };
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

interface DnsSockets extends Pick<Parameters<typeof serveDns>[0], 'udp' | 'tcp'> {
  readonly shared: boolean;
  readonly left: readonly string[];
}

/** Both protocols on 127.0.0.1, and on ::1 where the pod has it. */
function openSockets(
  netnsFd: number,
  { ipv6, tag }: Pick<PodDnsOptions, 'ipv6' | 'tag'>,
  offered: OfferedSockets | undefined,
): DnsSockets {
  const others = new SharedSockets(netnsFd, offered);
  const opened: number[] = [];
  let shared = false;
  /** All that are there already, else one of our own. */
  const keep = (protocol: 'tcp' | 'udp', ip: string, make: () => number): readonly number[] => {
    const taken = [...others.take((each) => each.protocol === protocol && each.address.ip === ip)];
    opened.push(...taken);
    if (taken.length > 0) {
      shared = true;
      return taken;
    }
    const fd = make();
    opened.push(fd);
    return [fd];
  };
  const bind = (ip: string, family: 4 | 6): DnsSockets['udp'] =>
    keep('udp', ip, () => bindUdp(netnsFd, { ip, port: PORT_DNS }, tag)).map((fd) => ({ fd, family }));
  const tcp = { port: PORT_DNS, transparent: false, backlog: BACKLOG, ...(tag && { tag }) };
  const listen = (ip: string): readonly number[] =>
    keep('tcp', ip, () => listenInNamespace(netnsFd, { ip, ...tcp }));
  try {
    const v4 = { udp: bind('127.0.0.1', 4), tcp: listen('127.0.0.1') };
    const udp6 = ipv6 ? unlessMissing(() => bind('::1', 6)) : undefined;
    const v6 = udp6 === undefined ? { udp: [], tcp: [] } : { udp: udp6, tcp: listen('::1') };
    return { udp: [...v4.udp, ...v6.udp], tcp: [...v4.tcp, ...v6.tcp], shared, left: others.left };
  } catch (error) {
    for (const fd of opened) closeDescriptor(fd);
    throw error;
  } finally {
    others.close();
  }
}

function unlessMissing<T>(open: () => T): T | undefined {
  try {
    return open();
  } catch (error) {
    if (hasCode(error, 'EADDRNOTAVAIL') || hasCode(error, 'EAFNOSUPPORT')) return undefined;
    throw error;
  }
}
