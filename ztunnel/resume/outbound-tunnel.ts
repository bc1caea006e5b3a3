import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { type HostPort, isIp } from '#api/address.ts';
import { formatIdentity, parseIdentity } from '#certs/identity.ts';
import type { LiveConnection } from '../connections.ts';
import { CONFIGURATION_WAIT_MS, type DataPath, type ServedPod, workloadOf } from '../data-path.ts';
import type { CarriedConnection } from '../hand-over/carried.ts';
import { attachSocket } from '../hbone/attach-socket.ts';
import { HboneError } from '../hbone/error.ts';
import { CONNECTION_ID_HEADER, fieldOf, RESUME_HEADER } from '../hbone/headers.ts';
import type { Leg } from '../hbone/leg.ts';
import { askPatiently, type OpenTunnel } from '../hbone/pool.ts';
import type { TunnelStream } from '../hbone/stream.ts';
import { identityOf } from '../identity-of.ts';
import type { TunnelHop } from '../next-hop.ts';
import { describeStatus, failureOf } from '../outbound-record.ts';
import { connectFields } from '../tunnel-headers.ts';
import { withoutSvid } from '../worker-svids.ts';
import { holdTunnel, type SettledEnd } from './hold-tunnel.ts';

/** What the calling end of a tunnel asks for again: what its CONNECT said, and whom it may ask. */
export interface OutboundTunnel {
  readonly authority: string;
  /** The application's end. */
  readonly client: HostPort;
  /** Of the service that it addressed. */
  readonly hostname?: string;
  readonly hop: HostPort;
  /** SPIFFE IDs: the peer has to be one of these. */
  readonly expected: readonly string[];
}

const hostPort = z.strictObject({ ip: z.string().refine(isIp), port: z.number().int().min(0).max(65_535) });
const OUTBOUND_TUNNEL: z.ZodType<OutboundTunnel> = z.strictObject({
  authority: z.string().max(512),
  client: hostPort,
  hostname: z.string().max(512).exactOptional(),
  hop: hostPort,
  expected: z.array(z.string().max(2_048)).min(1).max(64),
});

/** The calling end of a tunnel. */
export interface OutboundEnd {
  readonly path: DataPath;
  readonly pod: ServedPod;
  readonly live: LiveConnection;
  /** ID of the connection. */
  readonly id: string;
  readonly tunnel: OutboundTunnel;
}

/** How long it is tried to take a tunnel up again, and how long to wait after a try in vain. */
const RESUME_MS = 10_000;
const RETRY_MS = 100;

/** Has a tunnel whose bytes are being copied handed over, if the server is one that can: it has said the connection's ID back. */
export function holdOutbound(end: OutboundEnd, { connection, stream, fields }: OpenTunnel): void {
  const { path, live, id } = end;
  if (fieldOf(fields, CONNECTION_ID_HEADER) !== id) return;
  holdTunnel({
    ...{ path, live, id, stream },
    kind: 'outbound-tunnel',
    session: connection,
    side: 'upstream',
    onSettled: (settled) =>
      void (settled.isRetiring
        ? give(end, settled)
        : resume(end, attachSocket(settled.socket, end.pod.sockets))),
  });
}

/** Takes up what another process had, and asks its destination for it. Never rejects. */
export async function adoptOutbound(
  path: DataPath,
  { id, podUid, record, sockets: [socket], tunnel }: CarriedConnection,
): Promise<void> {
  if (socket === undefined) return;
  const pod = path.pods.ofUid(podUid);
  const leg = attachSocket(socket, pod?.sockets);
  const { facts, info } = record;
  const live = path.connections.open({ pod: pod ?? {}, facts, info, giveUp: () => leg.abort() }, record);
  const parsed = OUTBOUND_TUNNEL.safeParse(tunnel);
  if (pod !== undefined && parsed.success) {
    const isJoined = await resume({ path, pod, live, id, tunnel: parsed.data }, leg);
    if (isJoined) path.handOver.count('outbound-tunnel', 'handed_over');
    return;
  }
  leg.abort();
  const why = pod === undefined ? 'its pod is not served here' : 'it says nothing of its tunnel';
  live.fail({ error: `connection not taken over: ${why}`, flags: '-' });
  path.handOver.count('outbound-tunnel', 'reset_gone');
}

