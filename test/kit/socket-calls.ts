import { once } from 'node:events';
import { join } from 'node:path';
import type { HostPort } from '#api/address.ts';
import { endProcess } from './command.ts';
import type { Netns } from './netns.ts';

/** Python of the system: workloads cannot read the home of whoever runs the tests. */
export const PYTHON: string = '/usr/bin/python3';
/** The program of both ends; see there. */
export const SOCKETS: string = join(import.meta.dirname, 'programs/sockets.py');

/** A connection to make, by which kind of socket. */
export interface SocketCall extends Omit<HostPort, 'ip'> {
  readonly host: string;
  /** `mapped`: IPv4 by an IPv6 socket; `device`: bound to eth0; `bound`: to `source`. */
  readonly kind?: 'plain' | 'mapped' | 'bound' | 'device';
  readonly source?: string;
}

/** What both ends saw; IPv4 addresses are without a prefix. */
export interface SocketReply {
  readonly peer: HostPort;
  readonly local: HostPort;
  /** Null when the connection ended before the server said anything. */
  readonly server: { readonly accepted: HostPort; readonly peer: HostPort; readonly local: HostPort } | null;
  /** What came after the client had closed its half. */
  readonly reply: string;
  readonly error?: string;
}

/** A server in a namespace that tells each caller what it sees of it, and answers a half-close. */
export async function serveSockets(netns: Netns, port: number): Promise<AsyncDisposable> {
  const child = netns.spawn(PYTHON, [SOCKETS, 'serve', `${port}`], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout ?? process.stdin, 'data');
  return { [Symbol.asyncDispose]: async () => void (await endProcess(child, 'SIGKILL')) };
}

/** Makes the connections, one after the other, from inside a namespace. */
export async function callSockets(
  netns: Netns,
  calls: readonly SocketCall[],
): Promise<readonly SocketReply[]> {
  return JSON.parse(await netns.exec(PYTHON, [SOCKETS, 'call', JSON.stringify(calls)])) as SocketReply[];
}

/**
 * Sends a datagram to port 53 of each resolver, `connected`: by a socket of its own each, or `together`: all by one that is
 * not connected. The answers, each with whom it came from.
 */
export async function askResolvers(
  netns: Netns,
  resolvers: readonly string[],
  how: 'connected' | 'together',
): Promise<readonly (readonly [from: string, answer: string])[]> {
  const asked = JSON.stringify({ resolvers, how });
  return JSON.parse(await netns.exec(PYTHON, [SOCKETS, 'ask', asked])) as [string, string][];
}
