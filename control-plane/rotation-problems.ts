import type { ReportedClient, ReportedRotation } from './authority-report.ts';
import type { StatusProblem } from './status.ts';

/** A client of ours answers within a second or two. */
const PATIENCE_MS = 10_000;
const MOST_IDENTITIES = 3;

/** Who keeps a rotation from going on, since when, and what to do. */
export function rotationProblems(rotation: ReportedRotation | null, nowMs: number): readonly StatusProblem[] {
  if (rotation?.phase !== 'distributing' || nowMs - Date.parse(rotation.started) < PATIENCE_MS) return [];
  const since = rotation.started.replace(/\.\d+Z$/, 'Z');
  return rotation.clients
    .filter(({ done }) => !done)
    .map((client) => ({
      object: 'authority',
      position: '',
      path: '',
      message: `its rotation waits for ${client.name} since ${since}: ${reasonOf(client)}`,
      severity: 'warning',
      effect: 'the old authority signs until then',
    }));
}

function reasonOf({ name, state, waitsFor }: ReportedClient): string {
  const process = name.replace(/^node\//, 'ztunnel/');
  if (state !== 'holds-older')
    return `it was sent the new root, and has not answered: look at its log, tulle restart ${process}`;
  const more = waitsFor.length - MOST_IDENTITIES;
  const identities = waitsFor.slice(0, MOST_IDENTITIES).join(', ') + (more > 0 ? ` and ${more} more` : '');
  const token = name.startsWith('node/')
    ? `, or, where it is gone for good, remove tokens/${name.slice(5)}`
    : '';
  return `it does not ask for the new root, and gets it with the next certificate of ${identities}: wait, tulle restart ${process}${token}`;
}
