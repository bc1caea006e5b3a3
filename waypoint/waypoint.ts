import { X509Certificate } from 'node:crypto';
import type { Logger } from 'pino';
import { formatHostPort, type HostPort } from '#api/address.ts';
import { LISTENER_TYPE } from '#api/envoy/types.ts';
import type { WaypointUpdate } from '#api/envoy-client.ts';
import type { RejectedResource } from '#api/held-versions.ts';
import { AUTHORIZATION_TYPE } from '#api/resource.ts';
import { FirstRevocations, REVOCATIONS_GRACE_MS } from '#certs/first-revocations.ts';
import { formatIdentity, type Identity } from '#certs/identity.ts';
import { splitPem } from '#certs/pem.ts';
import type { SignerClient } from '#certs/signer-client.ts';
import type { Svid } from '#certs/svid.ts';
import { createSvidManager, type SvidManager } from '#certs/svid-manager.ts';
import { createAccessLogWriter } from '#ztunnel/access-log-writer.ts';
import { FailureLimit } from '#ztunnel/failure-limit.ts';
import type { Offer } from '#ztunnel/hand-over/offer.ts';
import type { ConnectionSettings } from '#ztunnel/hbone/connection.ts';
import { watchWaiting } from '#ztunnel/hbone/memory-budget.ts';
import { Shedding } from '#ztunnel/shedding.ts';
import {
  formatFailedSession,
  formatRefusedTunnel,
  formatRequestRecord,
  RequestLogWriter,
} from './access-log.ts';
import type { AdminView } from './admin.ts';
import { Configuration } from './configuration.ts';
import { HboneListener, type SessionFailure } from './downstream/hbone-listener.ts';
import { DEFAULT_LIMITS, type DownstreamLimits } from './downstream/limits.ts';
import { type RefusedTunnel, Tunnels } from './downstream/tunnels.ts';
import type { CarriedTunnel } from './hand-over/carried-tunnel.ts';
import { HandOver, type Successor } from './hand-over/hand-over.ts';
import { Ledger, type Shed } from './memory/ledger.ts';
import { createMetrics, type MemoryFigures, type WaypointMetrics } from './metrics.ts';
import type { Cluster } from './model.ts';
import type { RequestRecord } from './request-record.ts';
import { RouteCounts } from './route-counts.ts';
import { createServing, type Serving, type ServingOptions } from './serving.ts';
import { describeSettings, type WaypointSettings } from './settings.ts';
import { timerMs } from './timer.ts';

export interface WaypointOptions {
  readonly settings: WaypointSettings;
  readonly identity: Identity;
  readonly version: string;
  /** Certifies the identity; stays the caller's. */
  readonly signer: SignerClient;
  readonly logger: Logger;
  readonly limits?: Partial<DownstreamLimits>;
  /** How applications are reached; default: on the network. */
  readonly sockets?: ServingOptions['sockets'];
}

/**
 * As a ztunnel has it (fact sheet ambient-wire.md, 1.2), but for the window of a stream: as much is kept of what is not read, and a
 * waypoint stands between many.
 */
export const HBONE_SETTINGS: ConnectionSettings = {
  streamWindowBytes: 512 * 1024,
  connectionWindowBytes: 16 * 1024 * 1024,
  frameBytes: 1024 * 1024,
  pingIntervalMs: 10_000,
  pingTimeoutMs: 20_000,
};

/** One waypoint: what it has been told, who calls, and where requests go. Whoever made it disposes of it, after a drain. */
export class Waypoint {
  readonly configuration: Configuration;
  readonly metrics: WaypointMetrics;
  readonly svids: SvidManager;
  readonly revocations: FirstRevocations;
  readonly #options: WaypointOptions;
  readonly #counts = new RouteCounts();
  readonly #ledger: Ledger;
  readonly #handOver = new HandOver();
  readonly #unwatch: () => void;
  readonly #log: RequestLogWriter;
  readonly #serving: Serving;
  readonly #tunnels: Tunnels;
  readonly #listener: HboneListener;
  readonly #failures = new FailureLimit();
  readonly #shedding: Shedding;
  readonly #startedAtMs: number = Date.now();
  readonly #changed = new Set<() => void>();
  #address: HostPort | undefined;
  #isDraining = false;
  #successor: Successor | undefined;

