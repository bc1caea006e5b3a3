import { Metadata, type ServiceDefinition, status, type UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { DISCOVERY_SERVICE } from '#api/discovery.ts';
import { SECRET_TYPE } from '#api/envoy/types.ts';
import { type Budget, createBudget } from './caller-budget.ts';
import { type Caller, type CallerTokens, formatCaller } from './caller-tokens.ts';
import { MeshSecrets } from './mesh-secrets.ts';
import type { ServedSnapshot } from './served-snapshot.ts';
import type { ServedType, ServedView } from './served-view.ts';
import { ClientStream, type DiscoveryCall } from './stream.ts';
import type { SubscriptionStatus } from './subscription.ts';

/** What is known of one node's ztunnel; its node agent is served as well, and not counted. */
export interface ClientStatus {
  readonly node: string;
  readonly connected: boolean;
  /** Of the newest stream, or of the last one if there is none. */
  readonly xds: readonly SubscriptionStatus[];
}

/** What is known of one waypoint: it has a stream for each of its processes. */
export interface WaypointClientStatus {
  readonly namespace: string;
  readonly name: string;
  /** One for each stream, oldest first. */
  readonly instances: readonly WaypointInstance[];
  /** Of the newest stream, or of the last one if there is none. */
  readonly xds: readonly SubscriptionStatus[];
}

/** One process of a waypoint. */
export interface WaypointInstance {
  /** What it says that it is called: `node.id`. */
  readonly id: string;
  /** Whether it has answered for all that it is to have. */
  readonly configured: boolean;
  readonly xds: readonly SubscriptionStatus[];
}

/** Delta ADS for nodes and waypoints. */
export interface DiscoveryServer {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
  /** What is served from now on; clients get what they lack of it. Until the first one they wait. */
  readonly publish: (snapshot: ServedSnapshot) => void;
  /** Secrets that everyone may ask for, by name. */
  readonly publishSecrets: (secrets: ReadonlyMap<string, Uint8Array>) => void;
  /** Whether that caller's processes have taken a secret as it is; `none`: some process does not ask for it, or there is none. */
  readonly secretState: (caller: Caller, name: string) => 'acknowledged' | 'pending' | 'none';
  /** Every node that has a token or was here before, sorted. */
  readonly clients: () => readonly ClientStatus[];
  /** Every waypoint that has a token or was here before, sorted. */
  readonly waypoints: () => readonly WaypointClientStatus[];
  /** Whether the caller's newest stream took that resource as it was last sent. */
  readonly hasAcked: (caller: Caller, type: ServedType, name: string) => boolean;
}

/** Limits on what one client can make the server hold. */
export interface DiscoveryLimits {
  /** Names that one subscription may hold. Default 200 000. */
  readonly maxNames?: number;
  /** Characters of names that all streams of one caller may have the server hold. Default 32 Mi. */
  readonly maxCharacters?: number;
  /** Streams of one caller: a restarting ztunnel has two for a while, a waypoint one for each replica. Default 64. */
  readonly maxStreams?: number;
  /** Bytes that all streams of one caller may leave unread before more is refused. Default 256 MiB. */
  readonly maxUnreadBytes?: number;
  /**
   * Milliseconds of the processor that the requests of one caller may take at once, and each second after that. A ztunnel with 200 000
   * resources that comes back takes half a second. Default 5000 and 200.
   */
  readonly processorMs?: { readonly most: number; readonly perSecond: number };
}

/** Nothing: for a waypoint whose Gateway is gone. */
const NO_VIEW: ServedView = {};

/** The streams of one caller, oldest first, and what was known when the last one went. */
interface Connections {
  readonly caller: Caller;
  readonly streams: Set<ClientStream>;
  readonly processor: Budget;
  lastSeen: readonly SubscriptionStatus[];
}

/** Creates the service; nothing runs until a gRPC server takes calls for it. */
export function createDiscoveryServer(options: {
  readonly tokens: CallerTokens;
  readonly logger: Logger;
  readonly limits?: DiscoveryLimits;
  /** Told of each stream for which there is no room. */
  readonly onShortage?: (subject: string, error: string) => void;
}): DiscoveryServer {
  const { tokens, logger } = options;
  const maxNames = options.limits?.maxNames ?? 200_000;
  const maxStreams = options.limits?.maxStreams ?? 64;
  const maxCharacters = options.limits?.maxCharacters ?? 32 * 1024 * 1024;
  const maxUnreadBytes = options.limits?.maxUnreadBytes ?? 256 * 1024 * 1024;
  const processorMs = options.limits?.processorMs ?? { most: 5000, perSecond: 200 };
  const connections = new Map<string, Connections>();
  const secrets = new MeshSecrets();
  let snapshot: ServedSnapshot | undefined;
  const viewFor = (of: ServedSnapshot, caller: Caller): ServedView => secrets.addTo(viewOf(of, caller));

  const connectionsOf = (caller: Caller): Connections => {
    const key = formatCaller(caller);
    const known = connections.get(key);
    if (known) return known;
    const made = {
      caller,
      streams: new Set<ClientStream>(),
      processor: createBudget(processorMs),
      lastSeen: [],
    };
    connections.set(key, made);
    return made;
  };

  const accept = (call: DiscoveryCall): void => {
    const caller = tokens.authenticate(call.metadata);
    const peer = call.getPeer();
    if (caller.kind === 'refused') {
      logger.warn({ peer, reason: caller.reason }, 'client not authenticated');
      call.emit('error', { code: status.UNAUTHENTICATED, details: caller.reason });
      return;
    }
    const ofCaller = connectionsOf(caller);
    const { streams } = ofCaller;
    const log = logger.child(loggedName(caller));
    const full = reasonAgainstAnother(ofCaller, maxStreams);
    if (full !== undefined) {
      log.warn({ peer, reason: full }, 'client refused');
      call.emit('error', { code: status.RESOURCE_EXHAUSTED, details: full });
      return;
    }
    const stream: ClientStream = new ClientStream({
      call,
      caller,
      maxNames,
      processor: ofCaller.processor,
      excess: () => {
        const characters = [...streams].reduce((sum, each) => sum + each.characters, 0);
        return characters > maxCharacters
          ? `the resource names of this client have more than ${maxCharacters} characters, in ${streams.size} streams`
          : undefined;
      },
      unreadExcess: () => {
        const waiting = [...streams].filter(({ unread }) => unread > 0);
        if (waiting.reduce((sum, { unread }) => sum + unread, 0) <= maxUnreadBytes) return undefined;
        const name = formatCaller(caller);
        const error = `${name} leaves more than ${maxUnreadBytes} bytes unread, in ${waiting.length} streams`;
        options.onShortage?.(`streams of ${name}`, error);
        return error;
      },
      view: snapshot && viewFor(snapshot, caller),
      logger: log,
      onClose: () => {
        streams.delete(stream);
        if (stream.isProxy) ofCaller.lastSeen = stream.status();
        log.info({ peer }, 'client disconnected');
      },
    });
    streams.add(stream);
    call.sendMetadata(new Metadata()); // Some clients wait for it before they read.
    log.info({ peer }, 'client connected');
  };

  const known = (): readonly Connections[] => {
    const callers = [...tokens.callers(), ...[...connections.values()].map(({ caller }) => caller)];
    const keys = new Map(callers.map((caller) => [formatCaller(caller), caller]));
    return [...keys].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, caller]) => connectionsOf(caller));
  };

  const publish = (next: ServedSnapshot): void => {
    snapshot = next;
    for (const { caller, streams } of connections.values())
      for (const stream of streams) stream.publish(viewFor(next, caller));
  };

  return {
    definition: DISCOVERY_SERVICE,
    implementation: { deltaAggregatedResources: accept },
    publish,
    publishSecrets: (next) => {
      secrets.set(next);
      if (snapshot) publish(snapshot);
    },
    secretState: (caller, name) => {
      const streams = [...(connections.get(formatCaller(caller))?.streams ?? [])];
      const asking = streams.filter((stream) => stream.isProxy);
      if (asking.length === 0 || asking.some((stream) => !stream.wants(SECRET_TYPE, name))) return 'none';
      return asking.every((stream) => stream.hasTaken(SECRET_TYPE, name)) ? 'acknowledged' : 'pending';
    },
    clients: () => known().flatMap(nodeStatus),
    waypoints: () => known().flatMap(waypointStatus),
    hasAcked: (caller, type, name) =>
      newest(connections.get(formatCaller(caller)))?.hasAcked(type, name) ?? false,
  };
}

