import { z } from 'zod';
import type { CarriedRecord, ConnectionFacts, ConnectionInfo } from '../connection-record.ts';
import type { DetachedSocket } from '../hbone/detached-socket.ts';

/** Which end of what it is; `waypoint`: both ends of a tunnel through one, without a socket. */
export type CarriedKind = (typeof KINDS)[number];

const KINDS = ['outbound-tunnel', 'inbound-tunnel', 'passthrough', 'plaintext', 'same-node'] as const;

/**
 * What has become of a connection that a restart met, as the metric says it: another process has it; it was left to end where
 * it was, and why; or it was reset, and why.
 */
export type HandOverOutcome = 'handed_over' | `drained_${string}` | `reset_${string}`;

/** What policy is asked of a connection between two pods of one node, and who its ends have to be. */
export interface CarriedEnds {
  readonly sourceIp: string;
  readonly destinationIp: string;
  readonly destinationPort: number;
  /** SPIFFE IDs. */
  readonly expected: readonly string[];
}

/** An established connection on its way to another thread or process. Its descriptors belong to whoever holds it. */
export interface CarriedConnection {
  /** 32 hexadecimal digits: the connection's own in a tunnel that has one, else made for this. */
  readonly id: string;
  readonly kind: CarriedKind;
  readonly podUid: string;
  /** The pod at the other end, for `same-node`. */
  readonly otherPodUid?: string;
  readonly record: CarriedRecord;
  /** Downstream first, if both are sockets; of a tunnel the application's alone. */
  readonly sockets: readonly DetachedSocket[];
  /** For `same-node` and `plaintext`. */
  readonly ends?: CarriedEnds;
  /** Who alone may claim it, and for what, where it waits for that; absent: it is taken up at once. */
  readonly claimant?: string;
  /** What a tunnel needs beyond; JSON, which whoever takes it up parses. */
  readonly tunnel?: unknown;
}

/** Thrown for what is no carried connection. */
export class CarriedError extends Error {
  override readonly name = 'CarriedError';
}

/** As a value for JSON; descriptors by their numbers in this process. */
export function formatCarried(connection: CarriedConnection): object {
  const sockets = connection.sockets.map((socket) => ({
    ...socket,
    unsent: Buffer.from(socket.unsent).toString('base64'),
  }));
  return { ...connection, sockets };
}

/** @param value parsed JSON @throws CarriedError naming the field that is wrong */
export function parseCarried(value: unknown): CarriedConnection {
  const parsed = CARRIED.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new CarriedError(`not a carried connection: ${issue?.path.join('.')}: ${issue?.message}`);
}

const count = z.number().int().nonnegative();
const peer = z.strictObject({
  address: z.string(),
  workload: z
    .strictObject({
      name: z.string(),
      namespace: z.string(),
      workloadName: z.string(),
      canonicalName: z.string(),
      canonicalRevision: z.string(),
      cluster: z.string(),
      region: z.string(),
      zone: z.string(),
    })
    .exactOptional(),
  identity: z.string().exactOptional(),
});
const service = z.strictObject({ hostname: z.string(), name: z.string(), namespace: z.string() });
const direction = z.enum(['inbound', 'outbound']);
const facts: z.ZodType<ConnectionFacts> = z.strictObject({
  direction,
  source: peer,
  waypoint: z.string().exactOptional(),
  destination: peer,
  hboneAddress: z.string().exactOptional(),
  service: service.exactOptional(),
  impliedService: service.exactOptional(),
  security: z.enum(['mutual_tls', 'same_node', 'unknown']),
  connectionId: z.string().exactOptional(),
  policy: z.string().exactOptional(),
  reason: z.string().exactOptional(),
  dryRun: z.string().exactOptional(),
});
const info: z.ZodType<ConnectionInfo> = z.strictObject({
  podUid: z.string(),
  direction,
  source: z.string(),
  destination: z.string(),
  identity: z.string().exactOptional(),
  protocol: z.enum(['HBONE', 'TCP', 'SAME_NODE']),
  destinationPodUid: z.string().exactOptional(),
});
const socket: z.ZodType<DetachedSocket> = z
  .strictObject({
    fd: count.max(0x7fffffff).exactOptional(),
    hasEnded: z.boolean(),
    hasFinished: z.boolean(),
    unsent: z.base64(),
  })
  .transform(({ fd, unsent, ...state }) => ({ ...state, fd, unsent: Buffer.from(unsent, 'base64') }));

const CARRIED: z.ZodType<CarriedConnection> = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{32}$/),
  kind: z.enum(KINDS),
  podUid: z.string(),
  otherPodUid: z.string().exactOptional(),
  record: z.strictObject({
    facts,
    info,
    openedAtMs: z.number(),
    told: z.strictObject({ received: count, sent: count }),
  }),
  sockets: z.array(socket).max(2),
  ends: z
    .strictObject({
      sourceIp: z.string(),
      destinationIp: z.string(),
      destinationPort: count.max(65_535),
      expected: z.array(z.string()).max(64),
    })
    .exactOptional(),
  claimant: z.string().exactOptional(),
  tunnel: z.unknown().optional(),
});
