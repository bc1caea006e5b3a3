import type { Logger } from 'pino';
import type { FaultInForce } from './derive/waypoint/fault-times.ts';

/** Says which faults are injected that were not before, and which are no more. */
export function logFaults(
  before: readonly FaultInForce[],
  after: readonly FaultInForce[],
  logger: Logger,
): void {
  const old = new Set(before.map(({ key }) => key));
  const now = new Set(after.map(({ key }) => key));
  for (const fault of after) if (!old.has(fault.key)) logger.warn(logFields(fault), 'fault in force');
  for (const fault of before) if (!now.has(fault.key)) logger.info(logFields(fault), 'fault ended');
}

function logFields({ policy, name, targets, endsAtMs }: FaultInForce): Readonly<Record<string, unknown>> {
  return { policy, fault: name, targets, ends_at: new Date(endsAtMs).toISOString() };
}
