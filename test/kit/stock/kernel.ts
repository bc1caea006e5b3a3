import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { join } from 'node:path';
import readline from 'node:readline';
import { canonicalIp } from './resources.ts';
import type { Endpoint } from './tables.ts';

/** A network namespace that came with a ZDS message. */
export type NetnsHandle = number;

/** A connection that was taken in a pod, at the port that the kind names. */
export interface TakenConnection {
  readonly kind: 'outbound' | 'inbound' | 'hbone';
  readonly netns: NetnsHandle;
  readonly peer: Endpoint;
  readonly local: Endpoint;
  /** Before it was redirected. */
  readonly original: Endpoint;
  readonly socket: net.Socket;
  /** Ends the pod's connection with a TCP reset. */
  readonly reset: () => void;
}

/** What arrives by itself. */
export interface KernelEvents {
  /** The node agent is there. */
  readonly onConnected: () => void;
  readonly onPacket: (packet: { hex: string; truncated: boolean; netns: readonly NetnsHandle[] }) => void;
  /** The node agent is not there, or has left. */
  readonly onDisconnected: (error: string) => void;
  readonly onConnection: (connection: TakenConnection) => void;
  /** Answers a DNS query; undefined: not at all. */
  readonly onQuery: (netns: NetnsHandle, query: Buffer) => Buffer | undefined;
}

type Event =
  | { event: 'connected' }
  | { event: 'disconnected'; error: string }
  | { event: 'packet'; hex: string; truncated: boolean; netns: NetnsHandle[] }
  | { event: 'served'; netns: NetnsHandle; error: string | null }
  | { event: 'failed'; id: number; error: string }
  | { event: 'query'; netns: NetnsHandle; listener: number; to: unknown; bytes: string };

type RawEndpoint = [string, number];
type Head = { connection: number } & (
  | {
      accepted: TakenConnection['kind'];
      netns: NetnsHandle;
      peer: RawEndpoint;
      local: RawEndpoint;
      original: RawEndpoint;
    }
  | { dialled: number }
);

interface Waiting<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

/** The other end of kernel.py, which it starts; what Node.js cannot do with sockets is done there. */
export class Kernel implements Disposable {
  readonly #events: KernelEvents;
  readonly #child: ChildProcess;
  readonly #server: net.Server;
  readonly #dials = new Map<number, Waiting<net.Socket>>();
  readonly #serves = new Map<NetnsHandle, Waiting<void>>();
  #ids = 0;
  #isOpen = true;

  private constructor(events: KernelEvents, zdsPath: string) {
    this.#events = events;
    const name = `tulle-stock-${process.pid}`;
    this.#server = net.createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
    this.#server.listen(`\0${name}`);
    this.#child = spawn('python3', [join(import.meta.dirname, 'kernel.py'), zdsPath, name], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' },
    });
    this.#child.on('exit', (code) => {
      if (this.#isOpen) throw new Error(`kernel.py ended with ${code}`);
    });
    const { stdout } = this.#child;
    if (stdout === null) throw new Error('no standard output');
    readline
      .createInterface({ input: stdout })
      .on('line', (line) => this.#receive(JSON.parse(line) as Event));
  }

  static async start(events: KernelEvents, zdsPath: string): Promise<Kernel> {
    const kernel = new Kernel(events, zdsPath);
    await once(kernel.#server, 'listening');
    return kernel;
  }

  /** Connects to the node agent. */
  connect(): void {
    this.#command({ do: 'connect' });
  }

  send(hex: string): void {
    this.#command({ do: 'send', hex });
  }

  /** Opens the listeners of a pod. @throws Error with the system's words */
  serve(netns: NetnsHandle): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#serves.set(netns, { resolve, reject });
      this.#command({ do: 'serve', netns });
    });
  }

  /** Closes the listeners of a pod; its connections stay. */
  stopListening(netns: NetnsHandle): void {
    this.#command({ do: 'stop_listening', netns });
  }

  /** Ends everything in a pod's namespace and forgets it. */
  release(netns: NetnsHandle): void {
    this.#command({ do: 'release', netns });
  }

  /** Dials in a pod's namespace, marked; from the address `source` where one is given. @throws Error with the system's words */
  dial(netns: NetnsHandle, { ip, port }: Endpoint, source?: string): Promise<net.Socket> {
    const id = ++this.#ids;
    return new Promise((resolve, reject) => {
      this.#dials.set(id, { resolve, reject });
      this.#command({ do: 'dial', id, netns, ip, port, source: source ?? null });
    });
  }

  [Symbol.dispose](): void {
    this.#isOpen = false;
    this.#child.stdin?.end();
    this.#child.kill();
    this.#server.close();
  }

  #command(command: object): void {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  #receive(event: Event): void {
    const { onConnected, onDisconnected, onPacket } = this.#events;
    if (event.event === 'connected') onConnected();
    else if (event.event === 'disconnected') onDisconnected(event.error);
    else if (event.event === 'packet') onPacket(event);
    else if (event.event === 'query') this.#answer(event);
    else if (event.event === 'served') settle(this.#serves, event.netns, event.error);
    else settle(this.#dials, event.id, event.error);
  }

  #answer({ netns, listener, to, bytes }: Event & { event: 'query' }): void {
    const answer = this.#events.onQuery(netns, Buffer.from(bytes, 'base64'));
    if (answer) this.#command({ do: 'answer', listener, to, bytes: answer.toString('base64') });
  }

  /** The first line says what the connection is. */
  #accept(socket: net.Socket): void {
    let head = Buffer.alloc(0);
    socket.on('error', () => socket.destroy());
    const read = (chunk: Buffer): void => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf('\n');
      if (end < 0) return;
      socket.off('data', read);
      socket.pause();
      if (head.length > end + 1) socket.unshift(head.subarray(end + 1));
      this.#announce(JSON.parse(head.subarray(0, end).toString()) as Head, socket);
    };
    socket.on('data', read);
  }

  #announce(head: Head, socket: net.Socket): void {
    if ('dialled' in head) {
      this.#dials.get(head.dialled)?.resolve(socket);
      this.#dials.delete(head.dialled);
      return;
    }
    this.#events.onConnection({
      kind: head.accepted,
      netns: head.netns,
      peer: endpoint(head.peer),
      local: endpoint(head.local),
      original: endpoint(head.original),
      socket,
      reset: () => this.#command({ do: 'reset', connection: head.connection }),
    });
  }
}

function settle(
  waiting: Map<number, Waiting<void> | Waiting<net.Socket>>,
  key: number,
  error: string | null,
): void {
  const one = waiting.get(key);
  waiting.delete(key);
  if (error !== null) one?.reject(new Error(error));
  else (one as Waiting<void> | undefined)?.resolve();
}

function endpoint([ip, port]: RawEndpoint): Endpoint {
  return { ip: canonicalIp(ip), port };
}
