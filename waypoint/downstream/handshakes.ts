import type { Socket } from 'node:net';

/** Connections whose peers have not proven who they are: so many at a time, and not all of them one address's. */
export class Handshakes {
  readonly #most: number;
  readonly #mostPerAddress: number;
  /** By address and port: a TLS socket is another object than what it is made of. */
  readonly #pending = new Map<string, { readonly address: string }>();
  readonly #perAddress = new Map<string, number>();

  constructor(most: number, mostPerAddress: number) {
    this.#most = most;
    this.#mostPerAddress = mostPerAddress;
  }

  get size(): number {
    return this.#pending.size;
  }

  /** @returns whether there is room for one more; it counts until `end`, or until the socket is closed */
  begin(socket: Socket): boolean {
    const key = keyOf(socket);
    // A client that was reset may come back from the same port before its former socket has closed here.
    this.#end(key);
    const { remoteAddress: address = '' } = socket;
    const count = this.#perAddress.get(address) ?? 0;
    if (this.#pending.size >= this.#most || count >= this.#mostPerAddress) return false;
    const handshake = { address };
    this.#pending.set(key, handshake);
    this.#perAddress.set(address, count + 1);
    socket.once('close', () => {
      if (this.#pending.get(key) === handshake) this.#end(key);
    });
    return true;
  }

  /** There is a session. @param socket or the TLS socket on it */
  end(socket: Socket): void {
    this.#end(keyOf(socket));
  }

  #end(key: string): void {
    const address = this.#pending.get(key)?.address;
    if (address === undefined) return;
    this.#pending.delete(key);
    const count = (this.#perAddress.get(address) ?? 1) - 1;
    if (count > 0) this.#perAddress.set(address, count);
    else this.#perAddress.delete(address);
  }
}

function keyOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
