import type { Logger } from 'pino';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type ResourceUpdate } from '#api/resource.ts';
import type { RevocationList } from '#certs/revoked.ts';
import type { Svid } from '#certs/svid.ts';
import type { AccessRecord } from './access-log.ts';
import { ByteWorker, type Entrusted, WorkerError, type WorkerNotice } from './byte-worker.ts';
import type { ConnectionInfo } from './connection-record.ts';
import type { CarriedConnection } from './hand-over/carried.ts';
import { shareOf } from './hand-over/offer.ts';
import type { OfferedSockets } from './hand-over/take.ts';
import type { ShedReport } from './shedding.ts';
import type { Tables } from './tables/tables.ts';
import type { FromWorker, OpenedListeners, PodInfo, WorkerConfig } from './worker-messages.ts';

/** What a worker says of connections that change hands. */
export type HandOverNotice = Extract<
  FromWorker,
  { readonly kind: 'carried' | 'park' | 'claim' | 'decided' | 'hand-over' }
>;

export interface WorkersOptions {
  readonly count: number;
  readonly config: Omit<WorkerConfig, 'index'>;
  /** What a worker is told that starts later than the others. */
  readonly tables: Tables;
  readonly svids: () => readonly Svid[];
  readonly onRecords: (worker: number, records: readonly AccessRecord[]) => void;
  readonly onNeedSvid: (identity: string) => void;
  readonly onShed: (reports: readonly ShedReport[]) => void;
  /** A connection is given up, wanted or settled. */
  readonly onHandOver: (worker: number, notice: HandOverNotice) => void;
  /** A worker has ended without being told to, and is being replaced. */
  readonly onCrash: (worker: number) => void;
  readonly logger: Logger;
  /** The threads' module; default `worker.ts`. */
  readonly url?: URL;
}

/** The threads that carry bytes. All know the same and serve the same pods; one that crashes is replaced. */
export interface Workers {
  readonly apply: (update: ResourceUpdate) => void;
  readonly setSvid: (svid: Svid) => void;
  readonly forgetIdentity: (identity: string) => void;
  /** What holds from now on. */
  readonly setRevoked: (list: RevocationList) => void;
  /**
   * Opens a pod's listeners in every worker. The descriptor stays the caller's and has to stay open until
   * {@link Workers.removePod} resolves. Sockets that another process offers are shared out among the workers, every one to
   * somebody; a worker for which there is none makes its own.
   * @returns why sockets that were offered have not been taken
   * @throws WorkerError when one of them cannot; then none serves it.
   */
  readonly addPod: (pod: PodInfo, netnsFd: number, offered?: OfferedSockets) => Promise<readonly string[]>;
  /** Descriptors of the listening sockets of a pod, in all workers; they stay the workers'. */
  readonly listening: (uid: string) => readonly number[];
  /** Closes its listeners; resolves when the last of its connections has ended. */
  readonly removePod: (uid: string) => Promise<void>;
  readonly connections: () => Promise<readonly ConnectionInfo[]>;
  /** Whether every worker has started. */
  readonly areReady: () => boolean;
  /** Tells one worker what has come of a connection; `onLost`: it is gone, or goes before it has heard. */
  readonly tell: (worker: number, notice: Entrusted, onLost: () => void) => void;
  /** So many sockets of a pod wait at the main thread: has them count for it. */
  readonly parked: (uid: string, sockets: number) => void;
  /** Has some worker take up a connection, each at its turn; false: there is none. `onLost`: it has gone before it had it. */
  readonly adopt: (connection: CarriedConnection, onLost: () => void) => boolean;
  /**
   * Takes no new connections, ends the threads when the last has ended or been given up to a successor (`handOver`), at the
   * latest after that time.
   */
  readonly drain: (deadlineMs: number, handOver?: boolean) => Promise<void>;
}

interface Served {
  readonly pod: PodInfo;
  readonly netnsFd: number;
  /** Descriptors of its listening sockets, by worker. */
  readonly listening: Map<number, readonly number[]>;
}

const RETRY_MS = 5000;
const FIRST_RESTART_MS = 50;
const LONGEST_RESTART_MS = 5000;
/** Uptime after which the next crash is taken for a first one. */
const STEADY_MS = 60_000;
/** What a worker may take beyond its deadline before it is ended from outside. */
const DRAIN_GRACE_MS = 1000;

