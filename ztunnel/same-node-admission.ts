import type { Workload } from '#api/workload.ts';
import { formatIdentity, type Identity, identitiesEqual } from '#certs/identity.ts';
import { haveShakenHands, shakeHands } from '#certs/in-process-handshake.ts';
import { isRevoked } from '#certs/revoked.ts';
import type { Svid } from '#certs/svid.ts';
import type { Failure } from './connection-record.ts';
import { denial, type LiveConnection, type Permission } from './connections.ts';
import { CONFIGURATION_WAIT_MS, type DataPath, type ServedPod } from './data-path.ts';
import { identityOf } from './identity-of.ts';
import { authorizeNow, authorizeWhenKnown } from './permission.ts';
import type { InboundConnection } from './policy/verdict.ts';
import { withoutSvid } from './worker-svids.ts';

/** Two pods of this node, of which one calls the other: what both ends of a tunnel would know of each other. */
export interface NodePair {
  readonly path: DataPath;
  readonly pod: ServedPod;
  readonly source: Workload;
  readonly destinationPod: ServedPod;
  readonly destinationWorkload: Workload;
  /** Whom the caller would accept. */
  readonly expected: readonly Identity[];
  /** What policy is asked. */
  readonly connection: InboundConnection;
  /** SPIFFE IDs. */
  readonly sourceId: string;
  readonly destinationId: string;
}

/** The certificates that were shown for it, as a tunnel's session would hold them. */
const shown = new WeakMap<NodePair, readonly [source: Svid, destination: Svid]>();

/** Why they are not who they have to be, if they are not: as between nodes, where a TLS handshake would say so. */
export function proveIdentities(pair: NodePair): undefined | Promise<Failure | undefined> {
  const { svids } = pair.path;
  const source = svids.current(pair.sourceId);
  const destination = svids.current(pair.destinationId);
  const isProven = source !== undefined && destination !== undefined && haveShakenHands(source, destination);
  if (isProven && isExpected(pair, destination)) {
    shown.set(pair, [source, destination]);
    return undefined;
  }
  return proveLater(pair);
}

/** Why policy does not let it in, if it does not. */
export async function admit(
  { path, destinationWorkload, connection }: NodePair,
  live: LiveConnection,
): Promise<Failure | undefined> {
  const asked = authorizeWhenKnown(path, destinationWorkload, connection);
  const verdict = asked instanceof Promise ? await asked : asked;
  live.decided(verdict);
  return verdict.kind === 'deny' ? denial(verdict) : undefined;
}

/** What the connection is there by, as long as it lives. */
export function pairPermission(pair: NodePair): Permission {
  const { path, destinationWorkload, connection } = pair;
  return {
    workloadUid: destinationWorkload.uid,
    verdict: () => authorizeNow(path, destinationWorkload, connection),
    lostIdentity: () => lostIdentity(pair),
  };
}

async function proveLater(pair: NodePair): Promise<Failure | undefined> {
  const { path, source, destinationWorkload, expected } = pair;
  const [client, server] = await Promise.all(
    [source, destinationWorkload].map((workload) =>
      path.svids.until(identityOf(workload), CONFIGURATION_WAIT_MS),
    ),
  );
  if (client === undefined)
    return { error: withoutSvid(identityOf(source), 'source'), flags: 'IDENTITY_ERROR' };
  if (server === undefined)
    return { error: withoutSvid(identityOf(destinationWorkload), 'destination'), flags: 'IDENTITY_ERROR' };
  if (!isExpected(pair, server)) {
    const wanted = expected.map(formatIdentity).join(', ');
    const error = `the destination is ${formatIdentity(server.identity)}, expected ${wanted}`;
    return { error, flags: 'TLS_FAILURE' };
  }
  const handshake = await shakeHands(client, server);
  shown.set(pair, [client, server]);
  if (handshake.kind === 'accepted') return undefined;
  return {
    error: `the certificates of source and destination do not accept each other: ${handshake.reason}`,
    flags: 'TLS_FAILURE',
  };
}

function isExpected({ expected }: NodePair, { identity }: Svid): boolean {
  return expected.some((each) => identitiesEqual(each, identity));
}

/** Nobody asks of a pod that is released: its connections end in peace, as those in tunnels do. */
function lostIdentity(pair: NodePair): Failure | undefined {
  const { path, pod, destinationPod, sourceId, destinationId } = pair;
  const { pods, svids } = path;
  const revoked = shown.get(pair)?.find(isRevoked);
  if (revoked !== undefined) {
    const error = `connection closed because the certificate ${revoked.serial} of ${formatIdentity(revoked.identity)} is revoked`;
    return { error, flags: 'IDENTITY_ERROR' };
  }
  const lost =
    (pods.has(pod) && svids.current(sourceId) === undefined && sourceId) ||
    (pods.has(destinationPod) && svids.current(destinationId) === undefined && destinationId);
  if (lost === false) return undefined;
  return {
    error: `connection closed because the certificate of ${lost} is no longer valid here`,
    flags: 'IDENTITY_ERROR',
  };
}
