import { isIp, parseIp } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity, type Identity, parseIdentity } from '#certs/identity.ts';
import type { Failure } from './connection-record.ts';
import { denial, type LiveConnection, type Permission, type PodToken } from './connections.ts';
import { type DataPath, type ServedPod, workloadOf } from './data-path.ts';
import type { CarriedConnection, CarriedEnds } from './hand-over/carried.ts';
import { attachSocket } from './hbone/attach-socket.ts';
import { identityOf } from './identity-of.ts';
import { authorizeNow, authorizeWhenKnown } from './permission.ts';
import type { InboundConnection } from './policy/verdict.ts';
import { admit, type NodePair, pairPermission, proveIdentities } from './same-node-admission.ts';

/** Who a connection of another process's is of here, and whether it may go on. */
type Adoption =
  | {
      readonly kind: 'known';
      readonly pod: PodToken;
      readonly otherPod?: PodToken;
      readonly permission?: Permission;
      /** Why it may not, if so: asked afresh, as of a new one. */
      readonly admit: (live: LiveConnection) => Promise<Failure | undefined>;
    }
  | { readonly kind: 'unknown'; readonly error: string };

/**
 * Takes up a connection of two sockets that another process had: authorized afresh, then carried on. Its record goes on, too.
 * What may not go on, or whose pod has gone meanwhile, is reset. Never rejects but on a defect.
 */
export async function adopt(path: DataPath, connection: CarriedConnection): Promise<void> {
  const { kind, record, podUid, otherPodUid, ends } = connection;
  const pods = [podUid, otherPodUid ?? podUid].map((uid) => path.pods.ofUid(uid));
  const legs = connection.sockets.map((socket, at) => attachSocket(socket, pods[at]?.sockets));
  const abort = (): void => {
    for (const leg of legs) leg.abort();
  };
  const adoption = await adoptionOf(path, connection);
  const live = path.connections.open(
    {
      pod: adoption.kind === 'known' ? adoption.pod : {},
      ...(adoption.kind === 'known' && adoption.otherPod && { otherPod: adoption.otherPod }),
      ...(adoption.kind === 'known' && adoption.permission && { permission: adoption.permission }),
      facts: record.facts,
      info: record.info,
      giveUp: abort,
      carriage: { kind, podUid, ...(otherPodUid && { otherPodUid }), ...(ends && { ends }) },
    },
    record,
  );
  const failure = adoption.kind === 'known' ? await adoption.admit(live) : gone(adoption.error);
  const [downstream, upstream] = legs;
  if (live.isOver || failure !== undefined || downstream === undefined || upstream === undefined) {
    abort();
    live.fail(failure ?? gone('a socket is missing'));
    path.handOver.count(kind, failure?.flags === 'DENY' ? 'reset_denied' : 'reset_gone');
    return;
  }
  live.carry(downstream, upstream);
  path.handOver.count(kind, 'handed_over');
}

function gone(error: string): Failure {
  return { error: `connection not taken over: ${error}`, flags: '-' };
}

async function adoptionOf(path: DataPath, connection: CarriedConnection): Promise<Adoption> {
  const { kind, podUid, ends } = connection;
  const pod = path.pods.ofUid(podUid);
  if (pod === undefined) return { kind: 'unknown', error: 'its pod is not served here' };
  if (kind === 'passthrough') return { kind: 'known', pod, admit: async () => undefined };
  const workload = await workloadOf(path, pod);
  const asked = ends && questionOf(ends);
  if (workload === undefined || asked === undefined) {
    return { kind: 'unknown', error: 'its workload is not known here' };
  }
  if (kind === 'plaintext') return plaintext(path, pod, workload, asked);
  return await sameNode(path, connection, { pod, source: workload, asked });
}

/** Who has called, without an identity. */
function plaintext(path: DataPath, pod: ServedPod, workload: Workload, asked: InboundConnection): Adoption {
  return {
    kind: 'known',
    pod,
    permission: { workloadUid: workload.uid, verdict: () => authorizeNow(path, workload, asked) },
    admit: async (live) => {
      const verdict = await authorizeWhenKnown(path, workload, asked);
      live.decided(verdict);
      return verdict.kind === 'deny' ? denial(verdict) : undefined;
    },
  };
}

interface Caller {
  readonly pod: ServedPod;
  readonly source: Workload;
  readonly asked: InboundConnection;
}

async function sameNode(
  path: DataPath,
  { otherPodUid, ends }: CarriedConnection,
  { pod, source, asked }: Caller,
): Promise<Adoption> {
  const destinationPod = path.pods.ofUid(otherPodUid);
  const destinationWorkload = destinationPod && (await workloadOf(path, destinationPod));
  if (destinationPod === undefined || destinationWorkload === undefined) {
    return { kind: 'unknown', error: 'the pod at its other end is not served here' };
  }
  const pair: NodePair = {
    ...{ path, pod, source, destinationPod, destinationWorkload },
    expected: (ends?.expected ?? []).flatMap((each) => findIdentity(each) ?? []),
    connection: { ...asked, sourceIdentity: identityOf(source) },
    sourceId: formatIdentity(identityOf(source)),
    destinationId: formatIdentity(identityOf(destinationWorkload)),
  };
  return {
    kind: 'known',
    ...{ pod, otherPod: destinationPod, permission: pairPermission(pair) },
    admit: async (live) => (await proveIdentities(pair)) ?? (await admit(pair, live)),
  };
}

function questionOf({
  sourceIp,
  destinationIp,
  destinationPort,
}: CarriedEnds): InboundConnection | undefined {
  if (!isIp(sourceIp) || !isIp(destinationIp)) return undefined;
  return { sourceIp: parseIp(sourceIp), destinationIp: parseIp(destinationIp), destinationPort };
}

function findIdentity(text: string): Identity | undefined {
  try {
    return parseIdentity(text);
  } catch {
    return undefined; // It is nobody, whom no end can be.
  }
}
