import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { callSocket } from '#cli/unix-http.ts';
import { endProcess } from './command.ts';
import { eventually } from './eventually.ts';
import type { Mesh } from './mesh.ts';
import { longLivedCommand } from './programs/programs.ts';

/** What was seen of connections that live long (programs/long-lived.ts), by their kind. */
export type SeenLongLived = Readonly<
  Record<
    string,
    {
      readonly connections: number;
      readonly bytes: number;
      readonly longestStallMs: number;
      readonly errors: readonly string[];
    }
  >
>;

/** A client of connections that live long, as a workload. */
export interface LongLived {
  readonly live: () => SeenLongLived;
  /** Ends them in good order. */
  readonly end: () => Promise<SeenLongLived>;
}

/** How many connections one client has, without those that are asked for beyond. */
export const LONG_LIVED_CONNECTIONS: number = 18;

export interface LongLivedOptions {
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  /** `service.namespace`, on port 9000. */
  readonly host: string;
  /** Whether its pod is to be in the mesh. */
  readonly isInMesh: boolean;
  /** Idle connections that it has more; default 0. */
  readonly idle?: number;
}

/** Starts a client; resolves when all its connections are there. */
export async function startLongLived(
  mesh: Mesh,
  { namespace, name, node, host, isInMesh, idle = 0 }: LongLivedOptions,
): Promise<LongLived> {
  const file = join(mesh.directory, `${name}.json`);
  const read = (path: string): SeenLongLived => JSON.parse(readFileSync(path, 'utf8')) as SeenLongLived;
  const command = longLivedCommand(`${host}.svc.cluster.local`, 9000, file, idle);
  const { child } = await mesh.run({ namespace, name, node, command }, isInMesh);
  await eventually(
    'all connections are there',
    () => countOf(read(`${file}.live`)) === LONG_LIVED_CONNECTIONS + idle,
    20_000,
  );
  return {
    live: () => read(`${file}.live`),
    end: async () => {
      await endProcess(child);
      return read(file);
    },
  };
}

function countOf(seen: SeenLongLived): number {
  return Object.values(seen).reduce((sum, { connections }) => sum + connections, 0);
}

/** Resolves when bytes have flowed on all connections of the kinds that always have some to move. */
export async function bytesFlow(clients: readonly LongLived[]): Promise<void> {
  const before = clients.map(({ live }) => bytesOf(live()));
  await eventually('bytes flow on every connection that has some', () =>
    clients.every(({ live }, at) =>
      bytesOf(live()).every((bytes, kind) => bytes > (before[at]?.[kind] ?? 0)),
    ),
  );
}

function bytesOf(seen: SeenLongLived): readonly number[] {
  return ['bulk', 'chatty', 'client-ended', 'server-ended'].map((kind) => seen[kind]?.bytes ?? 0);
}

/** Errors of all kinds. */
export function errorsOf(seen: SeenLongLived): readonly string[] {
  return Object.values(seen).flatMap(({ errors }) => errors);
}

/** What became of the connections that the last restart of a node's ztunnel met: `KIND OUTCOME`. */
export async function handedOver(mesh: Mesh, node: string): Promise<Readonly<Record<string, number>>> {
  const socketPath = join(mesh.state, 'run', node, 'ztunnel.sock');
  const { body } = await callSocket({ socketPath, path: '/hand-over' });
  const { met } = body as { readonly met: Record<string, Record<string, number>> };
  return Object.fromEntries(
    Object.entries(met).flatMap(([kind, counts]) =>
      Object.entries(counts).map(([outcome, count]) => [`${kind} ${outcome}`, count]),
    ),
  );
}
