import { Command } from 'commander';

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
  ['ca', async () => (await import('./commands/ca.ts')).registerCa],
  ['token', async () => (await import('./commands/token.ts')).registerToken],
  ['stop', async () => (await import('./commands/process.ts')).registerStop],
  ['start', async () => (await import('./commands/process.ts')).registerStart],
  ['restart', async () => (await import('./commands/process.ts')).registerRestart],
  ['demo', async () => (await import('./commands/demo.ts')).registerDemo],
  ['control-plane', async () => (await import('./commands/control-plane.ts')).registerControlPlane],
  ['ztunnel', async () => (await import('./commands/ztunnel.ts')).registerZtunnel],
  ['waypoint', async () => (await import('./commands/waypoint.ts')).registerWaypoint],
  ['node-agent', async () => (await import('./commands/node-agent.ts')).registerNodeAgent],
]);

/** The command line with the command of that name, or with every command when there is none of that name, for help. */
export async function makeProgram(wanted = ''): Promise<Command> {
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
