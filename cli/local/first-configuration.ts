import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { formatPosition } from '#control-plane/source/objects.ts';
import { parseFiles } from '#control-plane/source/parse-files.ts';
import { CliError } from '../cli-error.ts';
import type { StateFolder } from './state-folder.ts';

/**
 * Refuses to bring a mesh up for the first time with a policy that cannot be read. Later, when there may be an older version
 * of it to go on with, a broken file must not keep the mesh from coming up.
 * @throws CliError with the place of everything that is wrong with such policies.
 */
export async function refuseBrokenPolicies(state: StateFolder, files: readonly string[]): Promise<void> {
  if (existsSync(join(state.path, 'config', 'objects.json'))) return;
  const { broken, problems } = await parseFiles(files);
  if (broken.length === 0) return;
  const names = new Set(broken.map(({ kind, namespace, name }) => `${kind} ${namespace}/${name}`));
  const lines = problems
    .filter(({ object, severity }) => severity === 'error' && names.has(object))
    .map(({ position, object, path, message }) =>
      [formatPosition(position), object, path, message].filter((part) => part !== '').join(': '),
    );
  throw new CliError(
    [
      'a policy is broken, and there is no good version of it to go on with:',
      ...lines,
      'correct it and try again',
    ].join('\n'),
  );
}
