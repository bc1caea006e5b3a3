import type { CapturedPod, CaptureScope } from '#ztunnel/capture/capture.ts';
import type { authorizeWithoutIdentity } from '#ztunnel/policy/authorize.ts';

/** What is to become of a pod. */
export interface Order {
  /** `gone`: the pod does not exist any more. `unknown`: nobody has said; everything stays as it is. */
  readonly wanted: 'in' | 'out' | 'gone' | 'unknown';
  /** UDP other than DNS, while it is in the mesh. */
  readonly udp: 'allow' | 'refuse';
  /** See {@link CapturedPod}. */
  readonly mode: CapturedPod['mode'];
}

/** How a pod is held to the mesh while it is in it. */
export interface Hold {
  readonly udp: CapturedPod['udp'];
  readonly mode: CapturedPod['mode'];
  readonly refusesPlaintext: boolean;
}

/** What is in place for a pod. */
export interface InPlace {
  /** A ztunnel serves it, as far as is known. */
  readonly served: boolean;
  /** What is captured; undefined: nothing was installed. */
  readonly scope: CaptureScope | undefined;
  /** How capture holds it; undefined: not known, as after a restart of the agent. */
  readonly hold: Hold | undefined;
  /** The control plane is told that the pod takes tunnels. */
  readonly announced: boolean;
  /** When that last changed. Milliseconds, of a clock that never goes back, like all times here. */
  readonly announcedAtMs: number;
  /** Since when no captured connection has been seen; undefined: one was, or nobody has looked. */
  readonly idleSinceMs: number | undefined;
}

/** What else counts. */
export interface Facts {
  readonly nowMs: number;
  /** Ztunnels that are connected. */
  readonly ztunnels: number;
  /** Whether the pod's processes run; before that there is nobody to disturb. */
  readonly hasStarted: boolean;
  /** How the workload API says that the pod is reached, and since when; undefined: it has not said. */
  readonly told: { readonly tunnel: 'HBONE' | 'NONE'; readonly sinceMs: number } | undefined;
  /** How long other pods of the mesh may still be on their way in or out; 0: none is. */
  readonly movingMs: number;
  /** What policies say to all callers without an identity; undefined: policies have not come. */
  readonly plaintext: PlaintextVerdict | undefined;
}

export type PlaintextVerdict = ReturnType<typeof authorizeWithoutIdentity>;

/** The next thing to do. Each step can be done again without harm. */
export type Step =
  /** Nothing, until something changes. */
  | { readonly kind: 'rest' }
  /** Nothing, until something changes or the time has passed. */
  | { readonly kind: 'wait'; readonly ms: number }
  /** Have a ztunnel serve it. */
  | { readonly kind: 'serve' }
  | { readonly kind: 'capture'; readonly scope: CaptureScope }
  /** Tell the control plane that it takes tunnels, or that it takes none any more. */
  | { readonly kind: 'announce' }
  | { readonly kind: 'withdraw' }
  /** Count captured connections. */
  | { readonly kind: 'count' }
  /** Have no ztunnel serve it. */
  | { readonly kind: 'drop' }
  /** Take away all that captures. */
  | { readonly kind: 'remove' }
  /** It is as if the pod had never been here. */
  | { readonly kind: 'forget' };

/** Nothing is in place. */
export const NOTHING_IN_PLACE: InPlace = {
  served: false,
  scope: undefined,
  hold: undefined,
  announced: false,
  announcedAtMs: Number.NEGATIVE_INFINITY,
  idleSinceMs: undefined,
};

/** What the workload API tells us it tells every ztunnel in the same moment; those get this long to act on it. */
const SETTLE_MS = 150;
/** Longest wait for that. */
const TELL_MS = 700;
/** How long nothing captured must be seen before the ztunnel lets go of the pod: some peer may be slow. */
const IDLE_MS = 1_000;
const ASK_AGAIN_MS = 1_000;

/**
 * Brings a pod into the mesh or out of it, so that no connection fails on the way, under any policy.
 *
 *     in:   serve > capture outbound > announce > (peers are told) > capture both
 *     out:  capture outbound > withdraw > (peers are told) > capture nothing > (idle) > drop > remove
 *
 * Tunnels are taken from the first step to the last. Plain connections are captured, and so held to policies that may want
 * a tunnel, only while every peer knows that it may open one, and can, itself being captured; and what this pod opens is
 * captured for as long as a pod that is on its way with it still holds others to such policies.
 */
