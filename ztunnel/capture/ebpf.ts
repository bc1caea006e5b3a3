import { existsSync } from 'node:fs';
import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import { familyOf } from '#api/address.ts';
import { BpfUnsupportedError } from '#bpf/errors.ts';
import {
  decodeCounters,
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
  type Reason,
  SIZES,
} from '#bpf/layout.ts';
import { installMesh, type MeshPrograms, netnsCookie } from '#bpf/programs.ts';
import { type Capture, type CapturedPod, CaptureError, type CaptureScope } from './capture.ts';
import { countCapturedConnections } from './captured-connections.ts';
import { closeDescriptor, openNamespace, warmThreadPool } from './in-pod-sockets.ts';
import { hasCode } from './native.ts';

/** Capture by programs in the kernel, which its makers share with other node agents of the mesh on this machine. */
export interface EbpfCapture extends Capture {
  /**
   * Loads and pins the programs of the mesh, and forgets pods that are no more; done by {@link Capture.apply}, too, which
   * may be later.
   * @throws BpfUnsupportedError where this machine cannot, now and ever; CaptureError when it did not work
   */
  readonly install: () => void;
  /** Why this machine has no kernel splice; undefined when it has, or nothing is installed yet. */
  readonly spliceProblem: () => string | undefined;
  /** Whether something is pinned: by this process, or by one before it. */
  readonly isInstalled: () => boolean;
  /** Forgets pods whose namespaces are gone, if the programs are installed. @throws CaptureError */
  readonly sweep: () => void;
  /** Closes what this process holds; what is captured stays so. */
  readonly close: () => void;
}

export interface EbpfOptions {
  /** On a bpffs, of one mesh alone: `/sys/fs/bpf/tulle/tulle-1a2b3c`. */
  readonly directory: string;
  /** Above the processes of all pods and ztunnels of the mesh; nobody else's is below it. */
  readonly cgroup: string;
}

const DEVICE = 'eth0';
/** Longer than a connect(2) takes from where it is captured, or not, to its first packet. */
const UNDER_WAY_MS = 20;

/**
 * Capture by eBPF; see docs/bpf.md. Nothing is installed before it is needed. What is in force is read from the kernel.
 */
export function createEbpfCapture(options: EbpfOptions): EbpfCapture {
  const programs = createPrograms(options);
  const pods = new EnrolledPods();
  const inTurn = createTurns();
  return {
    method: 'ebpf',
    install: () => void programs.open(),
    spliceProblem: programs.spliceProblem,
    isInstalled: () => existsSync(options.directory),
    apply: async (pod, scope) => {
      await warmThreadPool();
      const { isGuarded } = await inTurn(() =>
        inNamespaceOf(pod, (netnsFd) => pods.apply(programs.open(), pod, netnsFd, scope)),
      );
      if (isGuarded) return;
      await delay(UNDER_WAY_MS);
      explained(pod, () => pods.guard(programs.open(), pod, scope));
    },
    scopeOf: async (pod) => {
      if (!existsSync(options.directory) || !existsSync(pod.netnsPath)) return undefined;
      return inNamespaceOf(pod, (netnsFd) => pods.scopeOf(programs.open(), pod, netnsFd));
    },
    countCaptured: async (pod) => {
      await warmThreadPool();
      return existsSync(pod.netnsPath) ? inNamespaceOf(pod, (fd) => countCapturedConnections(fd, 'ebpf')) : 0;
    },
    counters: async (pod) => {
      const cookie = pods.cookieOf(pod);
      return cookie === undefined ? new Map() : readCounters(programs.open(), cookie);
    },
    remove: async (pod) => {
      const cookie = pods.cookieOf(pod);
      if (cookie === undefined) return;
      explained(pod, () => detachPod(programs.open(), pod, cookie));
      pods.forget(pod);
    },
    sweep: programs.sweep,
    close: programs.close,
  };
}

/**
 * Does one thing at a time, and between two whatever else this thread is there for, such as answering queries: a pod's programs
 * take some 20 ms, and a hundred pods may come at once.
 */
function createTurns(): <T>(work: () => T) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const turn = last.then(() => setImmediate()).then(work);
    last = turn.catch(() => undefined);
    return turn;
  };
}

interface Programs extends Pick<EbpfCapture, 'sweep' | 'close' | 'spliceProblem'> {
  /** @throws BpfUnsupportedError, CaptureError */
  readonly open: () => MeshPrograms;
}

