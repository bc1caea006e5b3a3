import { Command, CommanderError } from 'commander';
import { CliError, describeError } from './cli-error.ts';
import { registerControlPlane } from './commands/control-plane.ts';
import { registerDemo } from './commands/demo.ts';
import { registerDown } from './commands/down.ts';
import { registerExec } from './commands/exec.ts';
import { registerForward } from './commands/forward.ts';
import { registerNodeAgent } from './commands/node-agent.ts';
import { registerProcess } from './commands/process.ts';
import { registerRun } from './commands/run.ts';
import { registerStatus } from './commands/status.ts';
import { registerToken } from './commands/token.ts';
import { registerUp } from './commands/up.ts';
import { registerZtunnel } from './commands/ztunnel.ts';

const program = new Command('tulle')
  .description('A sidecarless service mesh: mutual TLS, identity, authorization and traffic control')
  .version('0.1.0')
  .showHelpAfterError('(tulle COMMAND --help says more)')
  .enablePositionalOptions()
  .exitOverride();

// A subcommand takes over from its parent how errors end the program when it is made, so this comes after the above.
for (const register of [
  registerUp,
  registerDown,
  registerRun,
  registerExec,
  registerForward,
  registerStatus,
  registerProcess,
  registerToken,
  registerDemo,
  registerControlPlane,
  registerZtunnel,
  registerNodeAgent,
]) {
  register(program);
}

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

/** Exit code of what ended a command; prints it unless commander has. */
function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const expected = error instanceof CliError || (error instanceof Error && 'exitCode' in error);
  console.error(`tulle: ${expected ? describeError(error) : stackOf(error)}`);
  const code = expected && 'exitCode' in error ? error.exitCode : undefined;
  return typeof code === 'number' ? code : 1;
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
