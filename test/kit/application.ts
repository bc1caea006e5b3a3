import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';

/** A TCP application in this process; disposing of it closes it with its connections. */
export interface Application extends Disposable {
  readonly port: number;
  /** Those that are open. */
  readonly connections: ReadonlySet<Socket>;
}

/**
 * Starts one at an address, on a free port.
 * @param serve what becomes of a connection; default: it echoes
 */
export async function startApplication(
  host: string,
  serve: (socket: Socket) => void = (socket) => void socket.pipe(socket),
): Promise<Application> {
  const connections = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    connections.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => connections.delete(socket));
    serve(socket);
  });
  server.listen({ host, port: 0, backlog: 4096 });
  await once(server, 'listening');
  return {
    port: (server.address() as { readonly port: number }).port,
    connections,
    [Symbol.dispose]: () => {
      server.close();
      for (const socket of connections) socket.destroy();
    },
  };
}
