import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import type { ObjectKey, Problem } from './objects.ts';
import { readObject } from './read-object.ts';
import { isWithin, type KeptObject, type KeptObjects } from './settle.ts';

const VERSION = 1;

const stored = z.object({
  version: z.literal(VERSION),
  objects: z.array(
    z.object({
      path: z.string(),
      position: z.object({ file: z.string(), line: z.number(), column: z.number() }),
      written: z.unknown(),
    }),
  ),
});

/** Keeps the last good versions of objects in a file. */
export interface LastGood {
  /**
   * Those that are stored, of files at or under these paths, and what is wrong with the file: nothing if there is
   * none.
   */
  load(
    paths: readonly string[],
  ): Promise<{ readonly kept: KeptObjects; readonly problems: readonly Problem[] }>;
  /** Stores these and no others. Resolves to what is wrong with the file when it cannot. */
  store(kept: KeptObjects): Promise<readonly Problem[]>;
}

/** @param file where they are kept; its folder is made when needed */
export function openLastGood(file: string): LastGood {
  let current: string | undefined;
  return {
    async load(paths): ReturnType<LastGood['load']> {
      try {
        current = await readFile(file, 'utf8');
        const { objects } = stored.parse(JSON.parse(current));
        const own = objects.filter(({ path }) => paths.some((root) => isWithin(path, root)));
        return { kept: new Map(own.flatMap(restored)), problems: [] };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { kept: new Map(), problems: [] };
        const effect = 'the last good versions are not known';
        return { kept: new Map(), problems: [storeProblem(file, 'cannot be read', error, effect)] };
      }
    },
    async store(kept): Promise<readonly Problem[]> {
      const objects = [...kept.values()].map(({ path, entry }) => {
        return { path, position: entry.object.position, written: entry.written };
      });
      const text = JSON.stringify({ version: VERSION, objects });
      if (text === current) return [];
      try {
        await writeWhole(file, text);
        current = text;
        return [];
      } catch (error) {
        const effect = 'the last good versions will not outlive a restart';
        return [storeProblem(file, 'cannot be written', error, effect)];
      }
    },
  };
}

function restored({
  path,
  position,
  written,
}: z.output<typeof stored>['objects'][number]): [ObjectKey, KeptObject][] {
  const locate = (): typeof position => position;
  const entry = readObject({ value: written, empties: [], isAmbiguous: false, locate, findings: [] });
  return entry.kind === 'good' ? [[entry.key, { path, entry }]] : [];
}

async function writeWhole(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const next = `${file}.next`;
  const handle = await open(next, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(next, file);
}

function storeProblem(file: string, what: string, error: unknown, effect: string): Problem {
  const position = { file, line: 0, column: 0 };
  const message = `${what}: ${(error as Error).message}`;
  return { object: file, position, path: '', message, severity: 'warning', effect };
}
