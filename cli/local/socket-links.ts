import { renameSync, rmSync, symlinkSync } from 'node:fs';
import { basename } from 'node:path';
import type { SupervisedProcess } from './supervised-process.ts';

/** Keeps, for each process that takes commands, a link to the socket of the instance that serves. */
export class SocketLinks {
  /** Instance that a link leads to, by the link. */
  readonly #linked = new Map<string, number>();

  /** Lets the link follow the process; nothing happens when it does already, or none runs. */
  follow({ spec, instance }: SupervisedProcess): void {
    const { socket } = spec;
    if (socket === undefined || instance === undefined || this.#linked.get(socket.link) === instance) return;
    const next = `${socket.link}.new`;
    rmSync(next, { force: true });
    symlinkSync(basename(socket.pathOf(instance)), next);
    renameSync(next, socket.link);
    this.#linked.set(socket.link, instance);
  }

  /** For a process that is no more. The link itself is its owner's to remove. */
  forget({ spec }: SupervisedProcess): void {
    if (spec.socket !== undefined) this.#linked.delete(spec.socket.link);
  }
}
