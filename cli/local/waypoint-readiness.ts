import type { ProcessId } from './process-id.ts';
import type { SupervisedProcess } from './supervised-process.ts';

const EAGER_MS = 100;
const STEADY_MS = 500;
/** Times in a row that a process which was ready has to say otherwise, or nothing: one busy moment is no outage. */
const MISSES = 3;

/** Asks a process again and again whether it is ready, and says when that changes; at once when it has ended. */
export class ReadinessWatch {
  readonly #process: SupervisedProcess;
  readonly #onChange: (process: ProcessId | undefined, ready: boolean) => void;
  #timer: NodeJS.Timeout | undefined;
  #isReady = false;
  #misses = 0;
  #isPaused = false;
  #isClosed = false;

  /** Begins at once. Ended by {@link close}. `onChange` gets the running process, if one runs. */
  constructor(
    process: SupervisedProcess,
    onChange: (process: ProcessId | undefined, ready: boolean) => void,
  ) {
    this.#process = process;
    this.#onChange = onChange;
    this.look();
  }

  /** Asks now. */
  look(): void {
    clearTimeout(this.#timer);
    if (this.#isPaused || this.#isClosed) return;
    if (this.#process.process === undefined) this.#say(false);
    void this.#ask();
  }

  /** Says nothing until {@link resume}. */
  pause(): void {
    this.#isPaused = true;
    clearTimeout(this.#timer);
  }

  resume(): void {
    this.#isPaused = false;
    this.#isReady = false;
    this.look();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  async #ask(): Promise<void> {
    const ready = await this.#process.isReady();
    if (this.#isPaused || this.#isClosed) return;
    this.#misses = ready ? 0 : this.#misses + 1;
    const runs = this.#process.process !== undefined;
    this.#say(runs && (ready || (this.#isReady && this.#misses < MISSES)));
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.look(), this.#isReady ? STEADY_MS : EAGER_MS);
  }

  #say(ready: boolean): void {
    this.#isReady = ready;
    this.#onChange(this.#process.process, ready);
  }
}
