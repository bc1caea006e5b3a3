import type { Socket } from 'node:net';

/** How many connections there may be. */
export interface ConnectionLimits {
  /** Connections on which nobody has shown a token yet, from one address. Default 768: all nodes may be behind one. */
  readonly maxUnknownOfAddress?: number;
  /** Such connections in all. Default 1024. */
  readonly maxUnknown?: number;
  /** How long a connection may be one of them. Default 20 000 ms, the TLS handshake included. */
  readonly longestUnknownMs?: number;
  /** Connections of one caller. Default 128. */
  readonly maxOfCaller?: number;
  /** Calls without a valid token until the connection is closed. Default 20. */
  readonly maxRefused?: number;
}

/** Who is on which connection, as far as it is known. */
export interface ConnectionGuard {
  /** A new one. It may close another one, which has been unknown for longer. */
  readonly opened: (socket: Socket) => void;
  /** A call from there showed the token of that caller; returns why it may not go on. `peer`: `ADDRESS:PORT`. */
  readonly accepted: (peer: string, caller: string) => string | undefined;
  /** A call from there showed none. */
  readonly refused: (peer: string) => void;
  /** Who has how many, for people. */
  readonly describe: () => string;
}

interface Connection {
  readonly socket: Socket;
  readonly timer: NodeJS.Timeout;
  caller: string | undefined;
  refusals: number;
}

/**
 * Makes one. Whoever has no token can hold few connections, and for a short time: when there are too many, those that have been
 * unknown longest are closed, so that who has a token, and shows it at once, gets in.
 */
export function createConnectionGuard(limits: ConnectionLimits = {}): ConnectionGuard {
  const { maxUnknownOfAddress = 768, maxUnknown = 1024, longestUnknownMs = 20_000 } = limits;
  const { maxOfCaller = 128, maxRefused = 20 } = limits;
  /** In the order in which they came. */
  const unknown = new Map<string, Connection>();
  const known = new Map<string, Connection>();
  const byAddress = new Map<string, Set<string>>();
  const byCaller = new Map<string, number>();

  const forget = (peer: string, address: string): void => {
    unknown.delete(peer);
    const ofAddress = byAddress.get(address);
    ofAddress?.delete(peer);
    if (ofAddress?.size === 0) byAddress.delete(address);
  };
  /** It no longer counts at once: many may come before it has closed. */
  const drop = (peer = ''): void => {
    const connection = unknown.get(peer);
    forget(peer, connection?.socket.remoteAddress ?? '');
    destroy(connection);
  };
  const opened = (socket: Socket): void => {
    const { remoteAddress: address = '', remotePort = 0 } = socket;
    const peer = `${address}:${remotePort}`;
    const timer = setTimeout(() => socket.destroy(), longestUnknownMs);
    const connection: Connection = { socket, timer, caller: undefined, refusals: 0 };
    forget(peer, address);
    unknown.set(peer, connection);
    const ofAddress = byAddress.get(address) ?? new Set();
    byAddress.set(address, ofAddress.add(peer));
    socket.once('close', () => {
      clearTimeout(timer);
      // Another one may have come from the same port before this one had closed here.
      if (unknown.get(peer) === connection) forget(peer, address);
      if (known.get(peer) === connection) known.delete(peer);
      if (connection.caller !== undefined) count(byCaller, connection.caller, -1);
    });
    const [oldestOfAddress] = ofAddress;
    const [oldest] = unknown.keys();
    if (ofAddress.size > maxUnknownOfAddress) drop(oldestOfAddress);
    else if (unknown.size > maxUnknown) drop(oldest);
  };
  return {
    opened,
    accepted: (peer, caller) => {
      const connection = unknown.get(peer);
      if (connection === undefined) return undefined;
      if ((byCaller.get(caller) ?? 0) >= maxOfCaller) return `${caller} has ${maxOfCaller} connections open`;
      clearTimeout(connection.timer);
      forget(peer, connection.socket.remoteAddress ?? '');
      known.set(peer, connection);
      connection.caller = caller;
      count(byCaller, caller, 1);
      return undefined;
    },
    refused: (peer) => {
      const connection = unknown.get(peer) ?? known.get(peer);
      if (connection === undefined) return;
      connection.refusals += 1;
      if (connection.refusals >= maxRefused) destroy(connection);
    },
    describe: () => {
      const [most] = [...byCaller].toSorted(([, a], [, b]) => b - a);
      const known = most === undefined ? '' : `, most are of ${most[0]} (${most[1]})`;
      return `${unknown.size} have shown no token${known}`;
    },
  };
}

function destroy(connection: Connection | undefined): void {
  connection?.socket.destroy();
}

function count(counts: Map<string, number>, key: string, change: number): void {
  const next = (counts.get(key) ?? 0) + change;
  if (next === 0) counts.delete(key);
  else counts.set(key, next);
}