export function decide(order: Order, inPlace: InPlace, facts: Facts): Step {
  switch (order.wanted) {
    case 'unknown':
      return { kind: 'rest' };
    case 'in':
      return enter(order, inPlace, facts);
    case 'out':
      return leave(inPlace, facts);
    case 'gone':
      return forget(inPlace);
  }
}

function enter(order: Order, inPlace: InPlace, facts: Facts): Step {
  const { served, scope, announced } = inPlace;
  if (!served) return facts.ztunnels > 0 ? { kind: 'serve' } : { kind: 'rest' };
  if (scope === undefined || scope === 'nothing') {
    return { kind: 'capture', scope: facts.hasStarted ? 'outbound' : 'both' };
  }
  if (!announced) return { kind: 'announce' };
  if (scope === 'outbound') {
    const ms = untilSettled(inPlace, facts);
    return ms > 0 ? { kind: 'wait', ms } : { kind: 'capture', scope: 'both' };
  }
  if (inPlace.hold === undefined && isHeldAsBefore(order, facts)) return { kind: 'rest' };
  const isHeld = isSameHold(inPlace.hold, holdOf(order, facts));
  return isHeld ? { kind: 'rest' } : { kind: 'capture', scope: 'both' };
}

/**
 * How a pod is to be held. Where some policy may deny a caller without an identity, or nobody knows yet, the pod is closed
 * when its ztunnel is gone, as a strict one: nobody would ask the policy.
 */
export function holdOf({ udp, mode }: Order, { plaintext }: Pick<Facts, 'plaintext'>): Hold {
  return { udp, mode: plaintext === 'allow' ? mode : 'strict', refusesPlaintext: plaintext === 'deny' };
}

/**
 * Whether a pod that another agent has enrolled stays as that one held it, which knew the policies: to close it until they
 * have come would refuse what the pod may do, at each start of an agent, and for long where there is no control plane.
 */
function isHeldAsBefore({ mode }: Order, { plaintext }: Facts): boolean {
  return mode === 'permissive' && plaintext === undefined;
}

function isSameHold(a: Hold | undefined, b: Hold): boolean {
  return a?.udp === b.udp && a.mode === b.mode && a.refusesPlaintext === b.refusesPlaintext;
}

function leave(inPlace: InPlace, facts: Facts): Step {
  const { served, scope, announced } = inPlace;
  if (scope === 'both') return { kind: 'capture', scope: 'outbound' };
  if (announced) return { kind: 'withdraw' };
  if (scope === 'outbound') {
    const ms = untilSettled(inPlace, facts);
    return ms > 0 ? { kind: 'wait', ms } : { kind: 'capture', scope: 'nothing' };
  }
  if (scope === 'nothing' && served) {
    const idleMs = facts.nowMs - (inPlace.idleSinceMs ?? facts.nowMs);
    if (idleMs < IDLE_MS) return { kind: 'count' };
    // Nobody may be left that still believes in tunnels, however long that takes.
    if (facts.told?.tunnel !== 'NONE') return { kind: 'wait', ms: ASK_AGAIN_MS };
  }
  if (served) return { kind: 'drop' };
  return scope === undefined ? { kind: 'rest' } : { kind: 'remove' };
}

function forget(inPlace: InPlace): Step {
  if (inPlace.announced) return { kind: 'withdraw' };
  if (inPlace.served) return { kind: 'drop' };
  return inPlace.scope === undefined ? { kind: 'forget' } : { kind: 'remove' };
}

/**
 * How long it is to wait at most until peers know what was announced or withdrawn, and those on their way have got there
 * as well; 0: they do and have.
 */
function untilSettled({ announced, announcedAtMs }: InPlace, { told, movingMs, nowMs }: Facts): number {
  const left = announcedAtMs + TELL_MS - nowMs;
  if (told === undefined || (told.tunnel === 'HBONE') !== announced) return Math.max(0, left, movingMs);
  return Math.max(0, Math.min(left, told.sinceMs + SETTLE_MS - nowMs), movingMs);
}

/** How a pod stands, as the node agent reports it. */
export type ReportedState = 'enrolled' | 'pending' | 'releasing' | 'out';

/** How a pod stands. */
export function reportedState(order: Order, inPlace: InPlace): ReportedState {
  if (inPlace.announced && inPlace.scope === 'both') return 'enrolled';
  if (order.wanted === 'in') return 'pending';
  return inPlace.served || inPlace.scope !== undefined || inPlace.announced ? 'releasing' : 'out';
}
