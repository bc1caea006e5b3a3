import { CommanderError } from 'commander';
import { CliError, describeError } from './cli-error.ts';
import { makeProgram } from './commands.ts';
import { takeCompileCache } from './compile-cache.ts';

takeCompileCache();
try {
  const program = await makeProgram(process.argv[2] ?? '');
  await program.parseAsync();
} catch (error) {
  process.exitCode = reportError(error);
}

/** Prints what ended a command, unless commander has, and returns the exit code for it. */
function reportError(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const expected = error instanceof CliError || (error instanceof Error && 'exitCode' in error);
  console.error(`tulle: ${expected ? describeError(error) : stackOf(error)}`);
  const code = expected && 'exitCode' in error ? error.exitCode : undefined;
  return typeof code === 'number' ? code : 1;
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
