import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
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

/**
 * What has been made on this host, in fabric.json: for the next `up`, which takes over what still lives, and for `down`. A
 * record of another boot of the machine counts for nothing.
 */
export interface Inventory {
  readonly bootId: string;
  readonly nodes: readonly FabricNode[];
  /** Namespaces of the fabric that are complete. */
  readonly namespaces: readonly string[];
  /** Processes of the mesh by name: `ztunnel/n1`. */
  readonly processes: readonly { readonly name: string; readonly process: ProcessId }[];
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
  processes: z.array(z.object({ name: z.string(), process: PROCESS })),
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

/** What an earlier run wrote; empty when there is nothing, or nothing of this boot. */
export function loadInventory(state: StateFolder): Inventory {
  const parsed = INVENTORY.safeParse(readJson(inventoryFile(state)));
  return parsed.success && parsed.data.bootId === bootId() ? parsed.data : emptyInventory();
}

export function saveInventory(state: StateFolder, inventory: Inventory): void {
  writeAtomic(inventoryFile(state), `${JSON.stringify(inventory, undefined, 1)}\n`);
}

export function inventoryFile(state: StateFolder): string {
  return join(state.path, 'fabric.json');
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
