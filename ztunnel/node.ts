import type { Logger } from 'pino';
import type { HostPort } from '#api/address.ts';
import type { ResourceUpdate } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import { FirstRevocations, REVOCATIONS_GRACE_MS } from '#certs/first-revocations.ts';
import { formatIdentity, type Identity, parseIdentity } from '#certs/identity.ts';
import { type RevocationList, setRevoked } from '#certs/revoked.ts';
import type { SignerClient } from '#certs/signer-client.ts';
import { createSvidManager, type SvidManager } from '#certs/svid-manager.ts';
import type { AccessRecord } from './access-log.ts';
import { formatAccessRecord } from './access-log-format.ts';
import { type AccessLogWriter, createAccessLogWriter } from './access-log-writer.ts';
import type { AwaitedClient } from './awaited-client.ts';
import { descriptorLimit } from './capture/native.ts';
import { OwnSockets } from './capture/own-sockets.ts';
import type { ZtunnelConfig } from './config.ts';
import { dumpConfig } from './config-dump.ts';
import { createForwarder } from './dns/forward.ts';
import type { Predecessor } from './hand-over/predecessor.ts';
import {
  createMemoryBudget,
  forgetWorkerMemory,
  type MemoryBudget,
  shareMemoryBudget,
  usedBytes,
} from './hbone/memory-budget.ts';
import { podLimits } from './limits.ts';
import { LocalIdentities } from './local-identities.ts';
import { createMetrics, type ZtunnelMetrics } from './metrics.ts';
import { MissingPolicyReport } from './missing-policies.ts';
import { NodeHandOver } from './node-hand-over.ts';
import { type PodDnsOptions, systemNameServers } from './pod-dns.ts';
import type { ReadinessFacts } from './readiness.ts';
import { ServedPods } from './served-pods.ts';
import { Shortages } from './shortages.ts';
import { TableWaits } from './table-waits.ts';
import { createTables } from './tables/store.ts';
import type { MutableTables, Tables } from './tables/tables.ts';
import type { PodInfo } from './worker-messages.ts';
import { startWorkers, type Workers } from './workers.ts';

export interface NodeOptions {
  readonly config: ZtunnelConfig;
  readonly version: string;
  /** Certifies the node's identities; stays the caller's. */
  readonly signer: SignerClient;
  /** Namespace from which connections that leave the mesh are dialled; stays the caller's. */
  readonly egressNetnsFd: number | undefined;
  /** The ztunnel that this one replaces; stays the caller's. */
  readonly predecessor?: Predecessor | undefined;
  readonly logger: Logger;
}

/** Of the memory for what waits, so much again may wait with connections that are being handed over. */
const PARKED_SHARE = 1 / 4;
/** Has the records of connections that no worker had in the end. */
const NO_WORKER = -1;
/** How long a connection's certificate may take before nobody waits for it any more. */
const SVID_PATIENCE_MS = 5000;

/**
 * A ztunnel's main thread: what it believes, whose certificates it keeps, which pods it serves, and the workers that it
 * tells of all that. Whoever made it disposes of it, after a drain.
 */
export class Node {
  readonly tables: MutableTables = createTables();
  readonly #waits = new TableWaits(this.tables);
  readonly metrics: ZtunnelMetrics;
  readonly pods: ServedPods;
  readonly svids: SvidManager;
  readonly workers: Workers;
  readonly accessLog: AccessLogWriter;
  readonly handOver: NodeHandOver;
  readonly shortages: Shortages;
  readonly #options: NodeOptions;
  readonly #identities: LocalIdentities;
  readonly #nameServers: readonly HostPort[];
  readonly #missing: MissingPolicyReport;
  readonly #memory: MemoryBudget;
  readonly #synced = Promise.withResolvers<void>();
  readonly #revocations: FirstRevocations;
  #podsKnown = false;
  #isDraining = false;

