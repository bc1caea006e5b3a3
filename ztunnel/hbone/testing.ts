import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { eventually } from '#test/kit/eventually.ts';
import { Connection, type ConnectionOptions, type ConnectionSettings } from './connection.ts';
import type { Field } from './hpack-tables.ts';
import type { Leg } from './leg.ts';
import type { Answer, TunnelStream } from './stream.ts';

/** What the fact sheet says, with a PING that never comes in a test. */
export const SETTINGS: ConnectionSettings = {
  streamWindowBytes: 4_194_304,
  connectionWindowBytes: 16_777_216,
  frameBytes: 1_048_576,
  pingIntervalMs: 600_000,
  pingTimeoutMs: 600_000,
};

export const CONNECT: readonly Field[] = [
  [':method', 'CONNECT'],
  [':authority', '10.0.0.1:80'],
];
export const OK: readonly Field[] = [[':status', '200']];

/** A TCP connection over loopback: both ends, half-closing. */
export async function socketPair(): Promise<{ readonly near: Socket; readonly far: Socket }> {
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const near = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  const [far] = (await once(server, 'connection')) as [Socket];
  if (near.connecting) await once(near, 'connect');
  server.close();
  return { near, far };
}

export interface ConnectionPair {
  readonly client: Connection;
  readonly server: Connection;
  readonly clientSocket: Socket;
  readonly serverSocket: Socket;
  readonly closed: string[];
}

/** Two of our connections, back to back without TLS. */
export async function connectionPair(
  onRequest: NonNullable<ConnectionOptions['onRequest']>,
  settings: { readonly client?: ConnectionSettings; readonly server?: ConnectionSettings } = {},
): Promise<ConnectionPair> {
  const { near, far } = await socketPair();
  const closed: string[] = [];
  const server = new Connection(far, {
    settings: settings.server ?? SETTINGS,
    onRequest,
    onClose: (reason) => closed.push(`server: ${reason}`),
  });
  const client = new Connection(near, {
    settings: settings.client ?? SETTINGS,
    onClose: (reason) => closed.push(`client: ${reason}`),
  });
  return { client, server, clientSocket: near, serverSocket: far, closed };
}

/** Makes a request; the stream and its answer. */
export function request(
  client: Connection,
  fields: readonly Field[] = CONNECT,
): { readonly stream: TunnelStream; readonly answer: Promise<Answer> } {
  const { promise, resolve } = Promise.withResolvers<Answer>();
  return { stream: client.request(fields, resolve), answer: promise };
}

/** What happened at a leg, in order: `data 5`, `end`, `finish`, `abort: reason`. */
export interface Watched {
  readonly events: string[];
  readonly text: () => string;
  readonly bytes: () => number;
  readonly until: (event: string) => Promise<void>;
}

/** Starts a leg and notes what happens. */
export function watch(leg: Leg, onData?: (bytes: Buffer) => void): Watched {
  const events: string[] = [];
  const pieces: Buffer[] = [];
  let size = 0;
  leg.start({
    onData: (bytes) => {
      size += bytes.length;
      if (onData === undefined) pieces.push(Buffer.from(bytes));
      else onData(bytes);
    },
    onEnd: () => events.push('end'),
    onDrain: () => events.push('drain'),
    onFinish: () => events.push('finish'),
    onAbort: (reason) => events.push(`abort: ${reason}`),
  });
  return {
    events,
    text: () => Buffer.concat(pieces).toString('latin1'),
    bytes: () => size,
    until: async (event) => {
      await eventually(
        `${event} in ${events.join(', ')}`,
        () => events.some((each) => each.startsWith(event)),
        5_000,
      );
    },
  };
}
