import { connect, type Server, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { DuplexOptions } from 'node:stream';
import type { HostPort } from '#api/address.ts';
import type { PodSockets } from '#ztunnel/pod-sockets.ts';

/**
 * Pods without network namespaces: each has an address in 127/8, and its ports are any that are free. Real sockets, so that
 * everything but capture can be tested without root.
 */
export class LoopbackPods {
  /** `ip:port` as the mesh knows it, to the port that it really is. */
  readonly #ports = new Map<string, number>();
  /** Where "captured" connections were going, by pod, in the order in which they are accepted. */
  readonly #destinations = new Map<string, HostPort[]>();
  readonly #aims = new Map<string, HostPort>();

  /** The sockets of the pod with that address. */
  socketsOf(ip: string): PodSockets {
    return {
      listen: (server, port) => {
        server.once('listening', () => this.#note({ ip, port }, server));
        server.listen(0, ip);
      },
      originalDestination: () => this.#destinations.get(ip)?.shift() ?? this.#aims.get(ip),
      dial: (to, caller) => this.#connect(to, caller?.ip ?? ip),
      dialOutside: (to) => this.#connect(to, ip),
      hasAddress: (address) => address === ip,
    };
  }

  /** Makes a server known at a port of the mesh. */
  async serve(server: Server, { ip, port }: HostPort): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, ip, () => {
      this.#note({ ip, port }, server);
      resolve();
    });
    await promise;
  }

  /**
   * An application in a pod calls; its ztunnel gets the connection, as if it had been captured.
   * @param localIp where it comes from
   */
  call(podIp: string, to: HostPort, localIp: string = podIp): Socket {
    return this.#captured(localIp, { ip: podIp, port: 15001 }, to);
  }

  /** Somebody calls a pod in plain text. */
  callPlain(fromIp: string, to: HostPort): Socket {
    return this.#captured(fromIp, { ip: to.ip, port: 15006 }, to);
  }

  #captured(fromIp: string, listener: HostPort, to: HostPort): Socket {
    this.#destinations.set(listener.ip, [...(this.#destinations.get(listener.ip) ?? []), to]);
    const socket = this.#connect(listener, fromIp);
    socket.on('error', () => undefined);
    return socket;
  }

  /** Makes a server of another process known at a port of the mesh. */
  know({ ip, port }: HostPort, real: number): void {
    this.#ports.set(`${ip}:${port}`, real);
  }

  /** Connections to a pod's 15001 and 15006 of which nothing else is known were going there. */
  aim(podIp: string, to: HostPort): void {
    this.#aims.set(podIp, to);
  }

  /** The port on which a pod's port really is. */
  portOf({ ip, port }: HostPort): number {
    const known = this.#ports.get(`${ip}:${port}`);
    // Nobody listens on port 1.
    return known ?? 1;
  }

  #connect(to: HostPort, localAddress: string): Socket {
    const options: TcpNetConnectOpts & DuplexOptions = {
      host: to.ip,
      port: this.portOf(to),
      localAddress,
      allowHalfOpen: true,
      noDelay: true,
      highWaterMark: 512 * 1024,
    };
    return connect(options);
  }

  #note({ ip, port }: HostPort, server: Server): void {
    const address = server.address();
    if (typeof address === 'object' && address !== null) this.#ports.set(`${ip}:${port}`, address.port);
  }
}
