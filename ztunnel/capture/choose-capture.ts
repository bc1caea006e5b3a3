import { BpfUnsupportedError } from '#bpf/errors.ts';
import {
  type Capture,
  type CapturedPod,
  CaptureError,
  type CaptureMethod,
  type CaptureScope,
  nameOfPod,
  type PodCapture,
} from './capture.ts';
import { createEbpfCapture, type EbpfCapture, type EbpfOptions } from './ebpf.ts';
import { createNftablesCapture } from './nftables.ts';

/** How pods are to be captured. */
export interface CaptureChoice {
  /** `auto`: by eBPF where this machine can, else by packet rules; `ebpf`: not at all where it cannot. */
  readonly method: 'auto' | 'ebpf' | 'nftables';
  /** Why it is `nftables`, for who asks. */
  readonly reason?: string;
  /** Absent: there is no eBPF, and none was there before. */
  readonly ebpf?: EbpfOptions;
}

/** {@link PodCapture} that holds things of this process. */
export interface ChosenCapture extends PodCapture {
  /** Tries what `auto` and `ebpf` need; why it cannot be had, undefined when it can or is not wanted. */
  readonly tryEbpf: () => string | undefined;
  /** Why bytes between two pods cannot go past the ztunnel, though there is eBPF; undefined when they can. */
  readonly spliceProblem: () => string | undefined;
  /**
   * Takes away what is left of pods whose namespaces are gone by now: somebody may have kept one when its pod went. Captures
   * those anew whose capture somebody took away; their uids.
   * @throws CaptureError
   */
  readonly sweep: () => Promise<readonly string[]>;
  /** What is captured stays so. */
  readonly close: () => void;
}

const BY_RULES_BEFORE =
  'captured by packet rules before; it is captured anew when it comes back into the mesh';

/**
 * Captures each pod by the method chosen, or by packet rules where this machine lacks what eBPF needs, for all pods or for
 * this one. A pod that is captured already, also by another agent, keeps its method until it is removed.
 */
export function chooseCapture(choice: CaptureChoice): ChosenCapture {
  const ebpf = choice.ebpf && createEbpfCapture(choice.ebpf);
  return new MethodPerPod(choice, ebpf, createNftablesCapture());
}

class MethodPerPod implements ChosenCapture {
  readonly #choice: CaptureChoice;
  readonly #ebpf: EbpfCapture | undefined;
  readonly #nftables: Capture;
  /** Of pods that are captured, by uid. */
  readonly #inPlace = new Map<string, CaptureMethod>();
  /** Why this machine cannot capture by eBPF, as far as it was tried. */
  #missing: string | undefined;

  constructor(choice: CaptureChoice, ebpf: EbpfCapture | undefined, nftables: Capture) {
    this.#choice = choice;
    this.#ebpf = ebpf;
    this.#nftables = nftables;
    this.#missing = ebpf === undefined ? 'the node agent was given no directory for it' : undefined;
  }

  tryEbpf(): string | undefined {
    if (this.#choice.method === 'nftables') return undefined;
    try {
      this.#ebpf?.install();
      return this.#missing;
    } catch (error) {
      if (error instanceof BpfUnsupportedError) this.#missing = error.message;
      return error instanceof Error ? error.message : String(error);
    }
  }

  spliceProblem(): string | undefined {
    return this.#ebpf?.spliceProblem();
  }

  methodOf({ uid }: CapturedPod): CaptureMethod {
    return this.#inPlace.get(uid) ?? this.#wanted();
  }

  async scopeOf(pod: CapturedPod): Promise<CaptureScope | undefined> {
    const byEbpf = await this.#scopeByEbpf(pod);
    if (byEbpf !== undefined) {
      this.#inPlace.set(pod.uid, { method: 'ebpf' });
      return byEbpf;
    }
    const byRules = await this.#nftables.scopeOf(pod);
    if (byRules === undefined) this.#inPlace.delete(pod.uid);
    else this.#inPlace.set(pod.uid, this.#byRules(this.#choice.reason ?? BY_RULES_BEFORE));
    return byRules;
  }

  async apply(pod: CapturedPod, scope: CaptureScope): Promise<void> {
    const method = this.methodOf(pod);
    try {
      await this.#captureBy(method).apply(pod, scope);
      this.#inPlace.set(pod.uid, method);
    } catch (error) {
      if (!(error instanceof BpfUnsupportedError)) throw error;
      if (this.#choice.method === 'ebpf' || this.#inPlace.has(pod.uid)) {
        throw new CaptureError(`eBPF for pod ${nameOfPod(pod)}: ${error.message}`, { cause: error });
      }
      await this.#nftables.apply(pod, scope);
      this.#inPlace.set(pod.uid, this.#byRules(error.message));
    }
  }

  countCaptured(pod: CapturedPod): Promise<number> {
    return this.#captureBy(this.methodOf(pod)).countCaptured(pod);
  }

  counters(pod: CapturedPod): ReturnType<Capture['counters']> {
    return this.#captureBy(this.methodOf(pod)).counters(pod);
  }

  async remove(pod: CapturedPod): Promise<void> {
    await this.#captureBy(this.methodOf(pod)).remove(pod);
    this.#inPlace.delete(pod.uid);
  }

  async sweep(): Promise<readonly string[]> {
    return (this.#missing === undefined && (await this.#ebpf?.sweep())) || [];
  }

  close(): void {
    this.#ebpf?.close();
  }

  /** Also where it is not the method of choice: what another agent left counts. */
  async #scopeByEbpf(pod: CapturedPod): Promise<CaptureScope | undefined> {
    if (this.#ebpf === undefined || !this.#ebpf.isInstalled()) return undefined;
    try {
      return await this.#ebpf.scopeOf(pod);
    } catch (error) {
      if (error instanceof BpfUnsupportedError) return undefined; // nothing of it can be there
      throw error;
    }
  }

  /** For a pod that is not captured. */
  #wanted(): CaptureMethod {
    const { method, reason } = this.#choice;
    if (method === 'nftables') return this.#byRules(reason ?? '--capture nftables');
    if (method === 'auto' && this.#missing !== undefined) return this.#byRules(this.#missing);
    return { method: 'ebpf' };
  }

  #byRules(reason: string): CaptureMethod {
    return { method: 'nftables', reason };
  }

  #captureBy({ method }: CaptureMethod): Capture {
    if (method === 'nftables') return this.#nftables;
    if (this.#ebpf !== undefined) return this.#ebpf;
    throw new CaptureError(`eBPF: ${this.#missing}`);
  }
}
