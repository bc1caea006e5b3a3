import { closeSync, openSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import koffi from 'koffi';
import { CliError } from '../cli-error.ts';

const CLONE_NEWPID = 0x20000000;

/**
 * From now on this process starts its children in a new PID namespace; the first of them is its first process, and when
 * that one ends, all end. The process itself stays where it is. It can start no threads afterwards: those of the thread
 * pool are started here.
 */
export async function startChildrenInNewPidNamespace(): Promise<void> {
  await startThreadPool();
  const unshare = koffi.load('libc.so.6').func('int unshare(int flags)') as (flags: number) => number;
  check('unshare', unshare(CLONE_NEWPID));
}

/** From now on this process starts its children in the PID namespace of another process; otherwise the same. */
export async function startChildrenInPidNamespaceOf(pid: number): Promise<void> {
  await startThreadPool();
  const setns = koffi.load('libc.so.6').func('int setns(int fd, int flags)') as (
    fd: number,
    flags: number,
  ) => number;
  const fd = openSync(`/proc/${pid}/ns/pid`, 'r');
  try {
    check('setns', setns(fd, CLONE_NEWPID));
  } finally {
    closeSync(fd);
  }
}

/** The first file operation that does not block starts all threads of libuv's pool. */
async function startThreadPool(): Promise<void> {
  await stat('/');
}

function check(call: string, result: number): void {
  if (result < 0)
    throw new CliError(`${call} of a PID namespace failed with error ${koffi.errno()}: this needs root`);
}
