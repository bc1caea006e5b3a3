import type { StatusProblem } from '#control-plane/status.ts';
import { enrolmentState } from './enrolment.ts';
import type { ProcessReport, StatusSources } from './mesh-status.ts';
import type { NotRenewed } from './supervised-process.ts';
import { certificateOf } from './workload-status.ts';

/** What an outage of the control plane means for who waits for it, and for who will. */

/** Share of its life that a certificate has left when something keeps it from being renewed: that is tried from half of it on. */
const OVERDUE_SHARE = 1 / 3;

/** Why the control plane has not said of a workload whether it belongs into the mesh. */
export function whyUnseen(controlPlane: Omit<ProcessReport, 'name' | 'restarts'> | undefined): string {
  if (controlPlane === undefined) return 'the control plane has not seen it yet';
  const { state, ready } = controlPlane;
  const since = sinceText(controlPlane);
  if (state.kind === 'stopped') return `the control plane is stopped${since}: tulle start control-plane`;
  const end = state.kind === 'crashed' ? state.how : state.after;
  if (end !== undefined && !ready) return `the control plane ${end}${since}, and is started again`;
  return ready ? 'the control plane has not seen it yet' : 'the control plane is not ready yet';
}

/** ` since 2026-01-01T12:00:00Z`; nothing of a process that does its work. */
export function sinceText({ downSince }: Pick<ProcessReport, 'downSince'>): string {
  return downSince === undefined ? '' : ` since ${timeText(downSince)}`;
}

/** What is not what it is to be, or hangs, and stays as what is to take its place does not get ready. */
export function notRenewedText({ sinceMs, why }: NotRenewed, isReady: boolean): string {
  return `${isReady ? '' : 'is not ready, and '}cannot be replaced since ${timeText(sinceMs)}, which is tried again: ${why}`;
}

/** Since when each workload waits to be in the mesh, by uid: as before, and those that wait only now, from now on. */
export function noteWaiting(
  before: ReadonlyMap<string, number>,
  sources: Pick<StatusSources, 'pods' | 'enrolment' | 'nowMs'>,
): ReadonlyMap<string, number> {
  const waiting = sources.pods.filter(({ record }) => {
    if (record.waypoint !== undefined) return false;
    const files = sources.enrolment.get(record.node) ?? { wanted: undefined, done: undefined };
    const { kind } = enrolmentState(record.uid, files);
    return kind === 'pending' || kind === 'unknown';
  });
  return new Map(waiting.map(({ record: { uid } }) => [uid, before.get(uid) ?? sources.nowMs]));
}

/** Until when what has been issued holds: the first certificate of this machine to end. */
export function certificatesHold(sources: StatusSources): string {
  const [first] = heldCertificates(sources).toSorted((a, b) => a.notAfterMs - b.notAfterMs);
  return first === undefined ? '' : `, certificates until ${timeText(first.notAfterMs)} (${first.identity})`;
}

/** Certificates that should have been renewed by now. Said before anything fails, and when it does. */
export function certificateProblems(sources: StatusSources): readonly StatusProblem[] {
  const { controlPlane, nowMs } = sources;
  const lifeMs = (controlPlane?.svidTtlSeconds ?? 0) * 1000;
  const process = sources.processes.find(({ name }) => name === 'control-plane');
  const why =
    process === undefined || process.state.kind === 'running'
      ? 'the log of who holds it says why'
      : whyUnseen(process);
  return heldCertificates(sources)
    .filter(({ notAfterMs }) => notAfterMs - nowMs < lifeMs * OVERDUE_SHARE)
    .map(({ identity, holder, notAfterMs }) => ({
      object: identity,
      position: '',
      path: '',
      message: `its certificate (${holder}) ${endText(notAfterMs, nowMs)} and was not renewed: ${why}`,
      severity: 'error',
      effect: notAfterMs > nowMs ? 'then its connections are refused' : 'its connections are refused',
    }));
}

function endText(notAfterMs: number, nowMs: number): string {
  const seconds = Math.round((notAfterMs - nowMs) / 1000);
  return notAfterMs > nowMs
    ? `ends at ${timeText(notAfterMs)}, in ${seconds} s,`
    : `ended at ${timeText(notAfterMs)}`;
}

interface HeldCertificate {
  readonly identity: string;
  /** `ztunnel/n1`, `waypoint/shop/waypoint`. */
  readonly holder: string;
  readonly notAfterMs: number;
}

/** Each once, however many workloads of a node share it. */
function heldCertificates(sources: StatusSources): readonly HeldCertificate[] {
  const held = sources.pods.flatMap(({ record }): readonly HeldCertificate[] => {
    const files = sources.enrolment.get(record.node) ?? { wanted: undefined, done: undefined };
    const isHeld = record.waypoint !== undefined || enrolmentState(record.uid, files).kind === 'enrolled';
    const certificate = isHeld ? certificateOf(sources, record) : null;
    if (certificate === null) return [];
    const holder =
      record.waypoint === undefined
        ? `ztunnel/${record.node}`
        : `waypoint/${record.namespace}/${record.waypoint}`;
    const { identity, notAfter } = certificate;
    return [{ identity, holder, notAfterMs: Date.parse(notAfter) }];
  });
  return [...new Map(held.map((one) => [`${one.holder} ${one.identity}`, one])).values()];
}

/** To the second, as the rest of the status. */
function timeText(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}
