import type { Socket } from 'node:net';
import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { type ConnectionFacts, connectFailure, failedRecord } from './connection-record.ts';
import { denial } from './connections.ts';
import {
  CONNECT_TIMEOUT_MS,
  type DataPath,
  destinationOf,
  remoteOf,
  type ServedPod,
  unknownPeer,
  workloadOf,
} from './data-path.ts';
import { dialled, GIVEN_UP } from './dial.ts';
import { SocketLeg } from './hbone/socket-leg.ts';
import { MESH_PORTS } from './inbound-target.ts';
import { describeWorkload } from './peers.ts';
import { authorizeNow, authorizeWhenKnown } from './permission.ts';
import type { InboundConnection } from './policy/verdict.ts';

/** A connection that came in without a tunnel: nothing proves who makes it. */
interface PlainCall {
  readonly path: DataPath;
  readonly pod: ServedPod;
  readonly workload: Workload;
  readonly leg: SocketLeg;
  readonly client: HostPort;
  readonly destination: HostPort;
}

/**
 * Serves a plaintext connection to the pod: if policy lets in somebody without an identity, carries it to the
 * application with the caller's address. Whatever goes wrong, the caller sees a reset. Never rejects. Fact sheet
 * ambient-wire.md, 3.4.
 */
export async function servePlaintext(path: DataPath, pod: ServedPod, socket: Socket): Promise<void> {
  const leg = new SocketLeg(socket);
  const client = remoteOf(socket);
  const destination = destinationOf(pod, socket);
  if (client === undefined || destination === undefined) return leg.abort();
  if (MESH_PORTS.has(destination.port)) {
    turnAway({ path, leg, client, destination }, 'attempted recursive call to ourselves');
    return;
  }
  const workload = await workloadOf(path, pod);
  if (workload === undefined) {
    turnAway({ path, leg, client, destination }, 'the workload is not known yet');
    return;
  }
  // A neighbour on the wire can address a frame to the pod and the packet to its loopback, or to anybody.
  if (!workload.addresses.includes(destination.ip)) {
    turnAway({ path, leg, client, destination }, `${destination.ip} is no address of the workload`);
    return;
  }
  await connect({ path, pod, workload, leg, client, destination });
}

async function connect({ path, pod, workload, leg, client, destination }: PlainCall): Promise<void> {
  const connection: InboundConnection = {
    sourceIp: client.ip,
    destinationIp: destination.ip,
    destinationPort: destination.port,
  };
  let application: Socket | undefined;
  const live = path.connections.open({
    pod,
    facts: factsOf({ path, workload, client, destination }),
    info: {
      podUid: pod.info.uid,
      direction: 'inbound',
      source: formatHostPort(client),
      destination: formatHostPort(destination),
      protocol: 'TCP',
    },
    permission: { workloadUid: workload.uid, verdict: () => authorizeNow(path, workload, connection) },
    giveUp: () => {
      leg.abort();
      application?.destroy(GIVEN_UP);
    },
    carriage: { kind: 'plaintext', podUid: pod.info.uid, ends: { ...connection, expected: [] } },
  });
  const verdict = await authorizeWhenKnown(path, workload, connection);
  live.decided(verdict);
  if (verdict.kind === 'deny') {
    leg.abort();
    live.fail(denial(verdict));
    return;
  }
  const isItself = client.ip === destination.ip;
  const caller = path.config.originalSource && !isItself ? client : undefined;
  try {
    const dial = (): Socket => {
      application = pod.sockets.dial(destination, caller);
      return application;
    };
    live.carry(leg, new SocketLeg(await dialled(dial, CONNECT_TIMEOUT_MS, pod.dials.inbound)));
  } catch (error) {
    leg.abort();
    live.fail(connectFailure(error));
  }
}

function turnAway(
  { path, leg, client, destination }: Pick<PlainCall, 'path' | 'leg' | 'client' | 'destination'>,
  error: string,
): void {
  leg.abort();
  const facts: ConnectionFacts = {
    direction: 'inbound',
    source: unknownPeer(client),
    destination: unknownPeer(destination),
    security: 'unknown',
  };
  path.record(failedRecord(facts, { error, flags: '-' }));
}

function factsOf({
  path,
  workload,
  client,
  destination,
}: Pick<PlainCall, 'path' | 'workload' | 'client' | 'destination'>): ConnectionFacts {
  const source = path.tables.workloadByIp(path.config.network, client.ip);
  return {
    direction: 'inbound',
    source: { address: formatHostPort(client), ...(source && { workload: describeWorkload(source) }) },
    destination: { address: formatHostPort(destination), workload: describeWorkload(workload) },
    security: 'unknown',
  };
}
