import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { z } from 'zod';
import { CliError } from '../cli-error.ts';
import { findProcess, getProcess, isAlive, type ProcessId } from './process-id.ts';
import { isStateFolder, readJson, type StateFolder, writeAtomic } from './state-folder.ts';

/** The right to change a mesh, held by one process at a time. */
export interface Lock {
  /** Lets the next one have it. */
  readonly release: () => void;
}

/** Nobody else may change the mesh now; `holder` does. */
export interface LockTaken {
  readonly holder: ProcessId | undefined;
}

const HOLDER = z.object({ pid: z.number(), startTime: z.number() });

/**
 * Takes the right to change a mesh, if it is free. What locks is an abstract socket, which the kernel frees with its
 * process, however that ended; up.lock says whose it is.
 */
export async function takeLock(state: StateFolder): Promise<Lock | LockTaken> {
  const server = net.createServer((socket) => socket.destroy());
  server.listen(`\0${state.mesh}.lock`);
  try {
    await once(server, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    return { holder: lockHolder(state) };
  }
  server.unref();
  const file = join(state.path, 'up.lock');
  // A folder that is gone is not made again: whoever takes a mesh down needs none.
  if (isStateFolder(state.path)) writeAtomic(file, `${JSON.stringify(getProcess(process.pid))}\n`);
  return {
    release: () => {
      rmSync(file, { force: true });
      server.close();
    },
  };
}

/**
 * Takes the lock for `tulle up`.
 * @throws CliError that names the process that has it.
 */
export async function lockForUp(state: StateFolder): Promise<Lock> {
  const lock = await takeLock(state);
  if ('release' in lock) return lock;
  const who = lock.holder === undefined ? 'another process' : `process ${lock.holder.pid}`;
  throw new CliError(
    `the state folder ${state.path} is in use by ${who}: stop that mesh first (tulle down), or give another folder with --state`,
  );
}

/** The process that holds the lock, if it lives: as up.lock says, or, where that is gone, as the kernel does. */
export function lockHolder(state: StateFolder): ProcessId | undefined {
  const { data } = HOLDER.safeParse(readJson(join(state.path, 'up.lock')));
  return data !== undefined && isAlive(data) ? data : socketHolder(state);
}

/** The process that has the lock's socket open. */
function socketHolder({ mesh }: StateFolder): ProcessId | undefined {
  const sockets = readFileSync('/proc/net/unix', 'utf8').split('\n');
  const inode = sockets
    .find((line) => line.endsWith(` @${mesh}.lock`))
    ?.trim()
    .split(/\s+/)[6];
  if (inode === undefined) return undefined;
  const pid = readdirSync('/proc').find((name) => /^\d+$/.test(name) && hasOpen(name, `socket:[${inode}]`));
  return pid === undefined ? undefined : findProcess(Number(pid));
}

function hasOpen(pid: string, target: string): boolean {
  try {
    const folder = `/proc/${pid}/fd`;
    return readdirSync(folder).some((fd) => readlinkSync(join(folder, fd)) === target);
  } catch {
    return false; // It has just ended, or is another user's.
  }
}
