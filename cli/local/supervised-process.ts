import { setTimeout as delay } from 'node:timers/promises';
import { CliError, describeError } from '../cli-error.ts';
import { makeCgroup } from './cgroups.ts';
import { fingerprintOf } from './fingerprint.ts';
import { adoptInstance, type Instance, launchInstance } from './instance.ts';
import type { RecordedProcess } from './inventory.ts';
import type { ProcessId } from './process-id.ts';

/** A process of the mesh that is to run all the time. */
export interface ProcessSpec {
  /** `control-plane`, `ztunnel/n1`, `node-agent/n1`, `waypoint/shop/waypoint`. */
  readonly name: string;
  /** Command line of the nth instance, counted from 1; with the one that it is to replace, if that runs. */
  readonly command: (instance: number, predecessor?: number) => readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly logFile: string;
  readonly cgroup: string;
  /** Descriptor 3 of the process: the host's network namespace. */
  readonly hostNetnsFd: number;
  /** Time to finish what is in flight after SIGTERM, before SIGKILL. */
  readonly graceMs: number;
  /** Whether the nth instance does its work. */
  readonly isReady: (instance: number) => Promise<boolean>;
  /** Socket on which the nth instance takes commands, and the link that leads to that of the one which serves. */
  readonly socket?: { readonly link: string; readonly pathOf: (instance: number) => string };
}

/** What a process is doing, for `status`. */
export type ProcessState =
  | {
      readonly kind: 'running';
      readonly pid: number;
      /** How the one before it crashed, as long as this one has not got ready. */
      readonly after?: string;
    }
  | { readonly kind: 'crashed'; readonly how: string }
  | { readonly kind: 'stopped' };

/** What should have been replaced, and could not be. */
export interface NotRenewed {
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
  readonly why: string;
}

/** Pause before a crashed process is started again: doubles from crash to crash, and starts over after a while in peace. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 10_000;
const PEACE_MS = 30_000;
const READY_TIMEOUT_MS = 30_000;
/** What was taken over and is not ready after so long may hang. */
const ADOPTED_READY_MS = 10_000;

/** Keeps a process running: starts it again when it crashes, and counts; stops it; replaces it without a gap. */
export class SupervisedProcess {
  readonly spec: ProcessSpec;
  readonly #onChange: () => void;
  #current: Instance | undefined;
  /** What an earlier supervisor left. */
  #adopted: Instance | undefined;
  #wanted = false;
  #instances = 0;
  #restarts = 0;
  #crashes = 0;
  #lastEnd = '';
  /** Milliseconds since the epoch; undefined from its start, or from when it is ready after a crash. */
  #downSince: number | undefined = Date.now();
  #pause: AbortController | undefined;
  #notRenewed: (NotRenewed & { readonly instance: Instance | undefined }) | undefined;
  /** All that have not ended: the current one, one that is getting ready, one that drains. */
  readonly #live = new Set<Instance>();

  /** `onChange` is told whenever a process of it starts or ends. */
  constructor(spec: ProcessSpec, onChange: () => void) {
    this.spec = spec;
    this.#onChange = onChange;
    makeCgroup(spec.cgroup);
  }

  get state(): ProcessState {
    if (this.#current !== undefined) {
      const after = this.#downSince === undefined ? {} : { after: this.#lastEnd };
      return { kind: 'running', pid: this.#current.process?.pid ?? 0, ...after };
    }
    return this.#wanted ? { kind: 'crashed', how: this.#lastEnd } : { kind: 'stopped' };
  }

  /** Times that it was started again after a crash. */
  get restarts(): number {
    return this.#restarts;
  }

  /** How it ended last; empty if it never did. */
  get lastEnd(): string {
    return this.#lastEnd;
  }

  /** Since when it has not done its work, after a stop or the first of its crashes; milliseconds since the epoch. */
  get downSince(): number | undefined {
    return this.#downSince;
  }

  /** Number of the running instance. */
  get instance(): number | undefined {
    return this.#current?.number;
  }

  /** The running process. */
  get process(): ProcessId | undefined {
    return this.#current?.process;
  }

  /** All of its processes that have not ended, as the inventory records them. */
  get recorded(): readonly RecordedProcess[] {
    return [...this.#live].flatMap((instance) => {
      const { number, process, fingerprint } = instance;
      const serves = instance === this.#current;
      return process === undefined
        ? []
        : [{ name: this.spec.name, process, instance: number, fingerprint, serves }];
    });
  }

