import { once } from 'node:events';
import net from 'node:net';
import { familyOf } from '#api/address.ts';
import {
  closeDescriptor,
  dialSocket,
  openNamespace,
  warmThreadPool,
} from '#ztunnel/capture/in-pod-sockets.ts';
import { CliError, describeError } from '../cli-error.ts';
import { stopSignal } from './foreground.ts';
import { formatWorkloadRef } from './names.ts';
import { netnsPath } from './network-namespace.ts';
import type { PodDescription } from './pods.ts';

/**
 * Takes connections on a port of this host's loopback, and continues each from inside the workload's namespace to its own
 * address: as the workload's own calls to itself, past the mesh and its policies. Ends with Ctrl-C.
 * @throws CliError when the local port is taken.
 */
export async function forwardPort(
  pod: PodDescription,
  ports: { readonly localPort: number; readonly port: number },
): Promise<void> {
  await warmThreadPool();
  const namespace = openNamespace(netnsPath(pod.netns));
  const [address = ''] = pod.addresses;
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    void relay(socket, namespace, address, ports.port);
  });
  server.listen(ports.localPort, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch (cause) {
    closeDescriptor(namespace);
    throw new CliError(`cannot listen on 127.0.0.1:${ports.localPort}; choose another LOCAL port`, { cause });
  }
  const { port } = server.address() as net.AddressInfo;
  console.log(`127.0.0.1:${port} -> ${formatWorkloadRef(pod.record)} port ${ports.port} (Ctrl-C ends)`);
  const stop = stopSignal();
  await once(stop.signal, 'abort');
  stop.dispose();
  process.exit(0);
}

async function relay(socket: net.Socket, namespace: number, address: string, port: number): Promise<void> {
  const fd = dialSocket(namespace, { family: familyOf(address) });
  const inside = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
  // A reset is passed on as one: what was cut short must not look complete.
  socket.on('error', () => inside.resetAndDestroy());
  inside.connect({ host: address, port });
  try {
    await once(inside, 'connect');
  } catch (error) {
    console.error(`tulle: nothing answers on port ${port} of the workload: ${describeError(error)}`);
    socket.resetAndDestroy();
    return;
  }
  inside.on('error', () => socket.resetAndDestroy());
  socket.pipe(inside);
  inside.pipe(socket);
}
