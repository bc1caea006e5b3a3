import type { Command } from 'commander';

/**
 * Runs a process of the mesh until it is asked to end: SIGTERM or SIGINT lets it finish what is in flight, a second one ends
 * it at once.
 */
export async function runProcess(run: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(1);
    controller.abort();
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  await run(controller.signal);
}

/**
 * Adds the command of a process that reads its flags itself, as they come. `start` runs it until the signal aborts; what it needs is
 * best loaded there.
 */
export function addProcess(
  program: Command,
  name: string,
  description: string,
  start: (argv: readonly string[], signal: AbortSignal) => Promise<void>,
): void {
  program
    .command(name)
    .description(description)
    .helpOption(false)
    .allowUnknownOption()
    .allowExcessArguments()
    .argument('[flags...]', 'see docs/operations.md')
    .passThroughOptions()
    .action((argv: readonly string[]) => runProcess((signal) => start(argv, signal)));
}
