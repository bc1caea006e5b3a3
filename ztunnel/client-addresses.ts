import { type Allowance, FloodGuard } from './hbone/flood-guard.ts';

/** How long a client is remembered that has no session any more: until its allowance would be whole again. */
const REMEMBERED_MS = 10_000;

/** A client by its address, over all of its sessions with a pod. */
export interface ClientAddress {
  readonly ip: string;
  /** Sessions that it has now. */
  sessions: number;
  /** Streams that it resets, or has us reset: who comes back in another session does not begin anew. */
  readonly resets: FloodGuard;
}

/** The clients of a pod. */
export class ClientAddresses {
  readonly #allowance: Allowance;
  readonly #clients = new Map<string, ClientAddress>();

  constructor(allowance: Allowance) {
    this.#allowance = allowance;
  }

  /** Takes note of a session. */
  opened(ip: string): ClientAddress {
    const client = this.#clients.get(ip) ?? {
      ip,
      sessions: 0,
      resets: new FloodGuard('streams that are reset or refused', this.#allowance),
    };
    this.#clients.set(ip, client);
    client.sessions += 1;
    return client;
  }

  /** A session of it has ended. */
  closed(client: ClientAddress): void {
    client.sessions -= 1;
    if (client.sessions > 0) return;
    setTimeout(() => {
      if (client.sessions === 0 && this.#clients.get(client.ip) === client) this.#clients.delete(client.ip);
    }, REMEMBERED_MS).unref();
  }
}