  /** Whether what runs is not what would be started now: an earlier `tulle up` has started it with other code or settings. */
  get isOutdated(): boolean {
    return this.#current !== undefined && this.#current.fingerprint !== this.#fingerprint();
  }

  /** Starts it unless it is meant to run already. */
  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#crashes = 0;
    this.#downSince = undefined;
    this.#launchCurrent();
  }

  /**
   * Takes over what an earlier supervisor left running, as it is: the one that served goes on, what it was to replace or was
   * replaced by is ended. Nothing happens when none of it served.
   */
  adopt(processes: readonly RecordedProcess[]): void {
    this.#instances = Math.max(this.#instances, ...processes.map(({ instance }) => instance));
    for (const { instance: number, process, fingerprint, serves } of processes) {
      const instance = this.#track(adoptInstance(number, process, fingerprint));
      if (!serves) void this.#end(instance);
      else {
        this.#wanted = true;
        this.#downSince = undefined;
        this.#current = instance;
        this.#adopted = instance;
        this.#watch(instance);
      }
    }
  }

  /** Whether what {@link adopt} took over does not get ready in some seconds: it may hang. */
  async isStuck(): Promise<boolean> {
    const adopted = this.#adopted;
    const deadline = performance.now() + ADOPTED_READY_MS;
    while (adopted !== undefined && this.#current === adopted && performance.now() < deadline) {
      if (await this.isReady()) return false;
      await delay(100);
    }
    return adopted !== undefined && this.#current === adopted;
  }

  /**
   * Replaces what runs other code or settings than would be started now, or is stuck. Returns whether nothing is left to do: where
   * the new one does not get ready, as while the control plane is away, the old one stays, and it is to be tried again.
   */
  async renew(): Promise<boolean> {
    const isStuck = !this.isOutdated && (await this.isStuck());
    if (!this.isOutdated && !isStuck) {
      this.#notRenewed = undefined;
      return true;
    }
    const old = this.#current;
    try {
      // What hangs does not end by itself, and connections may wait in its queue.
      await this.replace(() => (isStuck ? old?.signal('SIGKILL') : undefined));
      return true;
    } catch (error) {
      const sinceMs = this.notRenewed?.sinceMs ?? Date.now();
      this.#notRenewed = { sinceMs, why: describeError(error), instance: old };
      return false;
    }
  }

  /** What {@link renew} could not replace yet; undefined: nothing, or it is another one by now. */
  get notRenewed(): NotRenewed | undefined {
    return this.#notRenewed?.instance === this.#current ? this.#notRenewed : undefined;
  }

  /** Ends it and leaves it stopped; resolves when it is gone. */
  async stop(): Promise<void> {
    this.#wanted = false;
    this.#pause?.abort();
    if (this.#current !== undefined) this.#downSince = Date.now();
    this.#current = undefined;
    await Promise.all([...this.#live].map((instance) => this.#end(instance)));
    this.#onChange();
  }

  /**
   * Waits until it does its work.
   * @throws CliError when it does not in time; it is kept running all the same.
   */
  async waitUntilReady(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!(await this.isReady())) {
      if (!this.#wanted) throw new CliError(`${this.spec.name} was stopped`);
      if (performance.now() > deadline) {
        const how = this.#lastEnd === '' ? '' : `, it ${this.#lastEnd}`;
        throw new CliError(
          `${this.spec.name} was not ready within ${timeoutMs / 1000} s${how} (see ${this.spec.logFile})`,
        );
      }
      await delay(50);
    }
  }

  /** Whether the running instance does its work. */
  async isReady(): Promise<boolean> {
    const instance = this.#current;
    const isReady = instance !== undefined && (await this.spec.isReady(instance.number));
    if (isReady && this.#current === instance) this.#downSince = undefined;
    return isReady;
  }

  /**
   * Starts a second instance beside the first, and ends the first when the second is ready: there is always one that serves.
   * One that has crashed, or is stopped, is started without waiting for its turn.
   * @param onReady called when the second is ready, before the first is ended
   * @throws CliError when the new one does not get ready; a first one stays then.
   */
  async replace(onReady?: () => void): Promise<void> {
    const first = this.#current;
    if (first === undefined) return await this.#startNow();
    const next = this.#launch(first.number);
    this.#onChange();
    const problem = await this.#waitUntilReady(next);
    if (problem !== undefined) {
      await this.#end(next);
      throw new CliError(
        `the new ${this.spec.name} ${problem}; the old one goes on (see ${this.spec.logFile})`,
      );
    }
    const old = this.#current;
    this.#current = next;
    this.#downSince = undefined;
    this.#watch(next);
    this.#onChange();
    onReady?.();
    if (old !== undefined) await this.#end(old);
  }

  async #startNow(): Promise<void> {
    this.#pause?.abort();
    this.#wanted = true;
    this.#crashes = 0;
    this.#launchCurrent();
    const problem = this.#current && (await this.#waitUntilReady(this.#current));
    if (problem !== undefined) {
      throw new CliError(
        `${this.spec.name} ${problem}; it is tried again by itself (see ${this.spec.logFile})`,
      );
    }
  }

  #launchCurrent(): void {
    const instance = this.#launch();
    this.#current = instance;
    this.#onChange();
    this.#watch(instance);
  }

  /** Starts it again when the instance ends while it is the current one. */
  #watch(instance: Instance): void {
    void instance.ended.then(async (how) => {
      if (this.#current !== instance) return;
      this.#current = undefined;
      this.#downSince ??= Date.now();
      this.#lastEnd = how;
      this.#onChange();
      if (performance.now() - instance.startedAt > PEACE_MS) this.#crashes = 0;
      const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** this.#crashes++, LONGEST_PAUSE_MS);
      const pause = new AbortController();
      this.#pause = pause;
      await delay(pauseMs, undefined, { signal: pause.signal }).catch(() => undefined);
      if (pause.signal.aborted || !this.#wanted || this.#current !== undefined) return;
      this.#restarts++;
      this.#launchCurrent();
    });
  }

  #launch(predecessor?: number): Instance {
    const number = ++this.#instances;
    const command = this.spec.command(number, predecessor);
    return this.#track(launchInstance({ ...this.spec, number, command, fingerprint: this.#fingerprint() }));
  }

  #track(instance: Instance): Instance {
    this.#live.add(instance);
    void instance.ended.then(() => this.#live.delete(instance));
    return instance;
  }

  #fingerprint(): string {
    return fingerprintOf(this.spec.command(0), this.spec.env);
  }

  async #waitUntilReady(instance: Instance): Promise<string | undefined> {
    const deadline = performance.now() + READY_TIMEOUT_MS;
    let end: string | undefined;
    void instance.ended.then((how) => {
      end = how;
    });
    while (performance.now() < deadline) {
      if (end !== undefined) return end;
      if (!this.#wanted) return 'was stopped';
      if (await this.spec.isReady(instance.number)) return undefined;
      await delay(50);
    }
    return `was not ready within ${READY_TIMEOUT_MS / 1000} s`;
  }

  async #end(instance: Instance): Promise<void> {
    const timer = setTimeout(() => instance.signal('SIGKILL'), this.spec.graceMs);
    instance.signal('SIGTERM');
    await instance.ended;
    clearTimeout(timer);
  }
}
