import type { Logger } from 'pino';
import { type HttpRoute, type HttpUpgrade, listenHttp } from './http-listener.ts';

/** Opens a listener for operators; `what` it is for stands in messages. @throws what {@link operatorListener} was told to */
export type OpenListener = (
  where: Parameters<typeof listenHttp>[0],
  routes: readonly HttpRoute[],
  what: string,
  upgrades?: readonly HttpUpgrade[],
) => Promise<void>;

/**
 * Opens listeners that close with the stack; requests that fail are logged.
 * @param failed makes the error of one that cannot be opened
 */
export function operatorListener(
  opened: AsyncDisposableStack,
  logger: Logger,
  failed: (message: string, cause: unknown) => Error,
): OpenListener {
  return async (where, routes, what, upgrades) => {
    try {
      const onError = (error: Error): void =>
        logger.error({ listener: what, error: error.message }, 'request failed');
      opened.use(await listenHttp(where, routes, onError, upgrades));
    } catch (cause) {
      const place = 'path' in where ? where.path : `port ${where.port}`;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw failed(`cannot listen for ${what} on ${place}: ${reason}`, cause);
    }
  };
}