  constructor(options: NodeOptions) {
    const { config, logger } = options;
    this.#options = options;
    this.#nameServers = config.dns.nameServers ?? systemNameServers();
    this.#revocations = new FirstRevocations(REVOCATIONS_GRACE_MS, (isKnown) => {
      if (!isKnown)
        logger.warn({ waited_ms: REVOCATIONS_GRACE_MS }, 'control plane does not say who is revoked');
      this.#resolveIfSynced();
    });
    this.#memory = createMemoryBudget(config.memoryBytes, config.workers);
    shareMemoryBudget(this.#memory);
    this.svids = this.#createSvidManager();
    this.#identities = new LocalIdentities({
      tables: this.tables,
      node: config.node,
      onWanted: (identity) => this.svids.want(identity),
      onForgotten: (identity) => {
        this.svids.forget(identity);
        this.workers.forgetIdentity(formatIdentity(identity));
      },
    });
    this.#missing = new MissingPolicyReport(this.tables, this.#identities, config.missingPolicy, logger);
    this.metrics = createMetrics({
      version: options.version,
      podCounts: () => this.pods.counts(),
      missingPolicies: () => this.#missing.count(),
      memory: { budgetBytes: config.memoryBytes, usedBytes },
    });
    this.accessLog = createAccessLogWriter({
      ...(config.accessLog !== undefined && { path: config.accessLog }),
      onDropped: (lines, reason) => {
        this.metrics.accessLogDropped(lines);
        logger.error({ lines, reason, path: config.accessLog }, 'access log lines lost');
      },
    });
    this.shortages = new Shortages(logger, this.metrics.shed);
    this.handOver = new NodeHandOver({
      workers: () => this.workers,
      whyNot: (podUid) => this.pods.whyNotServed(podUid),
      onRecords: (records) => this.#record(NO_WORKER, records),
      count: this.metrics.handedOver,
      parkedBytes: config.memoryBytes * PARKED_SHARE,
      logger,
    });
    this.workers = this.#startWorkers();
    this.pods = this.#createPods();
  }

  /** Takes what the control plane says, and tells it on. */
  apply(update: ResourceUpdate): void {
    this.tables.apply(update);
    this.#waits.notify();
    this.workers.apply(update);
    this.#identities.afterUpdate(update);
    this.#missing.afterUpdate();
    if (this.#isSynced()) this.#revocations.hasRest();
    this.#resolveIfSynced();
  }

  /** Takes the list of those who may not be peers any more; who is on it by a certificate alone gets another. */
  setRevoked(list: RevocationList | undefined): void {
    if (list !== undefined) {
      setRevoked(list);
      this.workers.setRevoked(list);
      this.svids.replaceRevoked();
    }
    this.#revocations.told();
  }

  /** Whether the control plane is there. */
  setConnected(isConnected: boolean): void {
    this.#revocations.setConnected(isConnected);
  }

  /** Resolves when everything has been said once. */
  async untilSynced(): Promise<void> {
    await this.#synced.promise;
  }

  /** Whether the node agent is there and has named its pods. */
  setPodsKnown(known: boolean): void {
    this.#podsKnown = known;
  }

  readiness(): ReadinessFacts {
    return {
      tablesSynced: this.#isSynced(),
      revocationsKnown: this.#revocations.isOver,
      workersReady: this.workers.areReady(),
      podsKnown: this.#podsKnown,
      podsPending: this.pods.counts().pending,
      draining: this.#isDraining,
    };
  }

  async configDump(): Promise<object> {
    const { config, version } = this.#options;
    return dumpConfig({
      config,
      version,
      tables: this.tables,
      certificates: this.svids.list(),
      pods: this.pods.states(),
      connections: await this.workers.connections(),
      missingPolicies: this.#missing.list(),
    });
  }

  /** Takes no new connections; resolves when the last has ended, at the latest after the configured time. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    const handOver = this.handOver.retire();
    await Promise.all([this.workers.drain(this.#options.config.drainMs, handOver), this.pods.drain()]);
    await this.handOver.untilMoved();
    this.handOver.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDraining = true;
    this.svids.close();
    await this.workers.drain(0, false);
    this.handOver.close();
    this.#revocations.close();
    await this.accessLog.close();
  }

  #resolveIfSynced(): void {
    if (this.#isSynced() && this.#revocations.isOver) this.#synced.resolve();
  }

  #isSynced(): boolean {
    return this.tables.synced('addresses') && this.tables.synced('authorizations');
  }

  #createSvidManager(): SvidManager {
    const { signer, config, logger } = this.#options;
    return createSvidManager({
      request: (identity, signal) => signer.requestSvid(identity, config.secretTtlMs / 1000, signal),
      onSvid: (svid) => {
        this.workers.setSvid(svid);
        const { identity, serial, notAfterMs } = svid;
        const fields = { identity: formatIdentity(identity), serial, not_after: new Date(notAfterMs) };
        logger.info(fields, 'certificate received');
      },
      onError: (identity, error, retryInMs) => {
        this.metrics.certificateFailed();
        const fields = { identity: formatIdentity(identity), error: error.message, retry_ms: retryInMs };
        logger.warn(fields, 'certificate not received');
      },
    });
  }

  #startWorkers(): Workers {
    const { config, egressNetnsFd, logger } = this.#options;
    const { node, network, clusterId, clusterDomain, missingPolicy, fabricCidrs, originalSource, hbone } =
      config;
    const { bpfDirectory } = config;
    return startWorkers({
      count: config.workers,
      config: {
        ...{ node, network, clusterId, clusterDomain, missingPolicy, fabricCidrs, originalSource, hbone },
        ...(egressNetnsFd !== undefined && { egressNetnsFd }),
        ...(bpfDirectory !== undefined && { bpf: { directory: bpfDirectory, workers: config.workers } }),
        nameServers: this.#nameServers,
        memory: this.#memory,
        limits: podLimits(Number(descriptorLimit()), config.workers),
      },
      tables: this.tables,
      svids: () => this.svids.list().flatMap(({ identity }) => this.svids.get(identity) ?? []),
      onRecords: (worker, records) => this.#record(worker, records),
      onNeedSvid: (identity) => this.#provideSvid(identity),
      onHandOver: (worker, notice) => this.handOver.hear(worker, notice),
      onShed: (reports) => this.shortages.note(reports),
      onCrash: (worker) => {
        forgetWorkerMemory(this.#memory, worker);
        this.metrics.workerEnded(worker, true);
        this.handOver.workerCrashed(worker);
      },
      logger,
    });
  }

  #createPods(): ServedPods {
    const { predecessor } = this.#options;
    const dns = this.#options.config.dns.enabled ? this.#dnsOptions() : undefined;
    return new ServedPods({
      workers: this.workers,
      identities: this.#identities,
      ...(dns !== undefined && { dns }),
      ...(predecessor !== undefined && { predecessor }),
      clientOf: (pod) => this.#clientOf(pod),
      onStarted: this.metrics.podStarted,
      onStopped: this.metrics.podStopped,
      logger: this.#options.logger,
    });
  }

  #clientOf({ name, namespace, serviceAccount }: PodInfo): AwaitedClient {
    const find = (tables: Tables): Workload | undefined =>
      tables.workloadByName(name, namespace, serviceAccount, this.#options.config.node);
    return {
      now: () => find(this.tables),
      until: (timeoutMs) => this.#waits.until(find, timeoutMs),
    };
  }

  #dnsOptions(): PodDnsOptions {
    const { config, egressNetnsFd, logger } = this.#options;
    const { network, clusterDomain, ipv6, dns, bpfDirectory } = config;
    const nameServers = this.#nameServers;
    const own = new OwnSockets(bpfDirectory === undefined ? {} : { directory: bpfDirectory });
    return {
      ...{ tables: this.tables, network, clusterDomain, ipv6, nameServers },
      ownsClusterDomain: dns.ownsClusterDomain,
      ...(dns.preferredNamespace !== undefined && { preferredNamespace: dns.preferredNamespace }),
      ...(egressNetnsFd !== undefined && {
        egressForwarder: createForwarder({ nameServers, netnsFd: egressNetnsFd }),
      }),
      tag: (fd) => {
        own.look(); // maps may have come since
        own.tag(fd);
      },
      onQuery: (report, client) => {
        const { canonicalName: name = '', canonicalRevision: revision = '' } = client ?? {};
        this.metrics.dnsQuery(report, { name, revision });
        logger.debug({ ...report, client: client?.uid }, 'dns query');
      },
      logger,
    };
  }

  #record(worker: number, records: readonly AccessRecord[]): void {
    this.metrics.records(worker, records);
    this.accessLog.write(records.flatMap((record) => formatAccessRecord(record) ?? []));
  }

  /** A connection waits for it: one that is here is sent, one that is on its way is hurried. */
  #provideSvid(text: string): void {
    let identity: Identity;
    try {
      identity = parseIdentity(text);
    } catch (error) {
      this.#options.logger.warn({ identity: text, error: String(error) }, 'a workload has no valid identity');
      return;
    }
    const svid = this.svids.get(identity);
    if (svid !== undefined) this.workers.setSvid(svid);
    else
      this.svids.waitFor(identity, SVID_PATIENCE_MS).catch((error: unknown) => {
        this.#options.logger.debug(
          { identity: text, error: String(error) },
          'no certificate for a connection',
        );
      });
  }
}
