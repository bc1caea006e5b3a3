import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { CliError } from '../cli-error.ts';
import type { FabricNode } from './fabric.ts';
import type { NamedPort } from './names.ts';
import type { ProcessId } from './process-id.ts';
import { readJson, type StateFolder, writeAtomic } from './state-folder.ts';
import type { User } from './users.ts';

/** A workload of this machine, from `tulle run`, or a replica of a waypoint. */
export interface PodRecord {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly serviceAccount: string;
  readonly node: string;
  /** Its number on the node, which decides its addresses. */
  readonly number: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly ports: readonly NamedPort[];
  readonly user: User;
  /** Beside NET_BIND_SERVICE. */
  readonly capabilities: readonly string[];
  /** RFC 3339. */
  readonly createdAt: string;
  /** The `tulle run` that it lives and dies with. */
  readonly runner: ProcessId;
  /** First process of its PID namespace, and its command; absent until they run. */
  readonly init?: ProcessId | undefined;
  readonly command?: ProcessId | undefined;
  /** Name of the waypoint that it is a replica of, for those that the supervisor runs. It is ready when that says so. */
  readonly waypoint?: string | undefined;
  /** Absent: as soon as its command runs. */
  readonly ready?: boolean | undefined;
}

/** A process of the mesh that `tulle up` has started. */
export interface RecordedProcess {
  /** `ztunnel/n1`. */
  readonly name: string;
  readonly process: ProcessId;
  /** Which start of it this is. */
  readonly instance: number;
  /** See `fingerprint.ts`. */
  readonly fingerprint: string;
  /** Whether it is the one that does the work, and not one that gets ready or drains. */
  readonly serves: boolean;
}

/**
 * What has been made on this host, in fabric.json: for the next `up`, which takes over what still lives, and for `down`. A
 * record of another boot of the machine counts for nothing.
 */
export interface Inventory {
  readonly bootId: string;
  readonly nodes: readonly FabricNode[];
  /** Namespaces of the fabric that are complete. */
  readonly namespaces: readonly string[];
  readonly processes: readonly RecordedProcess[];
  readonly pods: readonly PodRecord[];
}

const PROCESS = z.object({ pid: z.number(), startTime: z.number() });

/** What a pod has when it is asked for, and keeps. */
export const POD_FIELDS: z.ZodType<
  Pick<PodRecord, 'namespace' | 'name' | 'serviceAccount' | 'labels' | 'ports' | 'user' | 'capabilities'>
> = z.object({
  namespace: z.string(),
  name: z.string(),
  serviceAccount: z.string(),
  labels: z.record(z.string(), z.string()),
  ports: z.array(z.object({ name: z.string(), port: z.number() })),
  user: z.object({
    name: z.string(),
    uid: z.number(),
    gid: z.number(),
    home: z.string(),
    shell: z.string(),
  }),
  capabilities: z.array(z.string()),
});

const INVENTORY = z.object({
  bootId: z.string(),
  nodes: z.array(z.object({ name: z.string(), number: z.number(), external: z.boolean() })),
  namespaces: z.array(z.string()),
  processes: z.array(
    z.object({
      name: z.string(),
      process: PROCESS,
      // Absent in what an earlier version wrote: such processes are ended.
      instance: z.number().default(0),
      fingerprint: z.string().default(''),
      serves: z.boolean().default(false),
    }),
  ),
  pods: z.array(
    POD_FIELDS.and(
      z.object({
        uid: z.string(),
        node: z.string(),
        number: z.number(),
        createdAt: z.string(),
        runner: PROCESS,
        init: PROCESS.optional(),
        command: PROCESS.optional(),
        waypoint: z.string().optional(),
        ready: z.boolean().optional(),
      }),
    ),
  ),
});

/** An inventory in which nothing has been made. */
export function emptyInventory(): Inventory {
  return { bootId: bootId(), nodes: [], namespaces: [], processes: [], pods: [] };
}

/**
 * What an earlier run wrote; empty when there is nothing, or nothing of this boot.
 * @throws InventoryError when it cannot be read
 */
export function loadInventory(state: StateFolder): Inventory {
  const file = inventoryFile(state);
  if (!existsSync(file)) return emptyInventory();
  const { data, error } = INVENTORY.safeParse(readJson(file));
  if (data !== undefined) return data.bootId === bootId() ? data : emptyInventory();
  throw new InventoryError(
    `${file} is damaged (${z.prettifyError(error).replaceAll('\n', ' ')}), and what this mesh has running cannot be told without it; tulle down --state ${state.path} ends and removes all of it, by name; then tulle up starts anew, with the same certificates, tokens and configuration`,
  );
}

/** The same, for who goes by names where it cannot be read. */
export function loadInventoryIfWhole(state: StateFolder): Inventory {
  try {
    return loadInventory(state);
  } catch (error) {
    if (error instanceof InventoryError) return emptyInventory();
    throw error;
  }
}

/** The inventory is there and cannot be read. */
export class InventoryError extends CliError {}

export function saveInventory(state: StateFolder, inventory: Inventory): void {
  writeAtomic(inventoryFile(state), `${JSON.stringify(inventory, undefined, 1)}\n`);
}

export function inventoryFile(state: StateFolder): string {
  return join(state.path, 'fabric.json');
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
