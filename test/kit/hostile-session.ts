import { connect as connectTcp } from 'node:net';
import type { HostPort } from '#api/address.ts';
import { parseIdentity } from '#certs/identity.ts';
import type { Svid } from '#certs/svid.ts';
import { connectHop } from '#ztunnel/hbone/client.ts';
import type { Connection, ConnectionSettings } from '#ztunnel/hbone/connection.ts';
import { fieldOf } from '#ztunnel/hbone/headers.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';

const SETTINGS: ConnectionSettings = {
  streamWindowBytes: 4_194_304,
  connectionWindowBytes: 16_777_216,
  frameBytes: 1_048_576,
  pingIntervalMs: 600_000,
  pingTimeoutMs: 600_000,
};

/** A session of our own client with a ztunnel at a real address, as `default/cart`'s peer. */
export async function openHostileSession(
  at: HostPort,
  svid: Svid,
  localAddress?: string,
): Promise<Connection> {
  return await connectHop({
    hop: at,
    svid,
    expected: [parseIdentity('spiffe://cluster.local/ns/default/sa/cart')],
    dial: ({ ip, port }) => connectTcp({ host: ip, port, ...(localAddress && { localAddress }) }),
    settings: SETTINGS,
    timeoutMs: 10_000,
    onClose: () => undefined,
  });
}

/** A CONNECT that was answered with 200; not started yet. @throws Error for any other answer */
export async function answeredTunnel(session: Connection, authority: string): Promise<TunnelStream> {
  const { promise, resolve, reject } = Promise.withResolvers<TunnelStream>();
  const fields = [
    [':method', 'CONNECT'],
    [':authority', authority],
  ] as const;
  const stream: TunnelStream = session.request(fields, (answer) => {
    if (answer.kind === 'failed') reject(new Error(answer.reason));
    else if (fieldOf(answer.fields, ':status') === '200') resolve(stream);
    else reject(new Error(`status ${fieldOf(answer.fields, ':status')}`));
  });
  return await promise;
}
