import type { Command } from 'commander';
import { addProcess } from './process-main.ts';

const DESCRIPTION = "a node's proxy: carries its workloads' connections through HBONE";

export function registerZtunnel(program: Command): void {
  addProcess(program, 'ztunnel', DESCRIPTION, async (argv, signal) => {
    const [{ parseZtunnelConfig }, { runZtunnel }] = await Promise.all([
      import('#ztunnel/config.ts'),
      import('#ztunnel/main.ts'),
    ]);
    await runZtunnel(parseZtunnelConfig(argv, process.env), signal);
  });
}
