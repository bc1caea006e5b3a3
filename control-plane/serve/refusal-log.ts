import type { Logger } from 'pino';

const MOST_A_SECOND = 10;

/** Writes why callers are refused, so few that callers cannot fill a disk with it. */
export interface RefusalLog {
  readonly write: (fields: Readonly<Record<string, unknown>>) => void;
}

/** At most ten lines a second of that message; the next one after that says how many were left out. */
export function createRefusalLog(
  logger: Logger,
  message = 'client not authenticated',
  now: () => number = Date.now,
): RefusalLog {
  let second = 0;
  let written = 0;
  let omitted = 0;
  return {
    write: (fields) => {
      const current = Math.floor(now() / 1000);
      if (current !== second) {
        second = current;
        written = 0;
      }
      if (written >= MOST_A_SECOND) {
        omitted += 1;
        return;
      }
      written += 1;
      logger.warn({ ...fields, ...(omitted > 0 && { omitted }) }, message);
      omitted = 0;
    },
  };
}
