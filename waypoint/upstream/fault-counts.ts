import type { Fault } from '../model.ts';

/** How many requests each fault has hold of now, for its `max_concurrent`. A fault keeps its count when it is written anew. */
export interface FaultCounts {
  readonly active: (fault: Fault) => number;
  /** Counts them. To be released once; more does no harm. */
  readonly begin: (faults: readonly Fault[]) => () => void;
}

export function createFaultCounts(): FaultCounts {
  const counts = new Map<string, number>();
  const add = (fault: Fault, change: number): void => {
    const key = keyOf(fault);
    const count = (counts.get(key) ?? 0) + change;
    if (count > 0) counts.set(key, count);
    else counts.delete(key);
  };
  return {
    active: (fault) => counts.get(keyOf(fault)) ?? 0,
    begin: (faults) => {
      for (const fault of faults) add(fault, 1);
      let isHeld = true;
      return () => {
        if (!isHeld) return;
        isHeld = false;
        for (const fault of faults) add(fault, -1);
      };
    },
  };
}

function keyOf({ policy, name }: Fault): string {
  return `${policy} ${name}`;
}
