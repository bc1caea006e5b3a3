import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Ip } from '#api/address.ts';
import type { Reason } from '#bpf/layout.ts';
import type {
  CapturedPod,
  CaptureMethod,
  CaptureScope,
  PodCapture,
  Probe,
} from '#ztunnel/capture/capture.ts';
import type { LocatedPod } from '#ztunnel/zds/server.ts';
import {
  decide,
  type Facts,
  holdOf,
  type InPlace,
  NOTHING_IN_PLACE,
  type Order,
  type PlaintextVerdict,
  type ReportedState,
  reportedState,
  type Step,
} from './decide.ts';
import type { OrderedPod } from './orders.ts';
import type { Redirection } from './reports.ts';

/** What a controller acts on. */
export interface ControllerParts {
  readonly capture: PodCapture;
  readonly zds: {
    readonly add: (pod: OrderedPod['pod'], netnsPath: string) => Promise<void>;
    readonly del: (uid: string) => Promise<void>;
    readonly connected: () => number;
  };
  /** How the workload API says that a pod is reached. */
  readonly told: (pod: OrderedPod['pod']) => Facts['told'];
  /** How long other pods may be on their way, at a time. */
  readonly movingMs: (nowMs: number) => number;
  /** What policies say to all callers of a pod that have no identity; undefined: policies have not come. */
  readonly plaintext: (pod: OrderedPod['pod']) => PlaintextVerdict | undefined;
  /** Who may probe a pod of those addresses on those ports. */
  readonly probesOf: (addresses: readonly Ip[], ports: readonly number[]) => Promise<readonly Probe[]>;
  /** What the control plane is told of a pod's redirection. */
  readonly redirection: {
    readonly read: (fileName: string) => Redirection | undefined;
    readonly write: (fileName: string, redirection: Redirection | undefined) => void;
  };
  /** Something to report has changed. */
  readonly onChange: () => void;
  readonly logger: Logger;
}

/** How a pod stands. */
export interface PodReport {
  readonly state: ReportedState;
  readonly capture: CaptureMethod['method'];
  /** Why it is not eBPF. */
  readonly captureReason?: string;
  readonly error?: string;
}

const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 5_000;
const COUNT_EVERY_MS = 200;

/** Brings one pod where it should be, step by step, whatever order comes meanwhile. */
export class PodController {
  readonly #parts: ControllerParts;
  #target: OrderedPod;
  #inPlace: InPlace = NOTHING_IN_PLACE;
  #error: string | undefined;
  /** Whether {@link InPlace} is known; until then nothing is done to the pod, and nothing is said of its redirection. */
  #adopted = false;
  #wake: () => void = () => undefined;
  #stopped = false;

  constructor(target: OrderedPod, parts: ControllerParts) {
    this.#target = target;
    this.#parts = parts;
  }

