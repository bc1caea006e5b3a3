import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { on, once } from 'node:events';
import { Socket } from 'node:net';
import { addAbortSignal } from 'node:stream';
import { familyOf, type HostPort } from '#api/address.ts';
import { bindUdp, dialSocket, type SocketTag } from '../capture/in-pod-sockets.ts';
import { framed, readFramed } from './framing.ts';
import { type DnsQuery, isResponseTo, isTruncated, withId } from './query.ts';

/** Thrown when no name server answered; `code` is stable. */
export class ForwardError extends Error {
  override readonly name = 'ForwardError';
  readonly code: 'NO_NAME_SERVER' | 'TOO_MANY_IN_FLIGHT' | 'NO_ANSWER';

  constructor(message: string, options: { code: ForwardError['code']; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.code = options.code;
  }
}

export interface ForwarderOptions {
  /** Asked in this order. None: nothing is forwarded. */
  readonly nameServers: readonly HostPort[];
  /** Namespace in which the sockets are made; absent: the process's own. Stays the caller's. */
  readonly netnsFd?: number;
  /** For the sockets that are made in a pod's namespace. */
  readonly tag?: SocketTag;
  /** Wait for one answer of one server. Default 2000. */
  readonly timeoutMs?: number;
  /** How often the list is gone through. Default 2. */
  readonly rounds?: number;
  /** Queries at the same time; what exceeds that fails at once. Default 512. */
  readonly maxInFlight?: number;
}

/** Asks name servers outside the mesh. */
export interface Forwarder {
  /**
   * The response to a query, under whatever ID. Asked over the protocol of the client, over TCP where UDP gave a
   * truncated answer.
   * @throws ForwardError
   */
  readonly forward: (query: DnsQuery, protocol: 'udp' | 'tcp') => Promise<Buffer>;
}

/** A forwarder. It holds no sockets between queries: each has one of its own, on a random port. */
export function createForwarder(options: ForwarderOptions): Forwarder {
  const { timeoutMs = 2000, rounds = 2, maxInFlight = 512 } = options;
  const attempts = Array.from({ length: rounds }, () => options.nameServers).flat();
  let inFlight = 0;

  async function ask(query: DnsQuery, protocol: 'udp' | 'tcp'): Promise<Buffer> {
    let cause: unknown;
    for (const server of attempts) {
      try {
        return await askServer({ ...options, query, server, timeoutMs }, protocol);
      } catch (error) {
        cause = error;
      }
    }
    throw new ForwardError(`no name server answered for ${query.name}`, { code: 'NO_ANSWER', cause });
  }

  return {
    forward: async (query, protocol) => {
      if (attempts.length === 0)
        throw new ForwardError('no name servers are set', { code: 'NO_NAME_SERVER' });
      if (inFlight >= maxInFlight) {
        throw new ForwardError(`${inFlight} queries wait for name servers`, { code: 'TOO_MANY_IN_FLIGHT' });
      }
      inFlight += 1;
      try {
        return await ask(query, protocol);
      } finally {
        inFlight -= 1;
      }
    },
  };
}

interface Attempt extends Pick<ForwarderOptions, 'netnsFd' | 'tag'> {
  readonly query: DnsQuery;
  readonly server: HostPort;
  readonly timeoutMs: number;
}

async function askServer(attempt: Attempt, protocol: 'udp' | 'tcp'): Promise<Buffer> {
  if (protocol === 'tcp') return askOverTcp(attempt);
  const response = await askOverUdp(attempt);
  return isTruncated(response) ? askOverTcp(attempt) : response;
}

/** A connected socket takes answers of that server only. What does not fit the question is passed over. */
async function askOverUdp({ query, server, netnsFd, tag, timeoutMs }: Attempt): Promise<Buffer> {
  const family = familyOf(server.ip);
  const signal = AbortSignal.timeout(timeoutMs);
  await using socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  const any = { ip: family === 4 ? '0.0.0.0' : '::', port: 0 };
  socket.bind({ fd: bindUdp(netnsFd, any, tag), exclusive: true });
  socket.connect(server.port, server.ip);
  await once(socket, 'connect', { signal });
  const id = randomInt(0x10000);
  const messages = on(socket, 'message', { signal }) as AsyncIterable<[Buffer]>;
  socket.send(withId(query.message, id));
  for await (const [response] of messages) {
    if (isResponseTo(query, id, response)) return response;
  }
  throw new TypeError('the messages of a socket have no end');
}

async function askOverTcp({ query, server, netnsFd, tag, timeoutMs }: Attempt): Promise<Buffer> {
  const fd = dialSocket(netnsFd, { family: familyOf(server.ip), ...(tag && { tag }) });
  const socket = new Socket({ fd, readable: true });
  socket.on('error', () => socket.destroy());
  addAbortSignal(AbortSignal.timeout(timeoutMs), socket);
  try {
    socket.connect(server.port, server.ip);
    await once(socket, 'connect');
    const id = randomInt(0x10000);
    socket.write(framed(withId(query.message, id)));
    for await (const response of readFramed(socket)) {
      if (isResponseTo(query, id, response)) return response;
      break;
    }
    throw new Error('the name server sent no answer to the question');
  } finally {
    socket.destroy();
  }
}
