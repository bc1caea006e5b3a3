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
