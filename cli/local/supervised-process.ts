import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { CliError } from '../cli-error.ts';
import { inCgroup, makeCgroup } from './cgroups.ts';
import { findProcess, type ProcessId } from './process-id.ts';

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

/** One start of the process. */
interface Instance {
  readonly number: number;
  readonly child: ChildProcess;
  readonly process: ProcessId | undefined;
  readonly startedAt: number;
  readonly ended: Promise<string>;
}

/** What a process is doing, for `status`. */
export type ProcessState =
  | { readonly kind: 'running'; readonly pid: number }
  | { readonly kind: 'crashed'; readonly how: string }
  | { readonly kind: 'stopped' };

/** Pause before a crashed process is started again: doubles from crash to crash, and starts over after a while in peace. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 10_000;
const PEACE_MS = 30_000;
const READY_TIMEOUT_MS = 30_000;

/** Keeps a process running: starts it again when it crashes, and counts; stops it; replaces it without a gap. */
export class SupervisedProcess {
  readonly spec: ProcessSpec;
  readonly #onChange: () => void;
  #current: Instance | undefined;
  #wanted = false;
  #instances = 0;
  #restarts = 0;
  #crashes = 0;
  #lastEnd = '';
  #pause: AbortController | undefined;
  /** All that have not ended: the current one, one that is getting ready, one that drains. */
  readonly #live = new Set<Instance>();

  /** `onChange` is told whenever a process of it starts or ends. */
  constructor(spec: ProcessSpec, onChange: () => void) {
    this.spec = spec;
    this.#onChange = onChange;
    makeCgroup(spec.cgroup);
  }

  get state(): ProcessState {
    if (this.#current !== undefined) return { kind: 'running', pid: this.#current.child.pid ?? 0 };
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

  /** Number of the running instance. */
  get instance(): number | undefined {
    return this.#current?.number;
  }

  /** The running process, as the inventory records it. */
  get process(): ProcessId | undefined {
    return this.#current?.process;
  }

  /** Starts it unless it is meant to run already. */
  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#crashes = 0;
    this.#launchCurrent();
  }

  /** Ends it and leaves it stopped; resolves when it is gone. */
  async stop(): Promise<void> {
    this.#wanted = false;
    this.#pause?.abort();
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
    return instance !== undefined && (await this.spec.isReady(instance.number));
  }

  /**
   * Starts a second instance beside the first, and ends the first when the second is ready: there is always one that serves.
   * @throws CliError when the second does not get ready; the first stays then.
   */
  async replace(): Promise<void> {
    if (this.#current === undefined) {
      this.start();
      return;
    }
    const next = this.#launch(this.#current.number);
    const problem = await this.#waitUntilReady(next);
    if (problem !== undefined) {
      await this.#end(next);
      throw new CliError(
        `the new ${this.spec.name} ${problem}; the old one goes on (see ${this.spec.logFile})`,
      );
    }
    const old = this.#current;
    this.#current = next;
    this.#watch(next);
    this.#onChange();
    if (old !== undefined) await this.#end(old);
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
      this.#lastEnd = how;
      this.#onChange();
      if (performance.now() - instance.startedAt > PEACE_MS) this.#crashes = 0;
      const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** this.#crashes++, LONGEST_PAUSE_MS);
      this.#pause = new AbortController();
      await delay(pauseMs, undefined, { signal: this.#pause.signal }).catch(() => undefined);
      if (!this.#wanted || this.#current !== undefined) return;
      this.#restarts++;
      this.#launchCurrent();
    });
  }

  #launch(predecessor?: number): Instance {
    const number = ++this.#instances;
    const log = openSync(this.spec.logFile, 'a', 0o600);
    const [file = '', ...args] = inCgroup(this.spec.cgroup, this.spec.command(number, predecessor));
    // A session of its own: Ctrl-C in the terminal is the supervisor's to handle.
    const child = spawn(file, args, {
      stdio: ['ignore', log, log, this.spec.hostNetnsFd],
      env: this.spec.env,
      detached: true,
    });
    closeSync(log);
    const instance: Instance = {
      number,
      child,
      process: child.pid === undefined ? undefined : findProcess(child.pid),
      startedAt: performance.now(),
      ended: describeEnd(child),
    };
    this.#live.add(instance);
    void instance.ended.then(() => this.#live.delete(instance));
    return instance;
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
    const timer = setTimeout(() => instance.child.kill('SIGKILL'), this.spec.graceMs);
    instance.child.kill('SIGTERM');
    await instance.ended;
    clearTimeout(timer);
  }
}

/** `ended with exit code 1`, `was killed by SIGSEGV`. */
async function describeEnd(child: ChildProcess): Promise<string> {
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return signal === null ? `ended with exit code ${code}` : `was killed by ${signal}`;
  } catch (error) {
    return `did not start: ${error instanceof Error ? error.message : String(error)}`;
  }
}
