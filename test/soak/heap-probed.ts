import { join } from 'node:path';

/** What starts `tulle up`, so that every process of the mesh is probed (heap-probe.ts); `folder` gets the probes. */
export function heapProbed(folder: string): readonly string[] {
  const probe = join(import.meta.dirname, 'heap-probe.ts');
  return ['env', `TULLE_SOAK_PROBES=${folder}`, `NODE_OPTIONS=--expose-gc --import=${probe}`];
}
