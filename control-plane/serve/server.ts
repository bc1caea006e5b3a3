import { Metadata, type ServiceDefinition, status, type UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { DISCOVERY_SERVICE } from '#api/discovery.ts';
import type { ResourceType } from '#api/resource.ts';
import type { NodeTokens } from './node-tokens.ts';
import type { ServedSnapshot } from './served-snapshot.ts';
import { ClientStream, type DiscoveryCall } from './stream.ts';
import type { SubscriptionStatus } from './subscription.ts';

/** What is known of one node's ztunnel; its node agent is served as well, and not counted. */
export interface ClientStatus {
  readonly node: string;
  readonly connected: boolean;
  /** Of the newest stream, or of the last one if there is none. */
  readonly xds: readonly SubscriptionStatus[];
}

/** Delta ADS for nodes. */
export interface DiscoveryServer {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
  /** What is served from now on; clients get what they lack of it. Until the first one they wait. */
  readonly publish: (snapshot: ServedSnapshot) => void;
  /** Every node that has a token or was here before, sorted. */
  readonly clients: () => readonly ClientStatus[];
  /** Whether the node's newest stream took that resource as it was last sent. */
  readonly hasAcked: (node: string, type: ResourceType, name: string) => boolean;
}

/** Limits on what one client can make the server hold. */
export interface DiscoveryLimits {
  /** Names that one subscription may hold. Default 200 000. */
  readonly maxNames?: number;
  /** Streams of one node: a restarting ztunnel has two for a while. Default 16. */
  readonly maxStreamsPerNode?: number;
}

/** Creates the service; nothing runs until a gRPC server takes calls for it. */
export function createDiscoveryServer(options: {
  readonly tokens: NodeTokens;
  readonly logger: Logger;
  readonly limits?: DiscoveryLimits;
}): DiscoveryServer {
  const { tokens, logger } = options;
  const maxNames = options.limits?.maxNames ?? 200_000;
  const maxStreams = options.limits?.maxStreamsPerNode ?? 16;
  const streams = new Map<string, Set<ClientStream>>();
  const lastSeen = new Map<string, readonly SubscriptionStatus[]>();
  let snapshot: ServedSnapshot | undefined;

  const accept = (call: DiscoveryCall): void => {
    const caller = tokens.authenticate(call.metadata);
    if (caller.kind === 'refused') {
      logger.warn({ peer: call.getPeer(), reason: caller.reason }, 'client not authenticated');
      call.emit('error', { code: status.UNAUTHENTICATED, details: caller.reason });
      return;
    }
    const { node } = caller;
    const ofNode = streams.get(node) ?? new Set();
    streams.set(node, ofNode);
    if (ofNode.size >= maxStreams) {
      const details = `node ${node} has ${ofNode.size} streams open`;
      logger.warn({ peer: call.getPeer(), node, reason: details }, 'client refused');
      call.emit('error', { code: status.RESOURCE_EXHAUSTED, details });
      return;
    }
    const stream: ClientStream = new ClientStream({
      call,
      node,
      maxNames,
      snapshot,
      logger,
      onClose: () => {
        ofNode.delete(stream);
        if (stream.isZtunnel) lastSeen.set(node, stream.status());
        logger.info({ peer: call.getPeer(), node }, 'client disconnected');
      },
    });
    ofNode.add(stream);
    call.sendMetadata(new Metadata()); // Some clients wait for it before they read.
    logger.info({ peer: call.getPeer(), node }, 'client connected');
  };

  const newest = (node: string): ClientStream | undefined =>
    [...(streams.get(node) ?? [])].findLast((stream) => stream.isZtunnel);

  return {
    definition: DISCOVERY_SERVICE,
    implementation: { deltaAggregatedResources: accept },
    publish: (next) => {
      snapshot = next;
      for (const ofNode of streams.values()) for (const stream of ofNode) stream.publish(next);
    },
    clients: () =>
      [...new Set([...tokens.nodes(), ...lastSeen.keys(), ...streams.keys()])].sort().map((node) => {
        const stream = newest(node);
        return { node, connected: stream !== undefined, xds: stream?.status() ?? lastSeen.get(node) ?? [] };
      }),
    hasAcked: (node, type, name) => newest(node)?.hasAcked(type, name) ?? false,
  };
}
