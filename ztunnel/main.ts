import pino, { type Logger } from 'pino';
import { subscribeWorkloadApi } from '#api/client.ts';
import { createSignerClient, type SignerClient } from '#certs/signer-client.ts';
import { type AdminOrders, type AdminView, adminRoutes, orderRoutes, readinessRoutes } from './admin.ts';
import { closeDescriptor, openNamespace, warmThreadPool } from './capture/in-pod-sockets.ts';
import { LOG_LEVELS, type ZtunnelConfig } from './config.ts';
import { readRoots } from './credential-sources.ts';
import { requestHeaders } from './credentials.ts';
import { openPredecessor, type Predecessor } from './hand-over/predecessor.ts';
import { handOverRoutes, handOverUpgrade } from './hand-over/routes.ts';
import { Node } from './node.ts';
import { operatorListener } from './operator-listener.ts';
import { metricsRoutes } from './operator-routes.ts';
import { ownVersion, untilAborted } from './process-parts.ts';
import { pendingTasks } from './readiness.ts';
import { connectZds } from './zds/client.ts';

/** A ztunnel cannot start; the message says why and what to do. The process ends with `exitCode`. */
export class ZtunnelStartError extends Error {
  override readonly name = 'ZtunnelStartError';
  readonly exitCode = 1;
}

/**
 * Runs a ztunnel until the signal aborts and its connections have drained. It serves with what it last knew while the
 * control plane or the node agent is away.
 * @throws ZtunnelStartError
 */
export async function runZtunnel(
  config: ZtunnelConfig,
  signal: AbortSignal,
  logger: Logger = pino({ level: config.logLevel }),
): Promise<void> {
  for (const setting of config.ignored) logger.warn({ setting }, 'setting has no effect here');
  await warmThreadPool(); // before any namespace is entered
  await using opened = new AsyncDisposableStack();
  const background = new AbortController();
  opened.defer(() => background.abort());
  const predecessor =
    config.predecessor === undefined ? undefined : openPredecessor(config.predecessor, logger);
  if (predecessor !== undefined) opened.use(predecessor);
  const node = opened.use(openNode(config, predecessor, opened, logger));
  const ordered = new AbortController();
  const stop = AbortSignal.any([signal, ordered.signal]);
  await openListeners(config, node, ordered, opened, logger);
  if (predecessor !== undefined) await node.handOver.receiveFrom(predecessor);

  const defect = Promise.race([
    followControlPlane(config, node, background.signal, logger),
    followNodeAgent(config, node, stop, logger),
  ]);
  await Promise.race([untilAborted(stop), defect]);
  logger.info({ deadline_ms: config.drainMs }, 'ztunnel draining');
  await node.drain();
  logger.info('ztunnel ended');
}

function openNode(
  config: ZtunnelConfig,
  predecessor: Predecessor | undefined,
  opened: AsyncDisposableStack,
  logger: Logger,
): Node {
  const egressNetnsFd = config.egressNetns === undefined ? undefined : openEgress(config.egressNetns);
  if (egressNetnsFd !== undefined) opened.defer(() => closeDescriptor(egressNetnsFd));
  const signer = createSigner(config);
  opened.defer(() => signer.close());
  return new Node({ config, version: ownVersion(), signer, egressNetnsFd, predecessor, logger });
}

/** Serves operators. The order socket comes last: who waits for it finds everything else there. */
async function openListeners(
  config: ZtunnelConfig,
  node: Node,
  ordered: AbortController,
  opened: AsyncDisposableStack,
  logger: Logger,
): Promise<void> {
  const view = viewOf(node, logger);
  const listen = operatorListener(
    opened,
    logger,
    (message, cause) => new ZtunnelStartError(message, { cause }),
  );
  const host = config.ipv6 ? '::' : '0.0.0.0';
  await listen({ host: '127.0.0.1', port: config.ports.admin }, adminRoutes(view), 'admin');
  await listen({ host, port: config.ports.stats }, metricsRoutes(view.metrics), 'metrics');
  await listen({ host, port: config.ports.readiness }, readinessRoutes(view), 'readiness');
  if (config.adminSocket === undefined) return;
  const orders = ordersFor(config, node, ordered, logger);
  const routes = [
    ...orderRoutes(view, orders),
    ...handOverRoutes(
      (uid) => node.pods.offer(uid),
      () => node.handOver.met(),
    ),
  ];
  const upgrades = [handOverUpgrade((socket) => node.handOver.accept(socket))];
  await listen({ path: config.adminSocket }, routes, 'orders', upgrades);
}

