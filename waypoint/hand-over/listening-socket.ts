import type { Server } from 'node:net';
import type { Logger } from 'pino';
import { closeDescriptor, namespaceId, openNamespace } from '#ztunnel/capture/in-pod-sockets.ts';
import { describeSocket, namespaceOfSocket } from '#ztunnel/hand-over/descriptors.ts';
import type { Offer } from '#ztunnel/hand-over/offer.ts';
import { openPredecessor } from '#ztunnel/hand-over/predecessor.ts';
import { SharedSockets } from '#ztunnel/hand-over/take.ts';

/** What a waypoint lets its successor have of a server; undefined when that does not listen. */
export function offerOf(server: Server): Offer | undefined {
  const { _handle: handle } = server as Server & { readonly _handle?: { readonly fd?: number } | null };
  const fd = handle?.fd ?? -1;
  const description = fd < 0 ? undefined : describeSocket(fd);
  if (description === undefined) return undefined;
  return { pid: process.pid, netns: namespaceOfSocket(fd), sockets: [{ ...description, fd }] };
}

/**
 * The listening socket of the waypoint that this one replaces, shared with it: one queue, from which both take, so that nothing that
 * waits in it is lost with the other's end. The descriptor is the caller's.
 * @param path of the other one's socket for the supervisor
 * @returns undefined when there is none to be had; why is logged
 */
export async function takeListeningSocket(
  path: string,
  replica: string,
  port: number,
  logger: Logger,
): Promise<number | undefined> {
  using predecessor = openPredecessor(path, logger);
  const netnsFd = openNamespace('/proc/self/ns/net');
  try {
    return await predecessor.withSockets(replica, namespaceId(netnsFd), async (offered) => {
      const shared = new SharedSockets(netnsFd, offered);
      predecessor.left(replica, shared.left);
      const [fd] = shared.take(({ protocol, address }) => protocol === 'tcp' && address.port === port);
      shared.close();
      return fd;
    });
  } finally {
    closeDescriptor(netnsFd);
  }
}
