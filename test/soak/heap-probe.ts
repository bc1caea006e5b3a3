/**
 * Loaded into every process and thread of the mesh that is soaked (NODE_OPTIONS=--import): every few seconds it collects garbage, and
 * writes what is left, as {@link Probe}, to TULLE_SOAK_PROBES/PID-THREAD.json. So memory is what is held, and not when a collector ran.
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';

/** What one thread holds: bytes, and handles of the event loop. */
export interface Probe {
  readonly heapUsed: number;
  /** Of buffers, outside of the heap. */
  readonly external: number;
  readonly handles: number;
}

const PROBE_MS = 10_000;
const folder = process.env['TULLE_SOAK_PROBES'];

if (folder !== undefined) {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${process.pid}-${threadId}.json`);
  setInterval(() => {
    globalThis.gc?.();
    const { heapUsed, external } = process.memoryUsage();
    const probe: Probe = { heapUsed, external, handles: process.getActiveResourcesInfo().length };
    writeFileSync(`${file}.new`, JSON.stringify(probe));
    renameSync(`${file}.new`, file);
  }, PROBE_MS).unref();
}
