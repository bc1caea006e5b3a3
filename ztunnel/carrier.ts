import { parseCidr } from '#api/address.ts';
import { setRevoked } from '#certs/revoked.ts';
import { adopt } from './adopt.ts';
import { descriptorLimit } from './capture/native.ts';
import { OwnSockets, type OwnSocketsOptions } from './capture/own-sockets.ts';
import { Connections, concerns } from './connections.ts';
import { CONNECT_TIMEOUT_MS, type DataPath, type PodTarget, type ServedPod } from './data-path.ts';
import { createForwarder } from './dns/forward.ts';
import { lookUpHostname } from './dns/lookup.ts';
import { HandOverPort } from './hand-over/port.ts';
import { connectHop } from './hbone/client.ts';
import { FairShare } from './hbone/fair-share.ts';
import { excessBytes, whenExhausted } from './hbone/memory-budget.ts';
import { Pool } from './hbone/pool.ts';
import { KernelSplice } from './kernel-splice.ts';
import { limitSockets } from './limited-sockets.ts';
import { podLimits } from './limits.ts';
import { PodIndex } from './pod-index.ts';
import { PodListeners } from './pod-listeners.ts';
import { openPodSockets, type PodSockets, type PodSocketsOptions } from './pod-sockets.ts';
import { Rechecks } from './rechecks.ts';
import { Records } from './records.ts';
import { retireTunnels } from './resume/hold-tunnel.ts';
import { adoptOutbound } from './resume/outbound-tunnel.ts';
import { Retirement } from './retirement.ts';
import { Shedding } from './shedding.ts';
import { TableWaits } from './table-waits.ts';
import { createTables } from './tables/store.ts';
import { Turnstile } from './turnstile.ts';
import type { FromWorker, OpenedListeners, PodInfo, ToWorker, WorkerConfig } from './worker-messages.ts';
import { WorkerSvids } from './worker-svids.ts';

const PROGRESS_MS = 1_000;
/** How long the sessions of a pod that is released take new streams: until its clients know that it is. */
const RELEASE_MS = 5_000;
/** Who holds less than so much is not cut when memory has run out. */
const LEAST_CUT_BYTES = 256 * 1024;
const OUT_OF_MEMORY = { error: 'connection closed because memory ran out', flags: '-' } as const;
const DRAINED = { error: 'connection closed due to connection drain', flags: '-' } as const;
const REMOVED = { error: 'connection closed because the workload is gone', flags: '-' } as const;

export interface CarrierOptions {
  readonly config: WorkerConfig;
  readonly send: (message: FromWorker) => void;
  /** How a pod's sockets are made; default: in its namespace. */
  readonly openSockets?: (netnsFd: number) => PodSockets;
}

interface Served {
  readonly pod: ServedPod;
  readonly listeners: PodListeners;
}

/** Carries the bytes of the pods that it is told to serve. What runs in a byte worker, without the thread. */
export class Carrier {
  readonly #options: CarrierOptions;
  readonly #path: DataPath;
  readonly #own: OwnSockets;
  readonly #records: Records;
  readonly #rechecks: Rechecks;
  readonly #pods = new Map<string, Served>();
  /** This thread's share of a pod's sockets that wait at the main thread, by its uid. */
  readonly #parked = new Map<string, number>();
  readonly #progress: NodeJS.Timeout;
  #podsSoFar = 0;
  #isDraining = false;

  constructor(options: CarrierOptions) {
    this.#options = options;
    this.#own = new OwnSockets(bpfOf(options.config));
    this.#records = new Records((records) => options.send({ kind: 'records', records }));
    this.#path = openDataPath(options, this.#records, () => this.#rechecks.noteLostIdentity());
    whenExhausted(() => this.#freeMemory());
    this.#rechecks = new Rechecks(this.#path.connections);
    this.#progress = setInterval(() => this.#keepUp(), PROGRESS_MS).unref();
  }

  /** Memory for what waits has run out: those who hold most of it go. */
  #freeMemory(): void {
    const excess = excessBytes();
    if (excess === 0) return;
    const cut = this.#path.connections.cutLargest(excess, { least: LEAST_CUT_BYTES, failure: OUT_OF_MEMORY });
    for (const { connection, held } of cut) {
      const { podUid, source, destination } = connection.opening.info;
      const info = this.#pods.get(podUid)?.pod.info;
      const pod = info === undefined ? podUid : `${info.namespace}/${info.name}`;
      const error = `a connection from ${source} to ${destination} had ${held} bytes waiting for a slow reader`;
      this.#path.shedding.note('memory', pod, error);
    }
  }

