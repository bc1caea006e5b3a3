import type { Command } from 'commander';
import { addProcess } from './process-main.ts';

const DESCRIPTION = 'the control plane: reads objects, issues certificates, serves the configuration';

export function registerControlPlane(program: Command): void {
  addProcess(program, 'control-plane', DESCRIPTION, async (argv, signal) => {
    const [{ parseControlPlaneConfig }, { runControlPlane }] = await Promise.all([
      import('#control-plane/config.ts'),
      import('#control-plane/main.ts'),
    ]);
    await runControlPlane(parseControlPlaneConfig(argv, process.env), signal);
  });
}