function reasonAgainstAnother(
  { caller, streams, processor }: Connections,
  maxStreams: number,
): string | undefined {
  if (streams.size >= maxStreams) return `${formatCaller(caller)} has ${streams.size} streams open`;
  return processor.isSpent()
    ? `the requests of ${formatCaller(caller)} take too much time; wait some seconds`
    : undefined;
}

function viewOf(snapshot: ServedSnapshot, caller: Caller): ServedView {
  if (caller.kind === 'node') return snapshot.nodes;
  return snapshot.waypoints.get(`${caller.namespace}/${caller.name}`) ?? NO_VIEW;
}

function newest(connections: Connections | undefined): ClientStream | undefined {
  return [...(connections?.streams ?? [])].findLast((stream) => stream.isProxy);
}

function nodeStatus(connections: Connections): readonly ClientStatus[] {
  const { caller, lastSeen } = connections;
  if (caller.kind !== 'node') return [];
  const stream = newest(connections);
  return [{ node: caller.node, connected: stream !== undefined, xds: stream?.status() ?? lastSeen }];
}

function waypointStatus(connections: Connections): readonly WaypointClientStatus[] {
  const { caller, streams, lastSeen } = connections;
  if (caller.kind !== 'waypoint') return [];
  const { namespace, name } = caller;
  const instances = [...streams]
    .filter((stream) => stream.isProxy)
    .map((stream) => ({ id: stream.id, configured: stream.isConfigured, xds: stream.status() }));
  return [{ namespace, name, instances, xds: instances.at(-1)?.xds ?? lastSeen }];
}

function loggedName(caller: Caller): Readonly<Record<string, string>> {
  return caller.kind === 'node' ? { node: caller.node } : { waypoint: `${caller.namespace}/${caller.name}` };
}
