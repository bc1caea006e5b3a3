import { type HostPort, isIp, parseIp } from '#api/address.ts';
import type { SocketDescription } from './descriptors.ts';

/** A socket that a process listens on, by its own number for it. */
export interface ListeningSocket extends SocketDescription {
  readonly fd: number;
}

/** The sockets of a pod that a ztunnel lets its successor have, as they travel over the order socket. */
export interface Offer {
  /** The process that has them. */
  readonly pid: number;
  /** `device:inode` of the pod's network namespace. */
  readonly netns: string;
  readonly sockets: readonly ListeningSocket[];
}

/** Thrown for an answer that is no offer. */
export class OfferError extends Error {
  override readonly name = 'OfferError';
}

/** @throws OfferError */
export function parseOffer(text: string): Offer {
  const offer = parseJson(text);
  const { pid, netns, sockets } = fieldsOf(offer);
  if (!isDescriptor(pid) || typeof netns !== 'string' || !Array.isArray(sockets)) {
    throw new OfferError('the answer is no offer of sockets');
  }
  return { pid, netns, sockets: sockets.map(parseSocket) };
}

/**
 * Which of several sockets on the same port one of several workers takes: each is somebody's, since connections wait in
 * each, however many workers the other process had.
 */
export function shareOf<Socket extends { readonly address: HostPort }>(
  sockets: readonly Socket[],
  worker: number,
  workers: number,
): readonly Socket[] {
  const seen = new Map<number, number>();
  return sockets.filter(({ address: { port } }) => {
    const index = seen.get(port) ?? 0;
    seen.set(port, index + 1);
    return index % workers === worker;
  });
}

function parseSocket(value: unknown): ListeningSocket {
  const { protocol, address, fd } = fieldsOf(value);
  const { ip, port } = fieldsOf(address);
  const isAddress = typeof ip === 'string' && isIp(ip) && Number.isInteger(port);
  if ((protocol !== 'tcp' && protocol !== 'udp') || !isAddress || !isDescriptor(fd)) {
    throw new OfferError(`not a socket that can be taken: ${JSON.stringify(value)}`);
  }
  return { protocol, address: { ip: parseIp(ip), port: Number(port) }, fd };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new OfferError('the answer is not JSON', { cause });
  }
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function isDescriptor(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0x7fffffff;
}
