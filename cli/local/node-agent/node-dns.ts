import type { Logger } from 'pino';
import {
  bindUdp,
  closeDescriptor,
  listenInNamespace,
  openNamespace,
} from '#ztunnel/capture/in-pod-sockets.ts';
import { createForwarder } from '#ztunnel/dns/forward.ts';
import { answerName } from '#ztunnel/dns/resolve.ts';
import { serveDns } from '#ztunnel/dns/serve.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import type { NodeAgentConfig } from './config.ts';

const DNS_PORT = 53;
const CLUSTER_DOMAIN = 'cluster.local';
const BACKLOG = 128;

/**
 * Answers DNS on all addresses of the node's namespace, as a cluster's resolver would: the services of the mesh by name,
 * everything else by asking the configured name servers. Pods in the mesh have their queries answered by the ztunnel.
 * A port that is in use is reported, and nothing is served.
 */
export async function serveNodeDns(
  config: NodeAgentConfig,
  tables: Tables,
  logger: Logger,
): Promise<AsyncDisposable> {
  const { egressNetns, nameServers } = config;
  const netnsFd = egressNetns === undefined ? undefined : openNamespace(egressNetns);
  const dispose = (): void => {
    if (netnsFd !== undefined) closeDescriptor(netnsFd);
  };
  try {
    const server = await serveDns({
      ...openSockets(),
      resolve: ({ name, type, clientIp }) => {
        const client = tables.workloadByIp('', clientIp);
        return answerName({
          tables,
          name,
          type,
          clientNamespace: client?.namespace ?? 'default',
          network: '',
          clusterDomain: CLUSTER_DOMAIN,
          ipv6: true,
          random: Math.random,
        });
      },
      forwarder: createForwarder({ nameServers, ...(netnsFd === undefined ? {} : { netnsFd }) }),
      logger: logger.child({ component: 'dns' }),
    });
    return {
      [Symbol.asyncDispose]: async () => {
        await server.close();
        dispose();
      },
    };
  } catch (error) {
    const remedy =
      'pods outside the mesh resolve no names; stop what listens on port 53 in the node’s namespace';
    logger.error({ port: DNS_PORT, error: String(error), remedy }, 'cannot answer dns');
    dispose();
    return { [Symbol.asyncDispose]: async () => undefined };
  }
}

function openSockets(): { udp: { fd: number; family: 4 | 6 }[]; tcp: number[] } {
  const opened: number[] = [];
  const open = (fd: number): number => {
    opened.push(fd);
    return fd;
  };
  try {
    const listen = { port: DNS_PORT, transparent: false, backlog: BACKLOG };
    return {
      udp: [
        { fd: open(bindUdp(undefined, { ip: '0.0.0.0', port: DNS_PORT })), family: 4 },
        { fd: open(bindUdp(undefined, { ip: '::', port: DNS_PORT })), family: 6 },
      ],
      tcp: [open(listenInNamespace(undefined, { ip: '::', ...listen }))],
    };
  } catch (error) {
    for (const fd of opened) closeDescriptor(fd);
    throw error;
  }
}
