import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { HostPort } from '#api/address.ts';
import type { Resource } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import type { TemporaryAuthority } from '#certs/testing.ts';
import { CarriedNode } from '#test/kit/carried-node.ts';
import { eventually } from '#test/kit/eventually.ts';
import { LoopbackPods } from '#test/kit/loopback-pods.ts';
import { workload } from '#test/kit/resources.ts';

export const WEB = '127.0.46.1';
export const CART = '127.0.46.2';
export const CART_PORT: HostPort = { ip: CART, port: 8080 };

const web: Workload = workload({ name: 'web', serviceAccount: 'web', addresses: [WEB] });
const cart: Workload = workload({ name: 'cart', serviceAccount: 'cart', node: 'n2', addresses: [CART] });

/** Which node: `web` is on the first, `cart` on the second. */
export type NodeName = 'n1' | 'n2';

/** A call of `web` to `cart`, at both of its ends. */
export interface Call {
  readonly caller: Socket;
  readonly callee: Socket;
}

/** Two byte workers, as of two nodes, that are replaced while `web` on the first calls `cart` on the second. */
export class RestartBed implements AsyncDisposable {
  readonly ca: TemporaryAuthority;
  readonly pods: LoopbackPods = new LoopbackPods();
  /** All that have been started. */
  readonly nodes: CarriedNode[] = [];
  readonly #current = new Map<NodeName, CarriedNode>();
  readonly #server: Server;
  readonly #accepted: Socket[] = [];
  readonly #sockets: Socket[] = [];

  /** Both nodes, and the application behind `cart`. @param ca stays the caller's */
  static async open(ca: TemporaryAuthority): Promise<RestartBed> {
    const bed = new RestartBed(ca);
    for (const name of ['n1', 'n2'] as const) bed.#current.set(name, await bed.start(name));
    await bed.pods.serve(bed.#server, CART_PORT);
    return bed;
  }

  private constructor(ca: TemporaryAuthority) {
    this.ca = ca;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      this.#sockets.push(socket);
      this.#accepted.push(socket);
    });
  }

  /** The ones that are not replaced yet. */
  get n1(): CarriedNode {
    return this.#of('n1');
  }

  get n2(): CarriedNode {
    return this.#of('n2');
  }

  /** Starts one beside the one that is there, without a certificate if that is to come later. */
  async start(name: NodeName, more: readonly Resource[] = [], isCertified = true): Promise<CarriedNode> {
    const node = new CarriedNode(this.pods, name);
    this.nodes.push(node);
    await node.learn(web, cart, ...more);
    if (isCertified) await this.certify(node, name);
    const places = [15001, 15008].map((port) => ({ ip: name === 'n1' ? WEB : CART, port }));
    const before = places.map((place) => this.pods.portOf(place));
    await node.serve(name === 'n1' ? web : cart);
    await eventually('listeners of its own', () =>
      places.every((place, at) => this.pods.portOf(place) !== before[at]),
    );
    return node;
  }

  async certify(node: CarriedNode, name: NodeName): Promise<void> {
    const account = name === 'n1' ? 'web' : 'cart';
    const svid = await this.ca.svid(`spiffe://cluster.local/ns/default/sa/${account}`);
    await node.tell({ kind: 'svid', svid });
  }

  /** Replaces nodes, all at once; resolves when the old ones have drained. */
  async restart(names: readonly NodeName[], more: readonly Resource[] = []): Promise<void> {
    const replaced: (readonly [old: CarriedNode, next: CarriedNode])[] = [];
    for (const name of names) replaced.push([this.#of(name), await this.start(name, more)]);
    for (const [at, name] of names.entries()) {
      const next = replaced[at]?.[1];
      if (next !== undefined) this.#current.set(name, next);
    }
    await Promise.all(replaced.map(([old, next]) => old.retire(next)));
  }

  /** A call, over which a byte has gone. */
  async call(): Promise<Call> {
    const caller = this.pods.call(WEB, CART_PORT);
    this.#sockets.push(caller);
    caller.write('x');
    const callee = await this.accept();
    await once(callee, 'data');
    return { caller, callee };
  }

  /** The next connection at the application. */
  async accept(): Promise<Socket> {
    return await eventually('a call', () => this.#accepted.shift());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    for (const node of this.nodes) await node.request({ kind: 'drain', deadlineMs: 0 });
    this.#server.close();
  }

  #of(name: NodeName): CarriedNode {
    const node = this.#current.get(name);
    if (node === undefined) throw new TypeError(`${name} has not been started`);
    return node;
  }
}
