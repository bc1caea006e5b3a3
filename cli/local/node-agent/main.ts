import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger, pino } from 'pino';
import { subscribeWorkloadApi } from '#api/client.ts';
import { NODE_AGENT } from '#api/node-description.ts';
import type { ResourceUpdate } from '#api/resource.ts';
import { watchFolders } from '#control-plane/source/folder-watch.ts';
import { type ChosenCapture, chooseCapture } from '#ztunnel/capture/choose-capture.ts';
import { warmThreadPool } from '#ztunnel/capture/in-pod-sockets.ts';
import { createTables } from '#ztunnel/tables/store.ts';
import { serveZds, type ZdsServer } from '#ztunnel/zds/server.ts';
import { NodeAgent } from './agent.ts';
import type { NodeAgentConfig } from './config.ts';
import { createMovement } from './movement.ts';
import { serveNodeDns } from './node-dns.ts';
import { createOrderReader } from './orders.ts';
import { createPeerView } from './peer-view.ts';
import { plaintextVerdict } from './plaintext.ts';
import { probesOf } from './probes.ts';
import { createRedirectionFiles, createReportFile, sweepRedirectionFiles } from './reports.ts';
import { createVipTranslation } from './vip-translation.ts';

/** How long after a file has changed it is read; files are replaced whole. */
const FILES_QUIET_MS = 5;
const FILES_CAP_MS = 50;
const FILES_POLL_MS = 2_000;
const SWEEP_MS = 10_000;
/** How often it is counted what was refused; with packet rules that takes a process for each pod. */
const COUNT_MS: Readonly<Record<'ebpf' | 'nftables', number>> = { ebpf: 1_000, nftables: 10_000 };

/**
 * Runs a node's agent in the node's network namespace until the signal aborts: has its pods captured and served by a
 * ztunnel as `run/NODE/enrolment.json` says, answers DNS on the node's addresses, and translates VIPs for pods outside the
 * mesh. What is in place stays when it ends, and is taken over by the next one.
 * @throws ZdsError (`address`) when another agent serves the node
 */
export async function runNodeAgent(
  config: NodeAgentConfig,
  signal: AbortSignal,
  logger: Logger = pino({ level: config.logLevel }),
): Promise<void> {
  const { stateDirectory, node } = config;
  await warmThreadPool();
  for (const folder of ['pods', join('run', node)]) {
    mkdirSync(join(stateDirectory, folder), { recursive: true, mode: 0o700 });
  }
  await using stack = new AsyncDisposableStack();

  const tables = createTables();
  const peers = createPeerView();
  const movement = createMovement(peers.told);
  const vips = stack.use(createVipTranslation(tables, logger));
  stack.use(await serveNodeDns(config, tables, logger));

  const capture = chooseCapture(config.capture);
  stack.defer(() => capture.close());
  const missing = capture.tryEbpf();
  if (missing !== undefined) logger.warn({ missing }, 'no capture by ebpf');
  const unspliced = capture.spliceProblem();
  if (unspliced !== undefined) logger.warn({ missing: unspliced }, 'no kernel splice');
  let zds: ZdsServer | undefined;
  const agent = new NodeAgent({
    parts: {
      capture,
      zds: {
        add: async (pod, netnsPath) => await zds?.add(pod, netnsPath),
        del: async (uid) => await zds?.del(uid),
        connected: () => zds?.connected() ?? 0,
      },
      told: peers.told,
      movingMs: movement.leftMs,
      plaintext: (pod) => plaintextVerdict(tables, pod, node),
      probesOf,
      redirection: createRedirectionFiles(stateDirectory),
      logger,
    },
    writeReport: createReportFile(stateDirectory, node),
    logger,
  });
  sweepRedirectionFiles(stateDirectory);
  const readOrders = createOrderReader(stateDirectory, node);
  const followOrders = async (): Promise<void> => {
    const orders = readOrders();
    movement.order(orders.mesh, performance.now());
    await agent.apply(orders);
  };
  // Before a ztunnel can connect: it drops the pods that it is not told of.
  await followOrders();
  stack.defer(async () => {
    const stopped = agent.stop();
    zds?.close();
    await stopped;
  });
  zds = await serveZds({
    path: join(stateDirectory, 'run', node, 'zds.sock'),
    snapshot: () => agent.snapshot(),
    onChange: () => agent.look(),
    onRefused: (uid, message) => agent.refused(uid, message),
    logger: logger.child({ component: 'zds' }),
  });
  const files = stack.use(
    watchFolders({
      quietMs: FILES_QUIET_MS,
      capMs: FILES_CAP_MS,
      pollMs: FILES_POLL_MS,
      onDue: followOrders,
    }),
  );
  files.follow(new Set([join(stateDirectory, 'pods'), join(stateDirectory, 'run', node)]));

  for (const method of ['ebpf', 'nftables'] as const) {
    const counting = setInterval(() => void agent.countRefused(method), COUNT_MS[method]);
    stack.defer(() => clearInterval(counting));
  }

  const sweeping = setInterval(() => void sweep(capture, logger), SWEEP_MS);
  stack.defer(() => clearInterval(sweeping));

  const subscription = subscribe(config, signal, logger, (update) => {
    tables.apply(update);
    peers.apply(update, performance.now());
    vips.changed();
    agent.look();
  });
  logger.info({ node }, 'node agent ready');
  if (!signal.aborted) await once(signal, 'abort');
  await subscription;
}

async function sweep(capture: ChosenCapture, logger: Logger): Promise<void> {
  try {
    const lost = await capture.sweep();
    if (lost.length > 0) logger.error({ pods: lost }, 'somebody took away the capture of pods: made anew');
  } catch (error) {
    logger.warn({ error: String(error) }, 'cannot take away what pods left that are gone');
  }
}

/** The workload API under the node's own credential. */
function subscribe(
  config: NodeAgentConfig,
  signal: AbortSignal,
  logger: Logger,
  onUpdate: (update: ResourceUpdate) => void,
): Promise<void> {
  const { stateDirectory, node } = config;
  const token = (): string => readFileSync(join(stateDirectory, 'tokens', node), 'utf8').trim();
  return subscribeWorkloadApi({
    address: config.controlPlane,
    rootsPem: () => readFileSync(join(stateDirectory, 'ca', 'bundle.pem'), 'utf8'),
    headers: () => ({ authorization: `Bearer ${token()}`, clusterid: 'Kubernetes' }),
    node: {
      type: NODE_AGENT,
      ip: '1.1.1.1',
      podName: `node-agent-${node}`,
      podNamespace: 'istio-system',
      nodeName: node,
    },
    onUpdate,
    logger: logger.child({ component: 'xds' }),
    signal,
  });
}
