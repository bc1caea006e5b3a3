/** What there was too little of, or what a pod or peer had too much of. */
export const SHORTAGES = [
  'descriptors',
  'ports',
  'memory',
  'pod-sockets',
  'pod-dials',
  'pod-handshakes',
  'peer-handshakes',
  'peer-sessions',
] as const;
export type Shortage = (typeof SHORTAGES)[number];

/** How often something was refused or given up for want of something, since the last report. */
export interface ShedReport {
  readonly shortage: Shortage;
  /** `namespace/name`, whose connections they were. */
  readonly pod: string;
  readonly count: number;
  /** The last one's reason, for people. */
  readonly error: string;
}

/** How often what is shed is told; under an attack it happens thousands of times a second. */
const REPORT_MS = 1_000;

interface Tally {
  readonly shortage: Shortage;
  readonly pod: string;
  count: number;
  error: string;
}

/** Counts what a worker refuses for want of something, and tells it once a second. */
export class Shedding {
  readonly #send: (reports: readonly ShedReport[]) => void;
  readonly #tallies = new Map<string, Tally>();
  #timer: NodeJS.Timeout | undefined;
  #isSettling = false;

  constructor(send: (reports: readonly ShedReport[]) => void) {
    this.#send = send;
  }

  /** The first is told at once. */
  note(shortage: Shortage, pod: string, error: string): void {
    const key = `${shortage} ${pod}`;
    const tally = this.#tallies.get(key) ?? { shortage, pod, count: 0, error };
    tally.count += 1;
    tally.error = error;
    this.#tallies.set(key, tally);
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.#report(), this.#isSettling ? REPORT_MS : 0).unref();
  }

  #report(): void {
    this.#timer = undefined;
    const reports = [...this.#tallies.values()];
    this.#tallies.clear();
    this.#isSettling = true;
    setTimeout(() => {
      this.#isSettling = false;
    }, REPORT_MS).unref();
    this.#send(reports);
  }
}
