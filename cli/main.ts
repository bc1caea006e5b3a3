import { Command, CommanderError } from 'commander';
import { CliError, describeError } from './cli-error.ts';

/** Where each command is. Only the one that was asked for is loaded: most of the time of a short command is loading. */
const COMMANDS: ReadonlyMap<string, () => Promise<(program: Command) => void>> = new Map([
  ['up', async () => (await import('./commands/up.ts')).registerUp],
  ['down', async () => (await import('./commands/down.ts')).registerDown],
  ['run', async () => (await import('./commands/run.ts')).registerRun],
  ['exec', async () => (await import('./commands/exec.ts')).registerExec],
  ['forward', async () => (await import('./commands/forward.ts')).registerForward],
  ['status', async () => (await import('./commands/status.ts')).registerStatus],
  ['explain', async () => (await import('./commands/explain.ts')).registerExplain],
  ['check', async () => (await import('./commands/check.ts')).registerCheck],
  ['token', async () => (await import('./commands/token.ts')).registerToken],
  ['stop', async () => (await import('./commands/process.ts')).registerStop],
  ['start', async () => (await import('./commands/process.ts')).registerStart],
  ['restart', async () => (await import('./commands/process.ts')).registerRestart],
  ['demo', async () => (await import('./commands/demo.ts')).registerDemo],
  ['control-plane', async () => (await import('./commands/control-plane.ts')).registerControlPlane],
  ['ztunnel', async () => (await import('./commands/ztunnel.ts')).registerZtunnel],
  ['node-agent', async () => (await import('./commands/node-agent.ts')).registerNodeAgent],
]);

try {
  const program = await makeProgram(process.argv[2] ?? '');
  await program.parseAsync();
} catch (error) {
  process.exitCode = reportError(error);
}

async function makeProgram(wanted: string): Promise<Command> {
  const program = new Command('tulle')
    .description('A sidecarless service mesh: mutual TLS, identity, authorization and traffic control')
    .version('0.1.0')
    .showHelpAfterError('(tulle COMMAND --help says more)')
    .enablePositionalOptions()
    .exitOverride();
  const chosen = COMMANDS.get(wanted);
  const loaders = chosen === undefined ? [...COMMANDS.values()] : [chosen];
  for (const load of loaders) (await load())(program);
  return program;
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