  #keepUp(): void {
    this.#freeMemory();
    this.#path.connections.progress();
    try {
      this.#own.look();
    } catch {
      // Whoever adds a pod is told what is wrong with the maps.
    }
  }

  /** Lets go of the maps of the programs in the kernel. For a thread that ends alone: nothing else is done after it. */
  closeMaps(): void {
    this.#own.close();
    this.#path.kernelSplice.close();
  }

  /** Does what a message says. Requests are answered, also when they fail. */
  async handle(message: ToWorker): Promise<void> {
    switch (message.kind) {
      case 'tables':
        this.#path.tables.apply(message.update);
        this.#path.waits.notify();
        this.#rechecks.note(message.update);
        this.#watchSpliced();
        break;
      case 'svid':
        this.#path.svids.set(message.svid);
        break;
      case 'forget-identity':
        this.#path.svids.forget(message.identity);
        break;
      case 'revoked':
        setRevoked(message.list);
        this.#path.svids.noteRevoked();
        break;
      case 'settled':
        this.#path.handOver.settled(message.id, message.outcome);
        break;
      case 'claimed':
        this.#path.handOver.claimed(message.claim, message.answer);
        break;
      case 'parked':
        if (message.sockets === 0) this.#parked.delete(message.uid);
        else this.#parked.set(message.uid, message.sockets);
        break;
      case 'adopt':
        if (message.connection.kind === 'outbound-tunnel')
          await adoptOutbound(this.#path, message.connection);
        else await adopt(this.#path, message.connection);
        this.#path.handOver.decided(message.connection.id);
        break;
      case 'add-pod':
      case 'remove-pod':
      case 'drain':
      case 'list-connections':
        await this.#answer(message);
    }
  }

  async #answer(message: Extract<ToWorker, { readonly request: number }>): Promise<void> {
    const { request } = message;
    try {
      const value = await this.#serve(message);
      this.#records.flush();
      this.#options.send({ kind: 'done', request, value });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#options.send({ kind: 'done', request, error: text });
    }
  }

  async #serve(message: Extract<ToWorker, { readonly request: number }>): Promise<unknown> {
    switch (message.kind) {
      case 'add-pod':
        return this.#addPod(message);
      case 'remove-pod':
        await this.#removePod(message.uid, message.cut);
        return undefined;
      case 'drain':
        await this.#drain(message);
        return undefined;
      case 'list-connections':
        return this.#path.connections.list();
    }
  }

  #addPod({ pod: info, netnsFd, offered }: Extract<ToWorker, { readonly kind: 'add-pod' }>): OpenedListeners {
    const before = this.#pods.get(info.uid);
    before?.listeners.close();
    const { openSockets, config } = this.#options;
    const sockets =
      openSockets?.(netnsFd) ?? openPodSockets(netnsFd, egressOf(config), this.#socketsOf(info));
    const pod = this.#limited(info, sockets);
    const listeners = new PodListeners(this.#path, pod);
    const opened = listeners.open(netnsFd, offered);
    if (before !== undefined) this.#path.pods.remove(before.pod);
    this.#path.pods.add(pod);
    this.#pods.set(info.uid, { pod, listeners });
    this.#watchSpliced();
    return opened;
  }

  #limited(info: PodInfo, sockets: PodSockets): ServedPod {
    const { limits, shedding } = this.#path;
    const name = `${info.namespace}/${info.name}`;
    const share = new FairShare();
    const turns = (): Turnstile =>
      new Turnstile(limits.dials, () => {
        const error = `${limits.dials} connections of pod ${name} are being made, and none came about in time`;
        shedding.note('pod-dials', name, error);
      });
    return {
      info,
      id: `${info.uid} ${this.#podsSoFar++}`,
      share,
      sockets: limitSockets(sockets, {
        ...{ pod: name, most: limits.sockets, share, shedding },
        parked: () => this.#parked.get(info.uid) ?? 0,
      }),
      dials: { inbound: turns(), outbound: turns() },
    };
  }

  /** Which pods have asked for the kernel splice. When this process ends, they are left to its successor. */
  #watchSpliced(): void {
    const { tables, config, kernelSplice } = this.#path;
    if (this.#isDraining) return;
    const pods = new Map<bigint, boolean>();
    for (const { pod } of this.#pods.values()) {
      const { name, namespace, serviceAccount } = pod.info;
      const workload = tables.workloadByName(name, namespace, serviceAccount, config.node);
      if (pod.sockets.cookie !== undefined) pods.set(pod.sockets.cookie, workload?.splice === true);
    }
    kernelSplice.watch(pods);
  }

  #socketsOf({ namespace, name }: PodInfo): PodSocketsOptions {
    return { name: `pod ${namespace}/${name}`, own: this.#own };
  }

  /** Resolves when the last of its connections has ended. */
  async #removePod(uid: string, cut: boolean): Promise<void> {
    const served = this.#pods.get(uid);
    if (served === undefined) return;
    this.#pods.delete(uid);
    const { pod, listeners } = served;
    const { connections, pods } = this.#path;
    pods.remove(pod);
    this.#watchSpliced();
    listeners.close();
    if (cut) {
      connections.cut(({ opening }) => concerns(opening, pod), REMOVED);
      listeners.cutSessions('the workload is gone');
      this.#path.pool.release(pod.id);
      return;
    }
    const release = setTimeout(() => listeners.drainSessions(), RELEASE_MS);
    await connections.until(() => connections.countOf(pod) === 0 && listeners.isIdle);
    clearTimeout(release);
    this.#path.pool.release(pod.id);
  }

  async #drain({ deadlineMs, handOver }: Extract<ToWorker, { readonly kind: 'drain' }>): Promise<void> {
    const { connections, pool, pods, svids } = this.#path;
    this.#isDraining = true;
    const all = [...this.#pods.values()].map(({ listeners }) => listeners);
    this.#pods.clear();
    pods.clear();
    for (const listeners of all) {
      listeners.close();
      listeners.drainSessions();
    }
    if (handOver === true) {
      new Retirement(connections, this.#path.handOver);
      retireTunnels(this.#path, all);
    }
    const deadline = setTimeout(() => {
      connections.cut(() => true, DRAINED);
      for (const listeners of all) listeners.cutSessions('drained');
    }, deadlineMs);
    await connections.until(() => connections.size === 0 && all.every(({ isIdle }) => isIdle));
    clearTimeout(deadline);
    clearInterval(this.#progress);
    pool.close();
    svids.close();
  }
}

function openDataPath(
  { config, send }: CarrierOptions,
  records: Records,
  onIdentityLost: () => void,
): DataPath {
  const tables = createTables();
  const record: DataPath['record'] = (each) => records.add(each);
  const forwarder = createForwarder({
    nameServers: config.nameServers ?? [],
    ...(config.egressNetnsFd === undefined ? {} : { netnsFd: config.egressNetnsFd }),
  });
  return {
    config,
    tables,
    record,
    waits: new TableWaits(tables),
    svids: new WorkerSvids({
      ask: (identity) => send({ kind: 'need-svid', identity }),
      onLost: onIdentityLost,
    }),
    connections: new Connections(records),
    pods: new PodIndex(),
    kernelSplice: new KernelSplice(config.bpf?.directory),
    handOver: new HandOverPort(send),
    limits: config.limits ?? podLimits(Number(descriptorLimit()), 1),
    shedding: new Shedding((reports) => send({ kind: 'shed', reports })),
    pool: openPool(config),
    resolveHostname: (hostname) => lookUpHostname(forwarder, hostname).catch(() => []),
  };
}

function openPool({ hbone }: WorkerConfig): Pool<PodTarget> {
  return new Pool<PodTarget>({
    maxStreams: hbone.maxStreamsPerConnection,
    idleMs: hbone.poolIdleMs,
    connect: ({ hop, svid, expected, sockets }, onClose) =>
      connectHop({
        hop,
        svid,
        expected,
        dial: (to) => sockets.dialOutside(to),
        settings: hbone,
        timeoutMs: CONNECT_TIMEOUT_MS,
        onClose,
      }),
  });
}

function bpfOf({ bpf, index }: WorkerConfig): OwnSocketsOptions {
  return bpf === undefined ? {} : { directory: bpf.directory, worker: { index, count: bpf.workers } };
}

function egressOf({ egressNetnsFd, fabricCidrs }: WorkerConfig): Parameters<typeof openPodSockets>[1] {
  const fabric = fabricCidrs.map(parseCidr);
  return egressNetnsFd === undefined ? { fabric } : { netnsFd: egressNetnsFd, fabric };
}