/** To the successor of this process; if there is none after all, it goes on here, to its end. */
async function give(end: OutboundEnd, { record, socket }: SettledEnd): Promise<void> {
  const { path, pod, live, id, tunnel } = end;
  const settled = await path.handOver.offer({
    ...{ id, record, tunnel },
    kind: 'outbound-tunnel',
    podUid: pod.info.uid,
    sockets: [socket],
  });
  if (settled === 'taken') live.leave();
  else await join(end, attachSocket(socket, pod.sockets));
}

async function resume(end: OutboundEnd, leg: Leg): Promise<boolean> {
  const answered = await join(end, leg);
  if (answered !== undefined) holdOutbound(end, answered);
  return answered !== undefined;
}

/** Joins an application to the other end of its tunnel; what cannot be joined is reset. Never rejects. */
async function join(end: OutboundEnd, leg: Leg): Promise<OpenTunnel | undefined> {
  const { path, live } = end;
  let stream: TunnelStream | undefined;
  live.regain(() => {
    leg.abort();
    stream?.abort('CANCEL');
  });
  try {
    const answered = await ask(end, (opened) => {
      stream = opened;
      if (live.isOver) opened.abort('CANCEL');
    });
    const status = fieldOf(answered.fields, ':status') ?? 'none';
    if (status !== '200') {
      answered.stream.abort('CANCEL');
      throw new HboneError(`http status: ${describeStatus(status)}`, { code: 'BAD_STATUS' });
    }
    live.carry(leg, answered.stream);
    return answered;
  } catch (error) {
    leg.abort();
    const failure = failureOf(error);
    live.fail({ ...failure, error: `not taken up after a restart: ${failure.error}` });
    path.handOver.count('outbound-tunnel', 'reset_not_resumed');
    return undefined;
  }
}

/** Sends the CONNECT until somebody answers it. @throws HboneError */
async function ask(
  { path, pod, live, id, tunnel }: OutboundEnd,
  onStream: (stream: TunnelStream) => void,
): Promise<OpenTunnel> {
  const { authority, client, hostname, hop, expected } = tunnel;
  const deadline = performance.now() + RESUME_MS;
  const source = await workloadOf(path, pod);
  if (source === undefined) throw new HboneError('the source is not known yet', { code: 'NO_IDENTITY' });
  const svid = await path.svids.until(identityOf(source), CONFIGURATION_WAIT_MS);
  if (svid === undefined)
    throw new HboneError(withoutSvid(identityOf(source), 'source'), { code: 'NO_IDENTITY' });
  const service = hostname === undefined ? undefined : { hostname };
  const fields = [
    ...connectFields({ authority, source, client, service, connectionId: id }),
    [RESUME_HEADER, id] as const,
  ];
  const target = {
    svid,
    expected: expected.map(parseIdentity),
    caller: pod.id,
    hop,
    sockets: pod.sockets,
  };
  for (;;) {
    try {
      return await askPatiently((onAsked) =>
        path.pool.open(target, fields, (opened) => {
          onAsked(opened);
          onStream(opened);
        }),
      );
    } catch (error) {
      const isGone = error instanceof HboneError && RETRIED.has(error.code);
      if (!isGone || live.isOver || performance.now() > deadline) throw error;
    }
    await delay(RETRY_MS);
  }
}

/** Nobody has looked at the request, or nobody can tell: who asks twice is answered once. */
const RETRIED: ReadonlySet<string> = new Set(['CONNECT_FAILED', 'SESSION_LOST']);

/** What it takes to ask for a tunnel again. @param client the application's end */
export function outboundTunnel(
  client: HostPort,
  { authority, service, hop, expected }: TunnelHop,
): OutboundTunnel {
  return {
    ...{ authority, client, hop },
    ...(service !== undefined && { hostname: service.hostname }),
    expected: expected.map(formatIdentity),
  };
}
