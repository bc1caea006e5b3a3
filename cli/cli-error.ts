/** Exit codes of every command: 0 done, 1 refused or invalid, 2 usage, 3 not running. */
export type ExitCode = 1 | 2 | 3;

/** Ends a command with one message and an exit code; anything else that is thrown is a fault of ours, with a stack. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: ExitCode;

  constructor(message: string, options: { readonly exitCode?: ExitCode; readonly cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.exitCode = options.exitCode ?? 1;
  }
}

/** The error of a flag or argument that cannot be. */
export function usageError(message: string): CliError {
  return new CliError(message, { exitCode: 2 });
}

/** What to print of an error: its message and the messages of its causes. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : `: ${describeError(error.cause)}`;
  return `${error.message}${cause}`;
}
