import pino, { type Logger } from 'pino';
import { subscribeEnvoyApi } from '#api/envoy-client.ts';
import { formatIdentity, type Identity } from '#certs/identity.ts';
import { setRevoked } from '#certs/revoked.ts';
import { createSignerClient, type SignerClient } from '#certs/signer-client.ts';
import { readRoots } from '#ztunnel/credential-sources.ts';
import { operatorListener } from '#ztunnel/operator-listener.ts';
import { metricsRoutes } from '#ztunnel/operator-routes.ts';
import { ownVersion, untilAborted } from '#ztunnel/process-parts.ts';
import { adminRoutes, readinessRoutes, socketRoutes } from './admin.ts';
import { requestHeaders } from './credentials.ts';
import { awaitTunnels, tunnelsUpgrade } from './hand-over/channel.ts';
import { takeListeningSocket } from './hand-over/listening-socket.ts';
import { handOverRoutes } from './hand-over/routes.ts';
import { describeSettings, trustDomainOf, type WaypointSettings } from './settings.ts';
import { Waypoint } from './waypoint.ts';

/** A waypoint cannot start; the message says why and what to do. The process ends with `exitCode`. */
export class WaypointStartError extends Error {
  override readonly name = 'WaypointStartError';
  readonly exitCode = 1;
}

/**
 * Runs a waypoint until the signal aborts and what was in flight has ended. It takes callers when it has its certificate and all
 * of its configuration, and serves with what it last knew while the control plane is away.
 * @throws WaypointStartError, WaypointSettingsError
 */
export async function runWaypoint(
  settings: WaypointSettings,
  signal: AbortSignal,
  logger: Logger = pino({ level: settings.logLevel }),
): Promise<void> {
  const identity = ownIdentity(settings);
  logger.info({ ...describeSettings(settings), identity: formatIdentity(identity) }, 'waypoint starting');
  await using opened = new AsyncDisposableStack();
  const background = new AbortController();
  opened.defer(() => background.abort());
  const signer = createSigner(settings);
  opened.defer(() => signer.close());
  const waypoint = opened.use(new Waypoint({ settings, identity, version: ownVersion(), signer, logger }));
  // Before this one's own admin socket may take its name.
  const listening = await socketOfPredecessor(settings, logger);
  await openListeners(settings, waypoint, opened, logger);
  const defect = followControlPlane(settings, waypoint, background.signal, logger);
  const { predecessor } = settings;
  if (predecessor !== undefined) {
    const tunnels = await awaitTunnels(predecessor, (tunnel) => waypoint.adopt(tunnel), logger);
    if (tunnels !== undefined) opened.use(tunnels);
  }
  const address = await Promise.race([openForCallers(waypoint, settings, signal, listening), defect]);
  if (address !== undefined) logger.info({ listen: address }, 'waypoint ready');
  await Promise.race([untilAborted(signal), defect]);
  logger.info({ deadline_ms: settings.drainMs }, 'waypoint draining');
  const left = await waypoint.drain();
  if (left > 0) logger.warn({ tunnels: left }, 'what was in flight was reset at the end of the drain');
  logger.info({ handed_over: Object.fromEntries(waypoint.handedOver) }, 'waypoint ended');
}

/** The socket on which the waypoint that this one replaces listens, if it is to be had. */
async function socketOfPredecessor(settings: WaypointSettings, logger: Logger): Promise<number | undefined> {
  const { predecessor, listen } = settings;
  if (predecessor === undefined) return undefined;
  const fd = await takeListeningSocket(predecessor, replicaOf(settings), listen.port, logger);
  if (fd !== undefined) logger.info({ port: listen.port }, 'listening socket shared with the predecessor');
  return fd;
}

/** What both ends of a hand-over call a replica. */
function replicaOf({ namespace, name, instance }: WaypointSettings): string {
  return `${namespace}/${name}/${instance}`;
}

