import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { podFileName, type WorkloadRef } from './names.ts';
import { ensureToken, LONGEST_SOCKET_PATH, readJson, type StateFolder } from './state-folder.ts';

/** A waypoint that the control plane wants to run: an entry of run/waypoints.json. */
export interface WantedWaypoint extends WorkloadRef {
  readonly serviceAccount: string;
  /** Processes, each in a pod of its own. */
  readonly replicas: number;
}

const WANTED: z.ZodType<readonly WantedWaypoint[]> = z.array(
  z.object({
    namespace: z.string(),
    name: z.string(),
    serviceAccount: z.string(),
    replicas: z.number().int().nonnegative(),
  }),
);

/** What the control plane writes. */
export function wantedWaypointsFile(state: StateFolder): string {
  return join(state.path, 'run', 'waypoints.json');
}

/** What the control plane wrote last; undefined when that is nothing, or not whole: then what runs goes on. */
export function readWantedWaypoints(state: StateFolder): readonly WantedWaypoint[] | undefined {
  return WANTED.safeParse(readJson(wantedWaypointsFile(state))).data;
}

/** `run/waypoints`: sockets of waypoints. */
export function waypointRunFolder(state: StateFolder): string {
  return join(state.path, 'run', 'waypoints');
}

/** `logs/waypoints/NS_NAME`: access logs of a waypoint's replicas. */
export function waypointLogFolder(state: StateFolder, waypoint: WorkloadRef): string {
  return join(state.path, 'logs', 'waypoints', podFileName(waypoint));
}

/** A waypoint's credential at the control plane. */
export function waypointTokenFile(state: StateFolder, waypoint: WorkloadRef): string {
  return join(state.path, 'tokens', 'waypoints', podFileName(waypoint));
}

/** Makes a waypoint's credential (0600), which it keeps for as long as it is wanted, and the folders of its replicas. */
export function writeWaypointFiles(state: StateFolder, waypoint: WorkloadRef): void {
  for (const folder of [
    join(state.path, 'tokens', 'waypoints'),
    waypointRunFolder(state),
    waypointLogFolder(state, waypoint),
  ]) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }
  ensureToken(waypointTokenFile(state, waypoint));
}

/** Takes away the credentials of all other waypoints. */
export function removeOtherTokens(state: StateFolder, kept: readonly WorkloadRef[]): void {
  const folder = join(state.path, 'tokens', 'waypoints');
  if (!existsSync(folder)) return;
  const names = new Set(kept.map(podFileName));
  for (const file of readdirSync(folder)) if (!names.has(file)) rmSync(join(folder, file), { force: true });
}

/** Socket of a replica: leads to that of the process which serves. */
export function waypointSocketLink(state: StateFolder, waypoint: WorkloadRef, replica: number): string {
  return join(waypointRunFolder(state), `${podFileName(waypoint)}-${replica}.sock`);
}

/**
 * Socket of the nth process of a replica. Of a waypoint whose name is too long for the kernel it has a short one of its own;
 * the link leads there, too.
 */
export function waypointSocket(
  state: StateFolder,
  waypoint: WorkloadRef,
  replica: number,
  instance: number,
): string {
  const path = (name: string): string =>
    join(waypointRunFolder(state), `${name}-${replica}.${instance}.sock`);
  const plain = podFileName(waypoint);
  if (Buffer.byteLength(path(plain)) <= LONGEST_SOCKET_PATH) return path(plain);
  return path(createHash('sha256').update(plain).digest('hex').slice(0, 12));
}

/** Removes the sockets of a replica that has ended. */
export function removeWaypointSockets(state: StateFolder, waypoint: WorkloadRef, replica: number): void {
  rmSync(waypointSocketLink(state, waypoint, replica), { force: true });
  const [stem = ''] = waypointSocket(state, waypoint, replica, 0).split(/\.0\.sock$/);
  const folder = waypointRunFolder(state);
  for (const file of existsSync(folder) ? readdirSync(folder) : []) {
    if (join(folder, file).startsWith(`${stem}.`)) rmSync(join(folder, file), { force: true });
  }
}
