import { join } from 'node:path';

const VARIABLE = 'NODE_COMPILE_CACHE';

/** Where the launcher has Node.js keep what it compiled. */
const FOLDER = join(import.meta.dirname, '..', 'node_modules', '.cache', 'tulle');

/** Takes the launcher's setting out of the environment, which workloads inherit. One that a user made stays. */
export function takeCompileCache(): void {
  if (process.env[VARIABLE] === FOLDER) delete process.env[VARIABLE];
}

/** The environment of another process of this program: it uses the same cache, and takes it out in turn. */
export function withCompileCache(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { [VARIABLE]: FOLDER, ...env };
}
