import { packAny } from '#api/envoy/any.ts';
import { TrafficDirection } from '#api/envoy/gen/envoy/config/core/v3/base_pb.ts';
import type {
  FilterChainSchema,
  ListenerFilterSchema,
} from '#api/envoy/gen/envoy/config/listener/v3/listener_components_pb.ts';
import { ListenerSchema } from '#api/envoy/gen/envoy/config/listener/v3/listener_pb.ts';
import { CorsSchema } from '#api/envoy/gen/envoy/extensions/filters/http/cors/v3/cors_pb.ts';
import { HTTPFaultSchema } from '#api/envoy/gen/envoy/extensions/filters/http/fault/v3/fault_pb.ts';
import { RouterSchema } from '#api/envoy/gen/envoy/extensions/filters/http/router/v3/router_pb.ts';
import { StatefulSessionSchema } from '#api/envoy/gen/envoy/extensions/filters/http/stateful_session/v3/stateful_session_pb.ts';
import { HttpInspectorSchema } from '#api/envoy/gen/envoy/extensions/filters/listener/http_inspector/v3/http_inspector_pb.ts';
import { TlsInspectorSchema } from '#api/envoy/gen/envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector_pb.ts';
import {
  HttpConnectionManager_CodecType,
  HttpConnectionManager_PathWithEscapedSlashesAction,
  HttpConnectionManager_ServerHeaderTransformation,
  HttpConnectionManagerSchema,
} from '#api/envoy/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.ts';
import { TcpProxySchema } from '#api/envoy/gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.ts';
import type { ListenerMetadata, RouteMetadata } from '#api/envoy/metadata.ts';
import { LISTENER_TYPE } from '#api/envoy/types.ts';
import type { Origin } from '../context.ts';
import { type Draft, draft, duration, type Fields, FROM_ADS, ownMetadata, typed } from './messages.ts';
import type { ListenerKind } from './names.ts';

/** What a listener is made of. */
export interface ListenerParts {
  readonly name: string;
  readonly kind: ListenerKind;
  readonly metadata: ListenerMetadata;
  /** For what is not HTTP: the first whose names fit; of `http` none. */
  readonly chains: readonly TcpChain[];
  readonly origin: Origin;
}

/** Where connections go that are not HTTP. */
export interface TcpChain {
  readonly name: string;
  /** Names in the ClientHello, `*.` may begin one; none: all. */
  readonly serverNames: readonly string[];
  /** Never empty; a weight is at least 1. */
  readonly clusters: readonly { readonly name: string; readonly weight: number }[];
  readonly metadata: RouteMetadata;
}

type ChainInit = Fields<typeof FilterChainSchema>;

const LISTENER = { type: LISTENER_TYPE, schema: ListenerSchema };
const MAX_CONNECT_ATTEMPTS = 2;

/** The listener of a port: what runs inside the tunnels to it. */
export function draftListener({ origin, ...parts }: ListenerParts): Draft {
  const { name, metadata } = parts;
  const fields = (): Fields<typeof ListenerSchema> => ({
    name,
    statPrefix: name,
    listenerSpecifier: { case: 'internalListener', value: {} },
    trafficDirection: TrafficDirection.INBOUND,
    listenerFilters: inspectors(parts),
    filterChains: filterChains(parts),
    metadata: ownMetadata(metadata),
  });
  return draft(LISTENER, { name, origin, parts }, fields);
}

function filterChains({ name, kind, chains }: Omit<ListenerParts, 'origin'>): ChainInit[] {
  const http = (applicationProtocols: readonly string[]): ChainInit => ({
    name: `${name}|${applicationProtocols[0] ?? 'http'}`,
    ...(applicationProtocols.length > 0 && {
      filterChainMatch: { applicationProtocols: [...applicationProtocols] },
    }),
    filters: [typed('envoy.filters.network.http_connection_manager', connectionManager(name))],
  });
  switch (kind) {
    case 'http':
      return [http([])];
    case 'auto':
      return [http(['http/1.1', 'http/1.0']), http(['h2c']), ...chains.map(toTcpChain)];
    case 'tls':
    case 'tcp':
      return chains.map(toTcpChain);
  }
}

function inspectors({ kind, chains }: Omit<ListenerParts, 'origin'>): Fields<typeof ListenerFilterSchema>[] {
  if (kind === 'auto') return [typed('envoy.filters.listener.http_inspector', packAny(HttpInspectorSchema))];
  return chains.some(({ serverNames }) => serverNames.length > 0) || kind === 'tls'
    ? [typed('envoy.filters.listener.tls_inspector', packAny(TlsInspectorSchema))]
    : [];
}

function toTcpChain({ name, serverNames, clusters, metadata }: TcpChain): ChainInit {
  const [first] = clusters;
  const proxy = packAny(TcpProxySchema, {
    statPrefix: name,
    maxConnectAttempts: MAX_CONNECT_ATTEMPTS,
    clusterSpecifier:
      clusters.length === 1 && first !== undefined
        ? { case: 'cluster', value: first.name }
        : { case: 'weightedClusters', value: { clusters: [...clusters] } },
  });
  return {
    name,
    ...(serverNames.length > 0 && { filterChainMatch: { serverNames: [...serverNames] } }),
    filters: [typed('envoy.filters.network.tcp_proxy', proxy)],
    metadata: ownMetadata(metadata),
  };
}

/** Its routes come by themselves, under the listener's name. One path for all: normalized, or refused. */
function connectionManager(name: string): ReturnType<typeof packAny> {
  return packAny(HttpConnectionManagerSchema, {
    codecType: HttpConnectionManager_CodecType.AUTO,
    statPrefix: name,
    routeSpecifier: { case: 'rds', value: { configSource: FROM_ADS, routeConfigName: name } },
    httpFilters: [
      typed('envoy.filters.http.fault', packAny(HTTPFaultSchema)),
      typed('envoy.filters.http.cors', packAny(CorsSchema)),
      typed('envoy.filters.http.stateful_session', packAny(StatefulSessionSchema)),
      typed('envoy.filters.http.router', packAny(RouterSchema)),
    ],
    serverHeaderTransformation: HttpConnectionManager_ServerHeaderTransformation.PASS_THROUGH,
    streamIdleTimeout: duration(0),
    upgradeConfigs: [{ upgradeType: 'websocket' }],
    normalizePath: true,
    mergeSlashes: true,
    pathWithEscapedSlashesAction: HttpConnectionManager_PathWithEscapedSlashesAction.REJECT_REQUEST,
  });
}