function viewOf(node: Node, logger: Logger): AdminView {
  return {
    configDump: () => node.configDump(),
    resources: () => [...node.tables.policies(), ...node.tables.services(), ...node.tables.workloads()],
    logLevel: () => logger.level,
    shortages: () => node.shortages.list(),
    readiness: () => node.readiness(),
    metrics: node.metrics,
  };
}

function ordersFor(config: ZtunnelConfig, node: Node, ordered: AbortController, logger: Logger): AdminOrders {
  return {
    drain: () => {
      ordered.abort();
      return config.drainMs;
    },
    setLogLevel: (wanted) => {
      const level = LOG_LEVELS.find((each) => each === wanted);
      if (level !== undefined) logger.level = level;
      return level !== undefined;
    },
    reopenLogs: () => node.accessLog.reopen(),
  };
}

/** Never resolves before the signal aborts; rejects on a defect only. */
async function followControlPlane(
  config: ZtunnelConfig,
  node: Node,
  signal: AbortSignal,
  logger: Logger,
): Promise<void> {
  const { xds, proxy } = config;
  await subscribeWorkloadApi({
    address: xds.address,
    rootsPem: () => readRoots(xds.roots),
    ...(xds.alternativeName !== undefined && { alternativeName: xds.alternativeName }),
    headers: () => requestHeaders(config, xds),
    node: { ...proxy, nodeName: config.node },
    onUpdate: (update) => node.apply(update),
    secrets: {
      onRoots: (rootsPem) => node.svids.setRoots(rootsPem),
      onRevoked: (list) => node.setRevoked(list),
    },
    onState: ({ kind }) => {
      node.setConnected(kind === 'connected');
      if (kind === 'connected') node.svids.retryNow();
      // Until it is back, the newest roots are those that come with certificates.
      if (kind === 'disconnected') node.svids.setRoots(undefined);
    },
    metrics: node.metrics.xds,
    logger,
    signal,
  });
}

/** Pods are taken once it is known who they are. Never resolves before the signal aborts. */
async function followNodeAgent(
  config: ZtunnelConfig,
  node: Node,
  signal: AbortSignal,
  logger: Logger,
): Promise<void> {
  await Promise.race([node.untilSynced(), untilAborted(signal)]);
  if (signal.aborted) return;
  await connectZds({
    path: config.zdsSocket,
    onAdd: (pod, netnsFd) => node.pods.add(pod, netnsFd),
    onDelete: (uid) => node.pods.remove(uid),
    onPending: (pods) => node.pods.keepPending(pods),
    onSnapshot: () => {
      node.setPodsKnown(true);
      logger.info(
        { ...node.pods.counts(), missing: pendingTasks(node.readiness()) },
        'pods of the node known',
      );
    },
    onDisconnect: () => node.setPodsKnown(false),
    signal,
    logger,
  });
}

function createSigner(config: ZtunnelConfig): SignerClient {
  const { ca } = config;
  return createSignerClient({
    address: ca.address,
    rootsPem: () => readRoots(ca.roots),
    headers: async () => requestHeaders(config, ca),
    ...(ca.alternativeName !== undefined && { alternativeName: ca.alternativeName }),
  });
}

function openEgress(path: string): number {
  try {
    return openNamespace(path);
  } catch (cause) {
    throw new ZtunnelStartError(`cannot open the egress namespace ${path}: ${messageOf(cause)}`, { cause });
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
