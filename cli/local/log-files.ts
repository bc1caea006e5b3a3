import {
  closeSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describeError } from '../cli-error.ts';

/** A log that is longer than this becomes the older one, in the place of the one that was. */
const LARGEST_BYTES: number = 64 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;
const LOG = /\.(log|jsonl)$/;

/**
 * Keeps the logs in a folder and below from growing without bound: one that has become too long is copied to `NAME.1` and
 * emptied. It is not moved: those who write to it have it open, for appending, also when the supervisor is another one by then.
 * Returns what went wrong, if anything did; where there is no room for a copy, the log is emptied without.
 */
export function boundLogs(folder: string, largestBytes: number = LARGEST_BYTES): string | undefined {
  try {
    const problems = readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => LOG.test(name))
      .map((name) => join(folder, name))
      .filter((file) => (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > largestBytes)
      .flatMap((file) => setAside(file) ?? []);
    return problems.length === 0 ? undefined : problems.join('; ');
  } catch (error) {
    return describeError(error);
  }
}

function setAside(file: string): string | undefined {
  const next = `${file}.1.new`;
  let problem: string | undefined;
  try {
    copyGrowing(file, next);
    renameSync(next, `${file}.1`);
  } catch (error) {
    problem = `${file} was emptied, and not kept: ${describeError(error)}`;
    for (const old of [next, `${file}.1`]) rmSync(old, { recursive: true, force: true });
  }
  truncateSync(file);
  return problem;
}

/** Until its very end, as it grows: what is written between the last look and the emptying is lost, microseconds. */
function copyGrowing(from: string, to: string): void {
  const source = openSync(from, 'r');
  try {
    const target = openSync(to, 'w', 0o600);
    try {
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
      for (let read = readSync(source, chunk); read > 0; read = readSync(source, chunk)) {
        for (let at = 0; at < read; ) at += writeSync(target, chunk, at, read - at);
      }
    } finally {
      closeSync(target);
    }
  } finally {
    closeSync(source);
  }
}
