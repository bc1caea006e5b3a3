import type { Logger } from 'pino';
import { endOf, type FaultClock, type FaultTimes, faultKey } from './derive/waypoint/fault-times.ts';
import { type MeshObject, type ObjectKey, objectKey, type TrafficPolicyObject } from './source/objects.ts';

/** A fault that is injected at this time. */
export interface FaultInForce {
  readonly key: string;
  /** `TrafficPolicy pay/chaos`. */
  readonly policy: ObjectKey;
  readonly name: string;
  /** What its policy aims at: `Service pay/ledger`, `HTTPRoute pay/ledger rule canary`. */
  readonly targets: readonly string[];
  /** Milliseconds since the epoch. */
  readonly endsAtMs: number;
}

/** The faults that have not ended, in the order of the objects; none where faults are off for the whole mesh. */
export function faultsInForce(
  objects: Iterable<MeshObject>,
  { nextExpiryMs }: FaultTimes,
  clock: FaultClock,
): readonly FaultInForce[] {
  if (nextExpiryMs === undefined) return [];
  return [...objects]
    .filter((object) => object.kind === 'TrafficPolicy')
    .flatMap((policy) =>
      policy.spec.faults.flatMap((fault) => {
        const key = faultKey(policy, fault);
        const { endsAtMs, isOver } = endOf(clock, key, fault);
        if (isOver) return [];
        return [{ key, policy: objectKey(policy), name: fault.name, targets: targetsOf(policy), endsAtMs }];
      }),
    );
}

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

function targetsOf({ metadata: { namespace }, spec }: TrafficPolicyObject): readonly string[] {
  return spec.targetRefs.map(({ kind, name, sectionName }) => {
    const target = `${kind} ${namespace}/${name}`;
    return sectionName === undefined ? target : `${target} rule ${sectionName}`;
  });
}

function logFields({ policy, name, targets, endsAtMs }: FaultInForce): Readonly<Record<string, unknown>> {
  return { policy, fault: name, targets, ends_at: new Date(endsAtMs).toISOString() };
}