async function openForCallers(
  waypoint: Waypoint,
  settings: WaypointSettings,
  signal: AbortSignal,
  listening: number | undefined,
): Promise<unknown> {
  try {
    return await waypoint.open(signal, listening);
  } catch (cause) {
    const message = `cannot listen for callers on port ${settings.listen.port}: ${messageOf(cause)}`;
    throw new WaypointStartError(message, { cause });
  }
}

/** Serves operators. The socket comes last: who waits for it finds everything else there. */
async function openListeners(
  settings: WaypointSettings,
  waypoint: Waypoint,
  opened: AsyncDisposableStack,
  logger: Logger,
): Promise<void> {
  const { ports, adminSocket } = settings;
  const { ip } = settings.listen;
  const view = waypoint.view(() => logger.level);
  const listen = operatorListener(
    opened,
    logger,
    (message, cause) => new WaypointStartError(message, { cause }),
  );
  await listen({ host: '127.0.0.1', port: ports.admin }, adminRoutes(view), 'admin');
  await listen({ host: ip, port: ports.metrics }, metricsRoutes(view.metrics), 'metrics');
  await listen({ host: ip, port: ports.readiness }, readinessRoutes(view), 'readiness');
  if (adminSocket === undefined) return;
  const offers = handOverRoutes(replicaOf(settings), () => waypoint.offer());
  const tunnels = tunnelsUpgrade((successor) => {
    waypoint.successor = successor;
  });
  await listen({ path: adminSocket }, [...socketRoutes(view), ...offers], 'the supervisor', [tunnels]);
}

/** Never resolves before the signal aborts; rejects on a defect only. */
async function followControlPlane(
  settings: WaypointSettings,
  waypoint: Waypoint,
  signal: AbortSignal,
  logger: Logger,
): Promise<void> {
  const { namespace, name, instance, alternativeName, listen } = settings;
  await subscribeEnvoyApi({
    address: settings.controlPlane,
    rootsPem: () => readRoots(settings.roots),
    ...(alternativeName !== undefined && { alternativeName }),
    headers: () => requestHeaders(settings),
    node: {
      type: 'waypoint',
      ip: listen.ip,
      podName: `${name}-${instance}`,
      podNamespace: namespace,
      nodeName: '',
    },
    onUpdate: (update) => waypoint.apply(update),
    secrets: {
      onRoots: (rootsPem) => waypoint.svids.setRoots(rootsPem),
      onRevoked: (list) => {
        if (list !== undefined) setRevoked(list);
        waypoint.svids.replaceRevoked();
        waypoint.revocations.told();
      },
    },
    interest: () => waypoint.configuration.interest(),
    onState: ({ kind }) => {
      waypoint.revocations.setConnected(kind === 'connected');
      if (kind === 'connected') waypoint.svids.retryNow();
      // Until it is back, the newest roots are those that come with certificates.
      if (kind === 'disconnected') waypoint.svids.setRoots(undefined);
    },
    metrics: waypoint.metrics.xds,
    logger,
    signal,
  });
}

/** @throws WaypointStartError when the roots cannot be read */
function ownIdentity(settings: WaypointSettings): Identity {
  const { namespace, serviceAccount } = settings;
  if (settings.trustDomain !== undefined)
    return { trustDomain: settings.trustDomain, namespace, serviceAccount };
  try {
    return { trustDomain: trustDomainOf(readRoots(settings.roots)), namespace, serviceAccount };
  } catch (cause) {
    throw new WaypointStartError(`cannot tell the trust domain: ${messageOf(cause)}`, { cause });
  }
}

function createSigner(settings: WaypointSettings): SignerClient {
  const { alternativeName } = settings;
  return createSignerClient({
    address: settings.controlPlane,
    rootsPem: () => readRoots(settings.roots),
    headers: async () => requestHeaders(settings),
    ...(alternativeName !== undefined && { alternativeName }),
  });
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