/** The programs of the mesh, installed at the first use. A machine that cannot is not asked again. */
function createPrograms(options: EbpfOptions): Programs {
  let mesh: MeshPrograms | undefined;
  let unsupported: BpfUnsupportedError | undefined;
  const install = (): MeshPrograms => {
    const installed = installMesh(options);
    installed.sweep();
    return installed;
  };
  return {
    open: () => {
      if (unsupported !== undefined) throw unsupported;
      try {
        mesh ??= install();
        return mesh;
      } catch (error) {
        if (error instanceof BpfUnsupportedError) unsupported = error;
        throw asCaptureError(`eBPF of the mesh at ${options.directory}`, error);
      }
    },
    sweep: () => {
      try {
        mesh?.sweep();
      } catch (error) {
        throw asCaptureError(`eBPF of the mesh at ${options.directory}`, error);
      }
    },
    spliceProblem: () => (mesh?.splice.kind === 'unsupported' ? mesh.splice.reason : undefined),
    close: () => {
      mesh?.close();
      mesh = undefined;
    },
  };
}

/** What this process knows of pods: the cookies of their namespaces, which outlast these, and which have their hooks. */
class EnrolledPods {
  readonly #cookies = new Map<string, bigint>();
  readonly #attached = new Set<bigint>();

  cookieOf({ uid }: CapturedPod): bigint | undefined {
    return this.#cookies.get(uid);
  }

  scopeOf({ maps }: MeshPrograms, pod: CapturedPod, netnsFd: number): CaptureScope | undefined {
    const cookie = netnsCookie(netnsFd);
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
    const cookie = netnsCookie(netnsFd);
    const key = podKey(cookie);
    const before = Buffer.alloc(SIZES.pod);
    const isNew = !mesh.maps.pods.lookup(key, before);
    const entry = entryOf(pod, scope);
    const isGuarded = scope !== 'both' || (decodePod(before).flags & POD_OUTBOUND) !== 0;
    this.#cookies.set(pod.uid, cookie);
    try {
      if (!this.#attached.has(cookie)) mesh.attachPod({ cookie, netnsFd, device: DEVICE });
      this.#attached.add(cookie);
      addCounters(mesh, cookie);
      const stale = writeProbes(mesh, cookie, pod);
      const flags = isGuarded ? entry.flags : entry.flags & ~POD_BACKSTOP;
      mesh.maps.pods.update(key, encodePod({ ...entry, flags }));
      for (const probe of stale) mesh.maps.probes.delete(probe);
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

  forget(pod: CapturedPod): void {
    const cookie = this.#cookies.get(pod.uid);
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

/** Keeps what is counted already. */
function addCounters({ maps }: MeshPrograms, cookie: bigint): void {
  try {
    maps.counters.update(podKey(cookie), Buffer.alloc(SIZES.counters), 1);
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

function readCounters({ maps }: MeshPrograms, cookie: bigint): ReadonlyMap<Reason, number> {
  const value = Buffer.alloc(SIZES.counters);
  if (!maps.counters.lookup(podKey(cookie), value)) return new Map();
  return new Map([...decodeCounters(value)].map(([reason, count]) => [reason, Number(count)]));
}

function detachPod(mesh: MeshPrograms, pod: CapturedPod, cookie: bigint): void {
  if (!existsSync(pod.netnsPath)) {
    mesh.detachPod(cookie);
    return;
  }
  const netnsFd = openNamespace(pod.netnsPath);
  try {
    mesh.detachPod(cookie, { netnsFd, device: DEVICE });
  } finally {
    closeDescriptor(netnsFd);
  }
}

/** @throws CaptureError, also when there is no such namespace; BpfUnsupportedError */
function inNamespaceOf<T>(pod: CapturedPod, work: (netnsFd: number) => T): T {
  return explained(pod, () => {
    const netnsFd = openNamespace(pod.netnsPath);
    try {
      return work(netnsFd);
    } finally {
      closeDescriptor(netnsFd);
    }
  });
}

function explained<T>(pod: CapturedPod, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw asCaptureError(`eBPF for pod ${pod.uid} in ${pod.netnsPath}`, error);
  }
}

/** That this machine cannot do it at all is for others to act on. */
function asCaptureError(what: string, error: unknown): Error {
  if (error instanceof BpfUnsupportedError || error instanceof CaptureError) return error;
  const said = error instanceof Error ? error.message : String(error);
  return new CaptureError(`${what}: ${said}`, { cause: error });
}
