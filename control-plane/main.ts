import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import pino, { type Logger } from 'pino';
import { type Authority, openAuthority } from '#certs/authority.ts';
import { AuthorityError } from '#certs/authority-files.ts';
import { type IssuedLog, IssuedLogError, openIssuedLog } from '#certs/issued.ts';
import {
  createSignerService,
  type SignerService,
  type Caller as SigningCaller,
} from '#certs/signer-service.ts';
import { authorityOrders } from './authority-orders.ts';
import type { ControlPlaneConfig } from './config.ts';
import type { FaultInForce } from './derive/waypoint/fault-times.ts';
import { openEnrolmentFiles } from './enrolment-files.ts';
import { FaultFileError, openFaultFile } from './fault-file.ts';
import { logFaults } from './faults-in-force.ts';
import { openMeshAuthority } from './mesh-authority.ts';
import { followSources, type MeshLoop } from './mesh-loop.ts';
import { isOnNode, type MeshState, type MeshStores, nextMeshState } from './mesh-state.ts';
import { openRevocations, type Revocations } from './revocations.ts';
import {
  type Authentication,
  type CallerTokens,
  formatCaller,
  openCallerTokens,
} from './serve/caller-tokens.ts';
import { ListenError, listenGrpc } from './serve/grpc-listener.ts';
import { createDiscoveryServer } from './serve/server.ts';
import { Shortages } from './serve/shortages.ts';
import { servedWaypoints } from './served-waypoints.ts';
import { issueServerCertificate, renewServerCertificate } from './server-certificate.ts';
import { openSettingsFile, SettingsFileError } from './settings-file.ts';
import { openFileSource } from './source/file-source.ts';
import { openLocalSource } from './source/local-source.ts';
import { mergeObjectSets } from './source/source.ts';
import { controlPlaneStatus, servedResources } from './status.ts';
import { StatusSocketError, serveStatusSocket } from './status-socket.ts';
import { openVipFile, VipFileError } from './vip-file.ts';
import { openWaypointsFile } from './waypoints-file.ts';

/** The control plane cannot start; the message says why and what to do. The process ends with `exitCode`. */
export class StartError extends Error {
  override readonly name = 'StartError';
  readonly exitCode = 1;
}

/** A control plane that serves. Disposing of it stops it. */
export interface ControlPlane extends AsyncDisposable {
  /** Where it listens. */
  readonly port: number;
}

/** Longest life of a certificate that may be asked for; it gets what the configuration says at most. */
const LONGEST_TTL_MS = 90 * 24 * 3_600_000;

/**
 * Runs a control plane until the signal aborts.
 * @throws StartError
 */
export async function runControlPlane(
  config: ControlPlaneConfig,
  signal: AbortSignal,
  logger: Logger = pino({ level: config.logLevel }),
): Promise<void> {
  await using _controlPlane = await openControlPlane(config, logger);
  if (!signal.aborted) await once(signal, 'abort');
  logger.info('control plane stopping');
}

/**
 * Opens the authority, the sources and the servers, in this order: nobody is served before the first configuration is
 * derived, so that a restart takes nothing away from anyone.
 * @throws StartError
 */
