import { existsSync } from 'node:fs';
import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import { BpfUnsupportedError } from '#bpf/errors.ts';
import { decodeCounters, podKey, type Reason, SIZES } from '#bpf/layout.ts';
import { installMesh, type MeshPrograms } from '#bpf/programs.ts';
import { type Capture, type CapturedPod, CaptureError, type CaptureScope, nameOfPod } from './capture.ts';
import { countCapturedConnections } from './captured-connections.ts';
import { type Applied, DEVICE, EnrolledPods } from './enrolled-pods.ts';
import { closeDescriptor, openNamespace, warmThreadPool } from './in-pod-sockets.ts';

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
  /**
   * Forgets pods whose namespaces are gone, if the programs were installed, and makes anew what somebody has taken away: pins
   * hold the hooks, and whoever removes them opens the pods.
   * @returns uids of pods that had lost their capture
   * @throws CaptureError
   */
  readonly sweep: () => Promise<readonly string[]>;
  /** Closes what this process holds; what is captured stays so. */
  readonly close: () => void;
}

export interface EbpfOptions {
  /** On a bpffs, of one mesh alone: `/sys/fs/bpf/tulle/tulle-1a2b3c`. */
  readonly directory: string;
  /** Above the processes of all pods and ztunnels of the mesh; nobody else's is below it. */
  readonly cgroup: string;
}

/** Longer than a connect(2) takes from where it is captured, or not, to its first packet. */
const UNDER_WAY_MS = 20;

/**
 * Capture by eBPF; see docs/bpf.md. Nothing is installed before it is needed. What is in force is read from the kernel.
 */
export function createEbpfCapture(options: EbpfOptions): EbpfCapture {
  const programs = createPrograms(options);
  const pods = new EnrolledPods();
  const inTurn = createTurns();
  const guardLater = async (pod: CapturedPod, scope: CaptureScope): Promise<void> => {
    await delay(UNDER_WAY_MS);
    explained(pod, () => pods.guard(programs.open(), pod, scope));
  };
  const enrol = (pod: CapturedPod, scope: CaptureScope): { readonly isGuarded: boolean } =>
    inNamespaceOf(pod, (netnsFd) => pods.apply(programs.open(), pod, netnsFd, scope));
  const restore = async (lost: Applied): Promise<void> => {
    const { pod, scope } = lost;
    const done = await inTurn(() => (pods.isLatest(lost) && isThere(lost) ? enrol(pod, scope) : undefined));
    if (done?.isGuarded === false) await guardLater(pod, scope);
  };
  return {
    method: 'ebpf',
    install: () => void programs.open(),
    spliceProblem: programs.spliceProblem,
    isInstalled: () => existsSync(options.directory),
    apply: async (pod, scope) => {
      await warmThreadPool();
      const { isGuarded } = await inTurn(() => enrol(pod, scope));
      if (!isGuarded) await guardLater(pod, scope);
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
    sweep: async () => {
      const mesh = programs.sweep();
      const lost = mesh === undefined ? [] : pods.lost(mesh).filter(isThere);
      const done = await Promise.allSettled(lost.map(restore));
      for (const one of done) if (one.status === 'rejected') throw one.reason;
      return lost.map(({ pod }) => pod.uid);
    },
    close: programs.close,
  };
}

function isThere({ pod }: Applied): boolean {
  return existsSync(pod.netnsPath);
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

interface Programs extends Pick<EbpfCapture, 'close' | 'spliceProblem'> {
  /** @throws BpfUnsupportedError, CaptureError */
  readonly open: () => MeshPrograms;
  /** What is left after sweeping, or made anew; undefined: nobody has asked for it yet. @throws as above */
  readonly sweep: () => MeshPrograms | undefined;
}

/** The programs of the mesh, installed at the first use. A machine that cannot is not asked again. */
function createPrograms(options: EbpfOptions): Programs {
  let mesh: MeshPrograms | undefined;
  let unsupported: BpfUnsupportedError | undefined;
  let isWanted = false;
  const install = (): MeshPrograms => {
    const installed = installMesh(options);
    installed.sweep();
    return installed;
  };
  const open = (): MeshPrograms => {
    if (unsupported !== undefined) throw unsupported;
    isWanted = true;
    try {
      mesh ??= install();
      return mesh;
    } catch (error) {
      if (error instanceof BpfUnsupportedError) unsupported = error;
      throw asCaptureError(`eBPF of the mesh at ${options.directory}`, error);
    }
  };
  const close = (): void => {
    mesh?.close();
    mesh = undefined;
  };
  const sweep = (): void => {
    if (mesh?.isWhole() === false) close();
    else mesh?.sweep();
  };
  return {
    open,
    close,
    sweep: () => {
      if (!isWanted) return undefined;
      try {
        sweep();
      } catch (error) {
        throw asCaptureError(`eBPF of the mesh at ${options.directory}`, error);
      }
      return open();
    },
    spliceProblem: () => (mesh?.splice.kind === 'unsupported' ? mesh.splice.reason : undefined),
  };
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
    const failure = asCaptureError(`eBPF for pod ${nameOfPod(pod)} in ${pod.netnsPath}`, error);
    if (!(failure instanceof CaptureError) || existsSync(pod.netnsPath)) throw failure;
    throw new CaptureError(`${failure.message}. The pod is gone.`, { cause: error });
  }
}

/** That this machine cannot do it at all is for others to act on. */
function asCaptureError(what: string, error: unknown): Error {
  if (error instanceof BpfUnsupportedError || error instanceof CaptureError) return error;
  const said = error instanceof Error ? error.message : String(error);
  return new CaptureError(`${what}: ${said}`, { cause: error });
}
