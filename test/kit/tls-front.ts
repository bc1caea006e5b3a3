import { once } from 'node:events';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { HostPort } from '#api/address.ts';
import type { Identity } from '#certs/identity.ts';
import { clientTlsOptions } from '#certs/peer.ts';
import type { Svid } from '#certs/svid.ts';

/** A port on loopback behind which an HBONE server is, for programs that have no client certificate. */
export interface TlsFront extends AsyncDisposable {
  readonly port: number;
}

/** Opens it: every connection is continued over mutual TLS, its bytes as they are. */
export async function openTlsFront(
  to: HostPort,
  { svid, expected }: { readonly svid: Svid; readonly expected: readonly Identity[] },
): Promise<TlsFront> {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const below = connectTcp({ host: to.ip, port: to.port });
    const far = connectTls({ socket: below, ...clientTlsOptions(svid, expected) });
    for (const [socket, other] of [
      [near, far],
      [far, near],
      [below, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    near.pipe(far).pipe(near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { readonly port: number };
  return {
    port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
