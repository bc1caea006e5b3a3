import { Worker } from 'node:worker_threads';
import type { FromWorker, ToWorker, WorkerConfig } from './worker-messages.ts';

/** A request without its number: which is given here. */
export type WorkerRequest = ToWorker extends infer Message
  ? Message extends { readonly request: number }
    ? Omit<Message, 'request'>
    : never
  : never;

/** A message that is not answered. */
export type WorkerNotice = Exclude<ToWorker, { readonly request: number }>;

/** One that carries descriptors. */
export type Entrusted = Extract<ToWorker, { readonly entrusted?: number }>;

export interface ByteWorkerOptions {
  /** The thread's module. */
  readonly url: URL;
  readonly config: WorkerConfig;
  readonly onNotice: (notice: Exclude<FromWorker, { readonly kind: 'done' | 'has' }>) => void;
  /** The thread has ended, with what it threw, if it did. Called once. */
  readonly onEnd: (error: Error | undefined) => void;
}

/** Thrown to those who wait for an answer of a worker: the worker said no, or it is gone. */
export class WorkerError extends Error {
  override readonly name = 'WorkerError';
  readonly code: 'REFUSED' | 'GONE';

  constructor(message: string, code: WorkerError['code']) {
    super(message);
    this.code = code;
  }
}

/** One thread that carries bytes. Messages may be sent at once: it takes them in order when it has started. */
export class ByteWorker {
  readonly index: number;
  readonly #thread: Worker;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  /** What to do with what it has been sent and does not have yet, when it crashes. */
  readonly #entrusted = new Map<number, () => void>();
  #requests = 0;
  #entrustments = 0;
  #hasEnded = false;
  #error: Error | undefined;

  constructor(options: ByteWorkerOptions) {
    this.index = options.config.index;
    this.#thread = new Worker(options.url, {
      workerData: options.config,
      name: `bytes-${options.config.index}`,
    });
    this.#thread.on('message', (message: FromWorker) => {
      if (message.kind === 'done') this.#settle(message);
      else if (message.kind === 'has') this.#entrusted.delete(message.entrusted);
      else options.onNotice(message);
    });
    this.#thread.on('error', (error) => {
      this.#error = error instanceof Error ? error : new Error(String(error));
    });
    this.#thread.on('exit', () => {
      this.#hasEnded = true;
      for (const { reject } of this.#waiting.values()) reject(this.#goneError());
      this.#waiting.clear();
      options.onEnd(this.#error);
      for (const onLost of this.#entrusted.values()) onLost();
    });
  }

  /** Tells it something. */
  notify(message: WorkerNotice): void {
    this.#thread.postMessage(message);
  }

  /** Gives it descriptors. @param onLost it has ended without having them: they are the callee's */
  entrust(message: Entrusted, onLost: () => void): void {
    this.#entrustments += 1;
    this.#entrusted.set(this.#entrustments, onLost);
    this.#thread.postMessage({ ...message, entrusted: this.#entrustments });
  }

  /**
   * Asks it for something; the value that it answers with.
   * @throws WorkerError
   */
  async request(message: WorkerRequest): Promise<unknown> {
    if (this.#hasEnded) throw this.#goneError();
    const request = this.#requests;
    this.#requests += 1;
    const waiter = Promise.withResolvers<unknown>();
    this.#waiting.set(request, waiter);
    this.#thread.postMessage({ ...message, request });
    return waiter.promise;
  }

  /** Ends the thread and all its connections. */
  async terminate(): Promise<void> {
    await this.#thread.terminate();
  }

  #settle({ request, error, value }: Extract<FromWorker, { readonly kind: 'done' }>): void {
    const waiter = this.#waiting.get(request);
    this.#waiting.delete(request);
    if (error === undefined) waiter?.resolve(value);
    else waiter?.reject(new WorkerError(error, 'REFUSED'));
  }

  #goneError(): WorkerError {
    return new WorkerError(`worker ${this.index} is gone`, 'GONE');
  }
}