  constructor(options: WaypointOptions) {
    const { settings, logger } = options;
    this.#options = options;
    this.revocations = new FirstRevocations(REVOCATIONS_GRACE_MS, (isKnown) => {
      if (!isKnown)
        logger.warn({ waited_ms: REVOCATIONS_GRACE_MS }, 'control plane does not say who is revoked');
      this.#tellChange();
    });
    this.#shedding = new Shedding((reports) => {
      for (const report of reports) logger.warn({ ...report }, 'connections refused for want of something');
    });
    this.#ledger = new Ledger({ budgetBytes: settings.memoryBytes, onShed: (shed) => this.#onShed(shed) });
    this.#unwatch = watchWaiting((bytes) => this.#ledger.note(bytes));
    this.configuration = new Configuration((config) => {
      this.#counts.follow(config);
      this.#serving.follow(config);
    });
    this.metrics = createMetrics(options.version, {
      sessions: () => this.#listener.sessionCount,
      tunnels: () => this.#listener.streamCount,
      upstream: () => this.#serving.connections(),
      mirrors: () => this.#serving.mirrors(),
      xds: () => this.configuration.counts(),
      memory: () => this.#memory(),
      handedOver: () => this.#handOver.counts,
    });
    this.#log = new RequestLogWriter(
      createAccessLogWriter({
        ...(settings.accessLog !== undefined && { path: settings.accessLog }),
        onDropped: (lines, reason) => {
          this.metrics.accessLogDropped(lines);
          logger.error({ lines, reason, path: settings.accessLog }, 'access log lines lost');
        },
      }),
    );
    this.svids = this.#createSvidManager();
    this.#serving = createServing({
      config: () => this.configuration.current,
      authorize: (frontend, caller, authority) =>
        this.configuration.authorizations.authorize(frontend, caller, authority),
      identity: options.identity,
      svid: () => this.#svid(),
      ledger: this.#ledger,
      handOver: this.#handOver,
      hbone: HBONE_SETTINGS,
      onRecord: (record) => this.#record(record),
      onOpened: (record) => this.metrics.opened(record),
      ...(options.sockets !== undefined && { sockets: options.sockets }),
    });
    this.#tunnels = this.#createTunnels();
    this.#listener = new HboneListener({
      listen: settings.listen,
      tunnels: this.#tunnels,
      settings: HBONE_SETTINGS,
      ledger: this.#ledger,
      svid: () => this.#svid(),
      onFailure: (failure) => this.#onSessionFailure(failure),
      onShed: (shortage, error) => this.#shedding.note(shortage, placeOf(settings), error),
    });
  }

  /** Takes what the control plane says; gives back what cannot be taken. */
  apply(update: WaypointUpdate): readonly RejectedResource[] {
    const rejected = this.configuration.apply(update);
    for (const { name, reason } of rejected) {
      this.#options.logger.warn({ type: update.type, name, error: reason }, 'resource rejected');
    }
    if (this.configuration.isComplete()) this.revocations.hasRest();
    if (update.type === AUTHORIZATION_TYPE || update.type === LISTENER_TYPE) this.#serving.recheck();
    this.#tellChange();
    return rejected;
  }

  /** What a successor can have of what this one listens on. */
  offer(): Offer | undefined {
    return this.#listener.offer();
  }

  /**
   * Waits until there are a certificate and all of the configuration, and then takes callers.
   * @param fd a socket that listens already; its from now on
   * @returns where it listens
   */
  async open(signal: AbortSignal, fd?: number): Promise<HostPort | undefined> {
    this.svids.want(this.#options.identity);
    await this.#until(() => this.#hasAll(), signal);
    if (signal.aborted) return undefined;
    this.#address = await this.#listener.open(fd);
    this.#tellChange();
    return this.#address;
  }

  /** What it still waits for; none: it is ready. */
  pending(): readonly string[] {
    return [
      ...(this.#svid() === undefined ? ['certificate'] : []),
      // Once it serves, what is new and not complete yet concerns only itself.
      ...(this.#address === undefined && !this.configuration.isComplete() ? ['configuration'] : []),
      ...(this.#address === undefined && !this.revocations.isOver ? ['revocation list'] : []),
      ...(this.#address === undefined ? ['listener'] : []),
      ...(this.#isDraining ? ['draining'] : []),
    ];
  }

  view(logLevel: () => string): AdminView {
    return {
      pending: () => this.pending(),
      configDump: () => this.#configDump(),
      clusters: () => ({ clusters: [...this.configuration.current.clusters.values()].map(describeCluster) }),
      certificates: () => ({ certificates: this.#certificates() }),
      logLevel,
      splits: () => this.#counts.report(),
      status: () => this.#status(),
      metrics: this.metrics,
    };
  }

  /**
   * Takes no new callers, has those that are there go elsewhere, and lets go on what is in flight: resolves when that has ended,
   * at the latest after the time that is set. What can go on in the process that comes after this one goes there.
   * @returns how many tunnels are left, to be reset
   */
  async drain(): Promise<number> {
    this.#isDraining = true;
    this.#tunnels.drain();
    this.#listener.drain();
    const successor = this.#successor;
    if (successor?.isThere() === true) this.#handOver.retire(successor);
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, timerMs(this.#options.settings.drainMs));
    await Promise.race([this.#untilIdle(), promise]);
    clearTimeout(timer);
    await successor?.finish();
    const left = this.#listener.streamCount;
    for (let each = left; each > 0; each -= 1) this.#handOver.count('tunnel', 'reset_drain_over');
    return left;
  }

  /** Who waits for its caller has no session, and may come to have one. */
  async #untilIdle(): Promise<void> {
    do {
      await this.#listener.untilIdle();
      if (this.#handOver.isRetiring) await this.#handOver.untilNoneWaits();
    } while (this.#listener.sessionCount > 0);
  }

  /** What became of tunnels that a restart met, by kind and outcome. */
  get handedOver(): ReadonlyMap<string, number> {
    return this.#handOver.counts;
  }

  /** The process that comes after this one: gets what can go on there, when this one drains. */
  set successor(successor: Successor) {
    this.#successor = successor;
  }

  /** Goes on with a tunnel of the process before this one. */
  adopt(carried: CarriedTunnel): void {
    if (this.#handOver.passOn(carried)) return;
    const { caller, authority, use } = carried;
    const frontend = this.configuration.current.frontends.named(carried.frontend);
    if (frontend === undefined) {
      this.#handOver.count('tunnel', 'reset_gone');
      return;
    }
    const tunnel = this.#handOver.adopt(carried);
    const place = { caller, authority, frontend };
    if (use.kind !== 'relay') this.#tunnels.adopt(tunnel, place, use.kind === 'http1');
    else this.#serving.goOn({ ...place, tunnel, isDraining: () => this.#isDraining }, tunnel, use.relay);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDraining = true;
    this.#listener.close('the waypoint ends');
    this.#serving.close();
    this.#handOver.close();
    this.revocations.close();
    this.#tunnels[Symbol.dispose]();
    this.#unwatch();
    this.#ledger[Symbol.dispose]();
    this.svids.close();
    this.metrics.close();
    await this.#log.close();
  }

  #svid(): Svid | undefined {
    return this.svids.get(this.#options.identity);
  }

  #hasAll(): boolean {
    return this.#svid() !== undefined && this.configuration.isComplete() && this.revocations.isOver;
  }

  #record(record: RequestRecord): void {
    this.metrics.record(record);
    this.#counts.add(record);
    this.#log.write(formatRequestRecord(record));
  }

  #onShed({ owner, holders, bytes }: Shed): void {
    const fields = { caller: owner, holders, bytes, budget_bytes: this.#ledger.budgetBytes };
    this.#options.logger.warn(fields, 'memory is short, the caller who holds most was shed');
  }

  #memory(): MemoryFigures {
    const { heldBytes, budgetBytes, shedCount } = this.#ledger;
    return { heldBytes, budgetBytes, shedCount };
  }

  #onSessionFailure({ remote, reason }: SessionFailure): void {
    this.metrics.sessionFailed();
    const error = this.#failures.text(reason);
    if (error !== undefined) this.#log.write(formatFailedSession(remote, error));
  }

  #refused(refused: RefusedTunnel): void {
    this.metrics.tunnelRefused(refused.status);
    this.#log.write(formatRefusedTunnel(refused));
  }

  #createTunnels(): Tunnels {
    const { settings, limits } = this.#options;
    const { namespace, name, clusterId } = settings;
    return new Tunnels({
      frontends: () => this.configuration.current.frontends,
      serveRequest: (exchange) => this.#serving.serveRequest(exchange),
      serveTcp: (tunnel) => this.#serving.serveTcp(tunnel),
      onRecord: (record) => this.#record(record),
      onRefused: (refused) => this.#refused(refused),
      isDraining: () => this.#isDraining,
      baggage:
        `k8s.cluster.name=${clusterId},k8s.namespace.name=${namespace},` +
        `k8s.deployment.name=${name},service.name=${name},service.version=latest`,
      limits: { ...DEFAULT_LIMITS, ...limits },
      ledger: this.#ledger,
      handOver: this.#handOver,
    });
  }

  #createSvidManager(): SvidManager {
    const { signer, settings, logger } = this.#options;
    return createSvidManager({
      request: (identity, signal) => signer.requestSvid(identity, settings.secretTtlMs / 1000, signal),
      onSvid: ({ identity, serial, notAfterMs }) => {
        const fields = { identity: formatIdentity(identity), serial, not_after: new Date(notAfterMs) };
        logger.info(fields, 'certificate received');
        this.#tellChange();
      },
      onError: (identity, error, retryInMs) => {
        this.metrics.certificateFailed();
        const fields = { identity: formatIdentity(identity), error: error.message, retry_ms: retryInMs };
        logger.warn(fields, 'certificate not received');
      },
    });
  }

  async #until(check: () => boolean, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = (): void => {
      if (check() || signal.aborted) resolve();
    };
    this.#changed.add(look);
    signal.addEventListener('abort', look);
    look();
    await promise;
    this.#changed.delete(look);
    signal.removeEventListener('abort', look);
  }

  #tellChange(): void {
    for (const look of this.#changed) look();
  }

  async #configDump(): Promise<object> {
    // Envoy's types are many, and only needed to be shown.
    const { envoyResourceToJson } = await import('#api/envoy/json.ts');
    const byType = Map.groupBy(this.configuration.resources(), ({ type }) => type);
    const resources = [...byType].map(([type, held]) => [
      type,
      Object.fromEntries(held.map((resource) => [resource.name, envoyResourceToJson(resource)])),
    ]);
    return {
      settings: describeSettings(this.#options.settings),
      resources: Object.fromEntries(resources),
      authorizations: [...this.configuration.authorizations.all()],
      rejected: this.configuration
        .counts()
        .flatMap(({ type, rejected }) => [...rejected].map(([name, message]) => ({ type, name, message }))),
      missing: this.configuration.missing(),
    };
  }

  #certificates(): readonly object[] {
    return this.svids.list().map(({ identity, state, svid }) => ({
      identity: formatIdentity(identity),
      state,
      serial: svid?.serial ?? null,
      notBefore: svid === undefined ? null : new Date(svid.notBeforeMs).toISOString(),
      notAfter: svid === undefined ? null : new Date(svid.notAfterMs).toISOString(),
      roots: splitPem(svid?.rootsPem ?? '').map((pem) => {
        const root = new X509Certificate(pem);
        return { serial: root.serialNumber.toLowerCase(), notAfter: root.validToDate.toISOString() };
      }),
    }));
  }

  #status(): object {
    const { settings, version } = this.#options;
    return {
      namespace: settings.namespace,
      name: settings.name,
      instance: settings.instance,
      version,
      startedAt: new Date(this.#startedAtMs).toISOString(),
      ready: this.pending().length === 0,
      pending: this.pending(),
      missing: this.configuration.missing(),
      address: this.#address === undefined ? null : formatHostPort(this.#address),
      sessions: this.#listener.sessionCount,
      tunnels: this.#listener.streamCount,
      upstream: this.#serving.connections(),
      memory: this.#memory(),
      handedOver: Object.fromEntries(this.#handOver.counts),
      serves: [...new Set([...this.configuration.current.frontends.all()].map(({ service }) => service))],
      xds: this.configuration.counts().map(({ type, held, rejected }) => ({
        type,
        held,
        rejected: [...rejected].map(([name, message]) => ({ name, message })),
      })),
    };
  }
}

/** A waypoint as the log names a pod. */
function placeOf({ namespace, name }: WaypointSettings): string {
  return `${namespace}/${name}`;
}

function describeCluster(cluster: Cluster): object {
  return {
    name: cluster.name,
    backend: cluster.backend,
    protocol: cluster.protocol,
    balancing: cluster.balancing,
    tls: cluster.tls?.serverName ?? null,
    endpoints: cluster.endpoints.map(({ address, health, weight, tunnel, identity, workload }) => ({
      address: formatHostPort(address),
      health,
      weight,
      tunnel,
      identity: identity === undefined ? null : formatIdentity(identity),
      workload: `${workload.namespace}/${workload.name}`,
    })),
  };
}
