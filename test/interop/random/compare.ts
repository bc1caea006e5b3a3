import type { Bed } from '../bed.ts';
import type { Case, Observation } from '../case.ts';
import { aspectsOf, differencesOf } from '../compare.ts';
import { isMirror } from '../stage/journal.ts';
import { purposesOf } from './on-purpose.ts';

/** What came of a case. */
export interface Verdict {
  /** What differs without a reason, a line each. */
  readonly lines: readonly string[];
  /** Why something differs on purpose. */
  readonly because: readonly string[];
}

/** Where backends take turns each side has its own: asked so often until both have come to the same. */
const TURNS = 12;

/** A difference is one when it is there each time: a connection that is being closed just then makes some that are none. */
const TIMES = 3;

/** Sends the request to both, and compares. */
export async function compareRandom(bed: Bed, each: Case): Promise<Verdict> {
  let verdict = await compareOnce(bed, each);
  for (let time = 1; time < TIMES && verdict.lines.length > 0; time += 1)
    verdict = await compareOnce(bed, each);
  return verdict;
}

async function compareOnce(bed: Bed, each: Case): Promise<Verdict> {
  try {
    const [envoy, first] = await Promise.all([bed.ask('envoy', each), bed.ask('ours', each)]);
    let ours = first;
    for (let turn = 0; turn < TURNS && whoOf(ours) !== whoOf(envoy); turn += 1)
      ours = await bed.ask('ours', each);
    return judge(each, envoy, ours);
  } catch (error) {
    return { lines: [`${shown(each)}: ${String(error)}`], because: [] };
  }
}

function judge(each: Case, envoy: Observation, ours: Observation): Verdict {
  const other = aspectsOf(ours);
  const different = [...aspectsOf(envoy)].filter(([aspect, text]) => text !== other.get(aspect));
  if (different.length === 0) return { lines: [], because: [] };
  const aspects = different.map(([aspect]) => aspect);
  const purposes = purposesOf(each, envoy, ours).filter((purpose) =>
    purpose.aspects.some((aspect) => aspects.includes(aspect)),
  );
  const meant = aspects.filter((aspect) => purposes.some((purpose) => purpose.aspects.includes(aspect)));
  const rest = differencesOf(
    { ...each, name: shown(each), chance: [...(each.chance ?? []), ...meant] },
    envoy,
    ours,
  );
  return { lines: rest, because: purposes.map(({ because }) => because) };
}

/** Who answered, and how: with another backend everything is another. */
function whoOf({ headers, status, seen, body }: Observation): string {
  const upstream = headers.find(([name]) => name === 'x-upstream')?.[1];
  if (upstream !== undefined) return `${upstream} ${status}`;
  const last = seen.findLast(({ app }) => !isMirror(app))?.app ?? 'nobody';
  return `${last} ${status} ${body}`;
}

function shown({ to, send, script }: Case): string {
  return JSON.stringify({ to, ...send, ...(script !== undefined && { script }) });
}
