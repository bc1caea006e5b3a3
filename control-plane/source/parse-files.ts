import { createFileReader } from './file-reader.ts';
import type { ObjectSet } from './objects.ts';
import { settle } from './settle.ts';

/** Reads files and folders once, with nothing to fall back on. It never throws: what cannot be read is a problem. */
export async function parseFiles(paths: readonly string[]): Promise<ObjectSet> {
  const { files } = await createFileReader(paths).read();
  return settle(files, new Map()).set;
}
