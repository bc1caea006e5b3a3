import type { RouteCondition, RouteStatus } from './derive/routes/attached.ts';

/** Since when conditions have the status that they have: by object, parent and type. */
export type ConditionTimes = ReadonlyMap<string, { readonly status: string; readonly sinceMs: number }>;

/** A condition as it is shown. */
export interface TimedCondition extends RouteCondition {
  /** When its status changed last (RFC 3339, to the second), as the Gateway API has it: no other change counts. */
  readonly lastTransitionTime: string;
}

/** The times for new statuses: a condition that says what it said keeps its time. Not kept over restarts. */
export function noteConditions(
  statuses: readonly RouteStatus[],
  previous: ConditionTimes,
  nowMs: number,
): ConditionTimes {
  const times = new Map<string, { readonly status: string; readonly sinceMs: number }>();
  for (const { object, parents } of statuses)
    for (const { parentRef, conditions } of parents)
      for (const { type, status } of conditions) {
        const key = keyOf(object, parentRef, type);
        const before = previous.get(key);
        times.set(key, before?.status === status ? before : { status, sinceMs: nowMs });
      }
  return times;
}

/** The conditions of one parent, with their times. */
export function timeConditions(
  times: ConditionTimes,
  object: string,
  { parentRef, conditions }: RouteStatus['parents'][number],
): readonly TimedCondition[] {
  return conditions.map((condition) => {
    const { sinceMs } = times.get(keyOf(object, parentRef, condition.type)) ?? { sinceMs: 0 };
    return { ...condition, lastTransitionTime: new Date(sinceMs).toISOString().replace(/\.\d+Z$/, 'Z') };
  });
}

function keyOf(object: string, parentRef: unknown, type: string): string {
  return JSON.stringify([object, parentRef, type]);
}
