/** Removes something before this process ends by Ctrl-C or SIGTERM; exit code 130. */
export function endOnSignal(something: AsyncDisposable): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      const end = (): never => process.exit(130);
      something[Symbol.asyncDispose]().then(end, end);
    });
}
