/**
 * Waits for the first list of who is revoked. Nobody is served before it has come: who was revoked while a process was away
 * would be let in until then. A control plane that has none says so; one of another make may say nothing at all, so that it is
 * waited for `graceMs` and no longer once everything else has come, as long as the control plane is there. While it is away, for ever.
 */
export class FirstRevocations {
  readonly #graceMs: number;
  readonly #onOver: (isKnown: boolean) => void;
  #isOver = false;
  #isConnected = false;
  #hasRest = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param onOver once; `isKnown`: the list is there, or it is known that there is none */
  constructor(graceMs: number, onOver: (isKnown: boolean) => void) {
    this.#graceMs = graceMs;
    this.#onOver = onOver;
  }

  /** Whether nothing is waited for any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** The list has come, or the control plane has said that it has none. */
  told(): void {
    this.#end(true);
  }

  /** Everything else has come. */
  hasRest(): void {
    this.#hasRest = true;
    this.#wait();
  }

  /** The control plane is there, or not. */
  setConnected(isConnected: boolean): void {
    this.#isConnected = isConnected;
    this.#wait();
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #wait(): void {
    if (this.#isOver) return;
    if (!this.#isConnected || !this.#hasRest) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      return;
    }
    this.#timer ??= setTimeout(() => this.#end(false), this.#graceMs);
  }

  #end(isKnown: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#onOver(isKnown);
  }
}

/** For a control plane of another make. */
export const REVOCATIONS_GRACE_MS: number = 5000;
