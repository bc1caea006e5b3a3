import { familyOf } from '#api/address.ts';
import {
  decodePod,
  encodePod,
  POD_BACKSTOP,
  POD_DNS,
  POD_INBOUND,
  POD_OUTBOUND,
  POD_REFUSE_PLAINTEXT,
  POD_REFUSE_UDP,
  POD_STRICT,
  podKey,
  podOfKey,
  probeKey,
  SIZES,
} from '#bpf/layout.ts';
import type { MeshPrograms } from '#bpf/programs.ts';
import type { CapturedPod, CaptureScope } from './capture.ts';
import { hasCode, namespaceCookie } from './native.ts';

/** The pod's device that leads out of it. */
export const DEVICE: 'eth0' = 'eth0';

/** What this process has done to a pod. */
export interface Applied {
  readonly pod: CapturedPod;
  readonly scope: CaptureScope;
  readonly cookie: bigint;
}

/** What this process knows of pods: the cookies of their namespaces, which outlast these, and which have their hooks. */
export class EnrolledPods {
  readonly #applied = new Map<string, Applied>();
  readonly #cookies = new Map<string, bigint>();
  readonly #attached = new Set<bigint>();

  cookieOf({ uid }: CapturedPod): bigint | undefined {
    return this.#cookies.get(uid);
  }

  scopeOf({ maps }: MeshPrograms, pod: CapturedPod, netnsFd: number): CaptureScope | undefined {
    const cookie = namespaceCookie(netnsFd);
    const value = Buffer.alloc(SIZES.pod);
    if (!maps.pods.lookup(podKey(cookie), value)) return undefined;
    this.#cookies.set(pod.uid, cookie);
    return scopeIn(decodePod(value).flags);
  }

  /**
   * The pod's hooks act by its entry alone: they come before it, and all that they do changes with it, in one step. A pod
   * that could not be enrolled has nothing of it. Not guarded: what was being dialled when the pod's connections were first
   * captured may be about to leave, and {@link guard} is to come a little later.
   */
  apply(
    mesh: MeshPrograms,
    pod: CapturedPod,
    netnsFd: number,
    scope: CaptureScope,
  ): { readonly isGuarded: boolean } {
    const cookie = namespaceCookie(netnsFd);
    const key = podKey(cookie);
    const before = Buffer.alloc(SIZES.pod);
    const isNew = !mesh.maps.pods.lookup(key, before);
    const entry = entryOf(pod, scope);
    const isGuarded = scope !== 'both' || (decodePod(before).flags & POD_OUTBOUND) !== 0;
    this.#cookies.set(pod.uid, cookie);
    try {
      if (!this.#attached.has(cookie)) mesh.attachPod({ cookie, netnsFd, device: DEVICE });
      this.#attached.add(cookie);
      addCounters(mesh, cookie, { anew: !isNew && scopeIn(decodePod(before).flags) === 'nothing' });
      const stale = writeProbes(mesh, cookie, pod);
      const flags = isGuarded ? entry.flags : entry.flags & ~POD_BACKSTOP;
      mesh.maps.pods.update(key, encodePod({ ...entry, flags }));
      for (const probe of stale) mesh.maps.probes.delete(probe);
      this.#applied.set(pod.uid, { pod, scope, cookie });
      return { isGuarded };
    } catch (error) {
      if (isNew) this.#undo(mesh, pod, { cookie, netnsFd });
      throw error;
    }
  }

  /** Has the backstop act as well. */
  guard({ maps }: MeshPrograms, pod: CapturedPod, scope: CaptureScope): void {
    const cookie = this.cookieOf(pod);
    if (cookie !== undefined) maps.pods.update(podKey(cookie), encodePod(entryOf(pod, scope)), 2);
  }

  /** Pods whose hooks or entry somebody has taken away; they count as not attached from now on. */
  lost({ isAttached, maps }: MeshPrograms): readonly Applied[] {
    const value = Buffer.alloc(SIZES.pod);
    const lost = [...this.#applied.values()].filter(
      ({ cookie }) => !(isAttached(cookie) && maps.pods.lookup(podKey(cookie), value)),
    );
    for (const { cookie } of lost) this.#attached.delete(cookie);
    return lost;
  }

  /** Whether nothing was done to the pod since. */
  isLatest(applied: Applied): boolean {
    return this.#applied.get(applied.pod.uid) === applied;
  }

  forget(pod: CapturedPod): void {
    const cookie = this.#cookies.get(pod.uid);
    this.#applied.delete(pod.uid);
    this.#cookies.delete(pod.uid);
    if (cookie !== undefined) this.#attached.delete(cookie);
  }

  #undo(mesh: MeshPrograms, pod: CapturedPod, { cookie, netnsFd }: Namespace): void {
    try {
      mesh.detachPod(cookie, { netnsFd, device: DEVICE });
    } catch {
      // What made it fail is what counts; the rest is swept when an agent starts.
    }
    this.forget(pod);
  }
}

interface Namespace {
  readonly cookie: bigint;
  readonly netnsFd: number;
}

/** The flags of a scope; see {@link scopeIn}. */
export function flagsOf(
  pod: Pick<CapturedPod, 'mode' | 'udp' | 'refusesPlaintext'>,
  scope: CaptureScope,
): number {
  if (scope === 'nothing') return 0;
  const outbound = POD_OUTBOUND | POD_DNS | (pod.mode === 'strict' ? POD_STRICT : 0);
  if (scope === 'outbound') return outbound;
  const refused =
    (pod.udp === 'refuse' ? POD_REFUSE_UDP : 0) | (pod.refusesPlaintext ? POD_REFUSE_PLAINTEXT : 0);
  return outbound | POD_INBOUND | POD_BACKSTOP | refused;
}

/** The scope that flags stand for. */
export function scopeIn(flags: number): CaptureScope {
  if ((flags & POD_INBOUND) !== 0) return 'both';
  return (flags & POD_OUTBOUND) === 0 ? 'nothing' : 'outbound';
}

function entryOf(pod: CapturedPod, scope: CaptureScope): Parameters<typeof encodePod>[0] {
  return {
    flags: flagsOf(pod, scope),
    ip4: pod.addresses.find((ip) => familyOf(ip) === 4),
    ip6: pod.addresses.find((ip) => familyOf(ip) === 6),
  };
}

/** Keeps what is counted already, unless the pod has been out of the mesh in between. */
function addCounters({ maps }: MeshPrograms, cookie: bigint, { anew }: { readonly anew: boolean }): void {
  try {
    maps.counters.update(podKey(cookie), Buffer.alloc(SIZES.counters), anew ? 0 : 1);
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error;
  }
}

/** Adds the pod's probes; those that are there and are not its any more. */
function writeProbes({ maps }: MeshPrograms, cookie: bigint, { probes }: CapturedPod): readonly Buffer[] {
  const keys = probes.map(({ from, port }) => probeKey(cookie, from, port));
  const value = Buffer.alloc(SIZES.probe);
  value.writeUInt32LE(1);
  for (const key of keys) maps.probes.update(key, value);
  return probesIn({ maps }, cookie).filter((there) => !keys.some((key) => key.equals(there)));
}

function probesIn({ maps }: Pick<MeshPrograms, 'maps'>, cookie: bigint): readonly Buffer[] {
  return maps.probes.keys().filter((key) => podOfKey(key) === cookie);
}