export async function openControlPlane(config: ControlPlaneConfig, logger: Logger): Promise<ControlPlane> {
  await using opened = new AsyncDisposableStack();
  try {
    const port = await openParts(config, logger, opened);
    logger.info({ address: config.listen.ip, port, state: config.stateDirectory }, 'control plane ready');
    const stack = opened.move();
    return { port, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  } catch (error) {
    throw startError(error);
  }
}

async function openParts(
  config: ControlPlaneConfig,
  logger: Logger,
  opened: AsyncDisposableStack,
): Promise<number> {
  const { stateDirectory, paths, listen } = config;
  checkStateFolder(stateDirectory);
  const files = opened.use(await openFileSource({ paths, stateDirectory }));
  const local = opened.use(await openLocalSource({ stateDirectory }));
  const stores = openStores(stateDirectory);
  const objects = mergeObjectSets(files.current(), local.current());
  const first = nextMeshState(objects, {
    ...stores,
    previous: undefined,
    // What the authority that is there was last used for.
    trustDomain: hasAuthority(stateDirectory) ? stores.settings?.current()?.trustDomain : undefined,
    nowMs: Date.now(),
  });
  const { trustDomain, rootNamespace } = first.snapshot.settings;
  const authority = await openAuthority({ directory: join(stateDirectory, 'ca'), trustDomain });
  const issued = opened.adopt(openIssuedLog(join(stateDirectory, 'issued.sqlite')), (log) => log.close());
  const revocations = openRevocations(join(stateDirectory, 'ca', 'revoked.json'));
  const tokens = openCallerTokens(join(stateDirectory, 'tokens'));
  const shortages = new Shortages();
  const onShortage = (subject: string, error: string): void => shortages.note(subject, error);
  const discovery = createDiscoveryServer({ tokens, logger: logger.child({ component: 'xds' }), onShortage });
  const enrolment = openEnrolmentFiles(stateDirectory, config.nodes);
  const wanted = openWaypointsFile(join(stateDirectory, 'run', 'waypoints.json'));

  let faults: readonly FaultInForce[] = [];
  const publish = (state: MeshState): void => {
    const { inForce } = state.snapshot.faults;
    logFaults(faults, inForce, logger);
    faults = inForce;
    discovery.publish(state.served);
    enrolment.write(state.snapshot.enrolment);
    wanted.write(state.snapshot.wantedWaypoints);
  };
  publish(first);
  const options = { files, local, stores, first, trustDomain, onState: publish, logger };
  const mesh: MeshLoop = opened.use(followSources(options));
  const signer = signerService({ config, authority, tokens, issued, revocations, mesh, logger });
  const issue = (): ReturnType<typeof issueServerCertificate> =>
    issueServerCertificate(authority, { ip: listen.ip, rootNamespace });
  const services = [discovery, signer];
  const grpc = opened.use(
    await listenGrpc({
      host: listen.ip,
      port: listen.port,
      certificate: await issue(),
      services,
      tokens,
      onShortage,
      logger,
    }),
  );
  const certificate = opened.use(renewServerCertificate({ issue, onRenewed: grpc.setCertificate, logger }));
  const ca = opened.use(
    openMeshAuthority({
      ...{
        authority,
        discovery,
        tokens,
        issued,
        revocations,
        state: mesh.state,
        svidTtlMs: config.svidTtlMs,
      },
      onSigner: certificate.renewNow,
      logger: logger.child({ component: 'ca' }),
    }),
  );
  const status = (): unknown =>
    controlPlaneStatus({
      state: mesh.state(),
      problems: mesh.problems(),
      discovery,
      issued: issued.latest(),
      svidTtlMs: config.svidTtlMs,
      rotation: ca.rotation(),
      shortages: shortages.current(),
      nowMs: Date.now(),
    });
  const routes = new Map<string, () => unknown>([
    ['/status', status],
    ['/ca', ca.report],
    ['/resources', () => servedResources(mesh.state())],
    ['/waypoints', () => servedWaypoints(mesh.state())],
    ['/enrolment', () => ({ nodes: Object.fromEntries(enrolment.current()) })],
  ]);
  opened.use(
    await serveStatusSocket(join(stateDirectory, 'run', 'control-plane.sock'), routes, authorityOrders(ca)),
  );
  return grpc.port;
}

function hasAuthority(stateDirectory: string): boolean {
  return existsSync(join(stateDirectory, 'ca', 'root.pem'));
}

function openStores(stateDirectory: string): MeshStores {
  const folder = join(stateDirectory, 'config');
  return {
    vips: openVipFile(join(folder, 'vips.json')),
    settings: openSettingsFile(join(folder, 'settings.json')),
    faults: openFaultFile(join(folder, 'faults.json')),
  };
}

function signerService(parts: {
  readonly config: ControlPlaneConfig;
  readonly authority: Authority;
  readonly tokens: CallerTokens;
  readonly issued: IssuedLog;
  readonly revocations: Revocations;
  readonly mesh: MeshLoop;
  readonly logger: Logger;
}): SignerService {
  const { config, authority, tokens, issued, revocations, mesh, logger } = parts;
  return createSignerService({
    // Whatever a client asks for, nothing outlives what the operator wants.
    authority: {
      trustDomain: authority.trustDomain,
      get notAfterMs() {
        return authority.notAfterMs;
      },
      bundlePem: () => authority.bundlePem(),
      issueServer: (request) => authority.issueServer(request),
      issue: (request) => authority.issue({ ...request, ttlMs: Math.min(request.ttlMs, config.svidTtlMs) }),
    },
    authenticate: (metadata) => signingCaller(tokens.authenticate(metadata), authority.trustDomain),
    mayImpersonate: ({ node, identity: own }, identity) =>
      own === undefined && isOnNode(mesh.state(), node, identity),
    isRevoked: revocations.isRevoked,
    record: (record) => issued.record(record),
    logger: logger.child({ component: 'ca' }),
    defaultTtlMs: config.svidTtlMs,
    maxTtlMs: LONGEST_TTL_MS,
  });
}

/** A node asks for the identities of its workloads, a waypoint for its own: that of the Gateway's service account. */
function signingCaller(caller: Authentication, trustDomain: string): SigningCaller | undefined {
  switch (caller.kind) {
    case 'refused':
      return undefined;
    case 'node':
      return { node: caller.node };
    case 'waypoint': {
      const { namespace, name } = caller;
      return { node: formatCaller(caller), identity: { trustDomain, namespace, serviceAccount: name } };
    }
  }
}

function checkStateFolder(path: string): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) throw new StartError(`state folder ${path} is not there; \`tulle up --state ${path}\` makes it`);
  if (!stat.isDirectory())
    throw new StartError(`${path} is not a folder; name the state folder with --state`);
}

/** An error whose message is for the operator becomes a StartError that says the same; anything else is a defect. */
function startError(error: unknown): unknown {
  const kinds = [
    ListenError,
    StatusSocketError,
    FaultFileError,
    VipFileError,
    SettingsFileError,
    AuthorityError,
    IssuedLogError,
  ];
  const isExpected =
    error instanceof Error && (kinds.some((kind) => error instanceof kind) || 'syscall' in error);
  return isExpected ? new StartError(error.message, { cause: error.cause }) : error;
}