  /**
   * Takes over what another agent left in the pod's namespace. To be awaited before {@link run}, which tries again when it
   * cannot be told. Until it can, a ztunnel that connects is told of the pod if peers are.
   */
  async adopt(): Promise<void> {
    const { capture, redirection, logger } = this.#parts;
    const { fileName } = this.#target;
    let wasEnabled = true;
    try {
      wasEnabled = redirection.read(fileName) === 'enabled';
      const scope = await capture.scopeOf(this.#capturedPod());
      const announced = scope !== undefined && wasEnabled;
      redirection.write(fileName, announced ? 'enabled' : undefined);
      // Ztunnels may have been told of it, or refused it, while that was not known.
      const served = this.#error === undefined ? scope !== undefined : this.#inPlace.served;
      this.#inPlace = { ...NOTHING_IN_PLACE, served, scope, announced };
      this.#error = undefined;
      this.#adopted = true;
    } catch (error) {
      if (this.#error === undefined) this.#inPlace = { ...NOTHING_IN_PLACE, served: wasEnabled };
      this.#error = error instanceof Error ? error.message : String(error);
      logger.warn(
        { pod: fileName, error: this.#error },
        'cannot tell what is in place for a pod, trying again',
      );
    }
  }

  /** What is to become of the pod from now on. */
  update(target: OrderedPod): void {
    this.#target = target;
    this.#wake();
  }

  /** Something that counts may have changed: ztunnels, what peers were told. */
  look(): void {
    this.#wake();
  }

  /** A ztunnel that was told of the pod refused it. */
  refused(message: string): void {
    this.#inPlace = { ...this.#inPlace, served: false };
    this.#error = message;
    this.#wake();
  }

  /** The pod, if a ztunnel that connects is to be told of it. */
  served(): LocatedPod | undefined {
    const { pod, netnsPath } = this.#target;
    return this.#inPlace.served ? { pod, netnsPath } : undefined;
  }

  report(): PodReport {
    const { method, reason } = this.#parts.capture.methodOf(this.#capturedPod());
    return {
      state: reportedState(this.#target.order, this.#inPlace),
      capture: method,
      ...(reason === undefined ? {} : { captureReason: reason }),
      ...(this.#error === undefined ? {} : { error: this.#error }),
    };
  }

  /** What was refused of the pod since it was captured; undefined while it is not. */
  async countRefused(): Promise<ReadonlyMap<Reason, number> | undefined> {
    if (this.#inPlace.scope === undefined) return undefined;
    return await this.#parts.capture.counters(this.#capturedPod());
  }

  /** Runs until the pod is gone and forgotten, or {@link stop}; then everything is left as it is. */
  async run(): Promise<void> {
    await this.#adoptAtLast();
    let retryMs = FIRST_RETRY_MS;
    while (!this.#stopped) {
      const woken = this.#nextWake();
      const step = decide(this.#target.order, this.#inPlace, this.#facts());
      if (step.kind === 'forget') return;
      if (step.kind === 'rest' || step.kind === 'wait') {
        await this.#sleep(woken, step.kind === 'wait' ? step.ms : undefined);
      } else if (await this.#attempt(step)) retryMs = FIRST_RETRY_MS;
      else {
        await this.#sleep(woken, retryMs);
        retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
      }
      this.#report();
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#wake();
  }

  async #adoptAtLast(): Promise<void> {
    for (let retryMs = FIRST_RETRY_MS; !this.#adopted && !this.#stopped; ) {
      this.#parts.onChange();
      await this.#sleep(this.#nextWake(), retryMs);
      if (this.#stopped) return;
      await this.adopt();
      this.#parts.onChange();
      retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
    }
  }

  #facts(): Facts {
    const { zds, told, movingMs, plaintext } = this.#parts;
    const { pod, hasStarted } = this.#target;
    const nowMs = performance.now();
    return {
      nowMs,
      ztunnels: zds.connected(),
      hasStarted,
      told: told(pod),
      movingMs: movingMs(nowMs),
      plaintext: plaintext(pod),
    };
  }

  /** Whether the step was done. */
  async #attempt(step: Step): Promise<boolean> {
    const { logger } = this.#parts;
    const { fileName } = this.#target;
    try {
      const before = this.#inPlace;
      const change = await this.#perform(step);
      // A refusal that came meanwhile stays.
      this.#inPlace = before === this.#inPlace ? { ...before, ...change } : { ...this.#inPlace, ...change };
      this.#error = undefined;
      if (step.kind !== 'count') logger.info({ pod: fileName, step }, 'pod changed');
      return true;
    } catch (error) {
      if (this.#stopped) return false;
      this.#error = error instanceof Error ? error.message : String(error);
      logger.warn({ pod: fileName, step, error: this.#error }, 'pod not changed, trying again');
      return false;
    } finally {
      this.#report();
    }
  }

  /** Does a step; what has changed by it. */
  async #perform(step: Step): Promise<Partial<InPlace>> {
    const { zds, capture } = this.#parts;
    const { pod, netnsPath } = this.#target;
    const nowMs = performance.now();
    switch (step.kind) {
      case 'serve':
        await zds.add(pod, netnsPath);
        return { served: true };
      case 'capture':
        return await this.#capture(step.scope);
      case 'announce':
        return { announced: true, announcedAtMs: nowMs };
      case 'withdraw':
        return { announced: false, announcedAtMs: nowMs };
      case 'count': {
        await delay(COUNT_EVERY_MS);
        const count = await capture.countCaptured(this.#capturedPod());
        return { idleSinceMs: count === 0 ? (this.#inPlace.idleSinceMs ?? nowMs) : undefined };
      }
      case 'drop':
        await zds.del(pod.uid);
        return { served: false };
      case 'remove':
        await capture.remove(this.#capturedPod());
        return { scope: undefined };
      case 'rest':
      case 'wait':
      case 'forget':
        return {};
    }
  }

  async #capture(scope: CaptureScope): Promise<Partial<InPlace>> {
    const { capture, probesOf, plaintext } = this.#parts;
    const { order, pod, addresses, probePorts } = this.#target;
    const probes = await probesOf(addresses, probePorts);
    const hold = holdOf(order, { plaintext: plaintext(pod) });
    await capture.apply({ ...this.#capturedPod(), ...hold, probes }, scope);
    return { scope, hold, idleSinceMs: undefined };
  }

  /** Has the control plane and the status say what is in place. */
  #report(): void {
    const { redirection, zds, onChange, logger } = this.#parts;
    const { order, fileName } = this.#target;
    const isBlocked = order.wanted === 'in' && (this.#error !== undefined || zds.connected() === 0);
    try {
      redirection.write(fileName, this.#inPlace.announced ? 'enabled' : isBlocked ? 'pending' : undefined);
    } catch (error) {
      logger.error({ pod: fileName, error: String(error) }, 'cannot tell the control plane of a pod');
    }
    onChange();
  }

  /** Enough of it for all but {@link #capture}. */
  #capturedPod(): CapturedPod {
    const { pod, netnsPath, order, addresses } = this.#target;
    const { udp, mode } = order;
    const name = `${pod.namespace}/${pod.name}`;
    return { uid: pod.uid, name, netnsPath, udp, mode, refusesPlaintext: false, addresses, probes: [] };
  }

  /** Resolves at the next change; to be taken before deciding, so that none is missed. */
  #nextWake(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return promise;
  }

  async #sleep(woken: Promise<void>, ms: number | undefined): Promise<void> {
    if (ms === undefined) return await woken;
    const timer = new AbortController();
    await Promise.race([woken, delay(ms, undefined, { signal: timer.signal }).catch(() => undefined)]);
    timer.abort();
  }
}

/** An order that a pod is gone. */
export function goneOrder(target: OrderedPod): OrderedPod {
  const order: Order = { ...target.order, wanted: 'gone' };
  return { ...target, order };
}
