import { readFileSync } from 'node:fs';

/** CPU time and memory of a set of processes. */
export interface Usage {
  readonly cpuSeconds: number;
  /** Resident memory of each process, MB. */
  readonly residentMb: readonly number[];
}

const TICKS_PER_SECOND = 100;

/** Reads /proc; a process that has ended counts as nothing. */
export function usageOf(pids: readonly number[]): Usage {
  const found = pids.flatMap((pid) => {
    try {
      return [
        {
          stat: readFileSync(`/proc/${pid}/stat`, 'utf8'),
          status: readFileSync(`/proc/${pid}/status`, 'utf8'),
        },
      ];
    } catch {
      return [];
    }
  });
  return {
    cpuSeconds: found.reduce((sum, { stat }) => sum + cpuOf(stat), 0),
    residentMb: found.map(({ status }) => Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024)),
  };
}

/** utime and stime are the 12th and 13th field after the command's closing parenthesis (proc(5)). */
function cpuOf(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