/** Starts the threads. */
export function startWorkers(options: WorkersOptions): Workers {
  return new WorkerSet(options);
}

class WorkerSet implements Workers {
  readonly #options: WorkersOptions;
  readonly #workers = new Map<number, ByteWorker>();
  readonly #ready = new Set<number>();
  readonly #pods = new Map<string, Served>();
  readonly #restartMs = new Map<number, number>();
  /** Each worker's share of them, by the pod's uid. */
  readonly #parked = new Map<string, number>();
  #isDraining = false;
  #adopted = 0;
  #revoked: RevocationList | undefined;

  constructor(options: WorkersOptions) {
    this.#options = options;
    for (let index = 0; index < options.count; index += 1) this.#start(index);
  }

  apply(update: ResourceUpdate): void {
    this.#tellAll({ kind: 'tables', update });
  }

  setSvid(svid: Svid): void {
    this.#tellAll({ kind: 'svid', svid });
  }

  forgetIdentity(identity: string): void {
    this.#tellAll({ kind: 'forget-identity', identity });
  }

  setRevoked(list: RevocationList): void {
    this.#revoked = list;
    this.#tellAll({ kind: 'revoked', list });
  }

  async addPod(pod: PodInfo, netnsFd: number, offered?: OfferedSockets): Promise<readonly string[]> {
    const served = { pod, netnsFd, listening: new Map<number, readonly number[]>() };
    this.#pods.set(pod.uid, served);
    // One that is being replaced cannot take its share.
    const workers = [...this.#workers.values()];
    const results = await Promise.allSettled(
      workers.map((worker, at) =>
        openIn(
          worker,
          served,
          offered && { ...offered, sockets: shareOf(offered.sockets, at, workers.length) },
        ),
      ),
    );
    const failed = results.find(isRefusal);
    if (failed === undefined) {
      return results.flatMap((result) => (result.status === 'fulfilled' ? result.value : []));
    }
    await this.#endPod(pod.uid, true);
    throw failed.reason;
  }

  listening(uid: string): readonly number[] {
    return [...(this.#pods.get(uid)?.listening.values() ?? [])].flat();
  }

  async removePod(uid: string): Promise<void> {
    await this.#endPod(uid, false);
  }

  async connections(): Promise<readonly ConnectionInfo[]> {
    const answers = [...this.#workers.values()].map((worker) => worker.request({ kind: 'list-connections' }));
    const lists = await Promise.allSettled(answers);
    return lists.flatMap((list) =>
      list.status === 'fulfilled' ? (list.value as readonly ConnectionInfo[]) : [],
    );
  }

  areReady(): boolean {
    return this.#ready.size === this.#options.count;
  }

  tell(index: number, notice: Entrusted, onLost: () => void): void {
    const worker = this.#workers.get(index);
    if (worker === undefined) onLost();
    else worker.entrust(notice, onLost);
  }

  parked(uid: string, sockets: number): void {
    const share = Math.ceil(sockets / this.#options.count);
    if (share === (this.#parked.get(uid) ?? 0)) return;
    if (share === 0) this.#parked.delete(uid);
    else this.#parked.set(uid, share);
    this.#tellAll({ kind: 'parked', uid, sockets: share });
  }

  adopt(connection: CarriedConnection, onLost: () => void): boolean {
    const workers = [...this.#workers.values()];
    const worker = workers[this.#adopted++ % workers.length];
    worker?.entrust({ kind: 'adopt', connection }, onLost);
    return worker !== undefined;
  }

  async drain(deadlineMs: number, handOver = false): Promise<void> {
    this.#isDraining = true;
    for (const { listening } of this.#pods.values()) listening.clear();
    await Promise.all([...this.#workers.values()].map((worker) => drainOne(worker, deadlineMs, handOver)));
  }

  #start(index: number): void {
    const { options, startedMs } = { options: this.#options, startedMs: performance.now() };
    const worker = new ByteWorker({
      url: options.url ?? new URL('./worker.ts', import.meta.url),
      config: { ...options.config, index },
      onNotice: (notice) => {
        if (notice.kind === 'ready') this.#ready.add(index);
        else if (notice.kind === 'records') options.onRecords(index, notice.records);
        else if (notice.kind === 'need-svid') options.onNeedSvid(notice.identity);
        else if (notice.kind === 'shed') options.onShed(notice.reports);
        else options.onHandOver(index, notice);
      },
      onEnd: (error) => this.#ended(index, error, performance.now() - startedMs),
    });
    this.#workers.set(index, worker);
    if (this.#revoked !== undefined) worker.notify({ kind: 'revoked', list: this.#revoked });
    for (const notice of stateOf(options)) worker.notify(notice);
    for (const [uid, sockets] of this.#parked) worker.notify({ kind: 'parked', uid, sockets });
    for (const served of this.#pods.values()) this.#reopen(worker, served);
  }

  #ended(index: number, error: Error | undefined, uptimeMs: number): void {
    this.#workers.delete(index);
    this.#ready.delete(index);
    for (const { listening } of this.#pods.values()) listening.delete(index);
    if (this.#isDraining) return;
    const known = uptimeMs > STEADY_MS ? undefined : this.#restartMs.get(index);
    const restartMs = known ?? FIRST_RESTART_MS;
    this.#restartMs.set(index, Math.min(restartMs * 2, LONGEST_RESTART_MS));
    const fields = { worker: index, error: error?.stack ?? 'it ended', restart_ms: restartMs };
    this.#options.logger.error(fields, 'byte worker crashed, replacing it');
    this.#options.onCrash(index);
    setTimeout(() => {
      if (!this.#isDraining) this.#start(index);
    }, restartMs);
  }

  /** For a worker that replaces another: what fails is tried again, as the pod is served by the others. */
  #reopen(worker: ByteWorker, served: Served): void {
    const { pod } = served;
    openIn(worker, served).catch((error: unknown) => {
      if (!(error instanceof WorkerError) || error.code === 'GONE') return;
      this.#options.logger.warn(
        { worker: worker.index, uid: pod.uid, error: error.message },
        'pod not served yet',
      );
      setTimeout(() => {
        if (this.#pods.get(pod.uid) === served) this.#reopen(worker, served);
      }, RETRY_MS).unref();
    });
  }

  async #endPod(uid: string, cut: boolean): Promise<void> {
    this.#pods.delete(uid);
    const ended = [...this.#workers.values()].map((worker) =>
      worker.request({ kind: 'remove-pod', uid, cut }),
    );
    await Promise.allSettled(ended);
  }

  #tellAll(notice: WorkerNotice): void {
    for (const worker of this.#workers.values()) worker.notify(notice);
  }
}

/** Everything that a worker has to know, policies before the workloads that name them. */
function stateOf({ tables, svids }: WorkersOptions): readonly WorkerNotice[] {
  const policies = { type: AUTHORIZATION_TYPE, updated: [...tables.policies()], removed: [] };
  const addresses = {
    type: ADDRESS_TYPE,
    updated: [...tables.services(), ...tables.workloads()],
    removed: [],
  };
  return [
    ...(tables.synced('authorizations') ? [{ kind: 'tables', update: policies } as const] : []),
    ...(tables.synced('addresses') ? [{ kind: 'tables', update: addresses } as const] : []),
    ...svids().map((svid) => ({ kind: 'svid', svid }) as const),
  ];
}

/** Has a worker serve a pod, and notes its sockets; why some of those offered have been left. @throws WorkerError */
async function openIn(
  worker: ByteWorker,
  { pod, netnsFd, listening }: Served,
  offered?: OfferedSockets,
): Promise<readonly string[]> {
  const message = { kind: 'add-pod', pod, netnsFd, ...(offered !== undefined && { offered }) } as const;
  const { descriptors, left } = (await worker.request(message)) as OpenedListeners;
  listening.set(worker.index, descriptors);
  return left;
}

async function drainOne(worker: ByteWorker, deadlineMs: number, handOver: boolean): Promise<void> {
  const late = AbortSignal.timeout(deadlineMs + DRAIN_GRACE_MS);
  const { promise: tooLate, resolve } = Promise.withResolvers<void>();
  late.addEventListener('abort', () => resolve());
  await Promise.race([
    worker.request({ kind: 'drain', deadlineMs, handOver }).catch(() => undefined),
    tooLate,
  ]);
  await worker.terminate();
}

/** A worker that is gone is replaced, and its successor serves the pod: no failure. */
function isRefusal(result: PromiseSettledResult<unknown>): result is PromiseRejectedResult {
  return (
    result.status === 'rejected' && !(result.reason instanceof WorkerError && result.reason.code === 'GONE')
  );
}
