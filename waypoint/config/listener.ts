import {
  type FilterChain,
  FilterChainMatchSchema,
} from '#api/envoy/gen/envoy/config/listener/v3/listener_components_pb.ts';
import { type Listener, ListenerSchema } from '#api/envoy/gen/envoy/config/listener/v3/listener_pb.ts';
import { HttpInspectorSchema } from '#api/envoy/gen/envoy/extensions/filters/listener/http_inspector/v3/http_inspector_pb.ts';
import { TlsInspectorSchema } from '#api/envoy/gen/envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector_pb.ts';
import { HttpConnectionManagerSchema } from '#api/envoy/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.ts';
import {
  type TcpProxy,
  TcpProxySchema,
} from '#api/envoy/gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.ts';
import type { Frontend, TcpRoute, WeightedBackend } from '../model.ts';
import { refuse } from './config-error.ts';
import { decodeAny, decodeMessage, holds, typeOf } from './decode.ts';
import { NO_MUTATIONS } from './header-mutations.ts';
import { compileConnectionManager, type HttpChain } from './http-chain.ts';
import { listenerMetadata, originOf, routeMetadata } from './metadata.ts';

/** A Listener, compiled. */
export interface CompiledListener {
  readonly frontend: Frontend;
  /** Addresses and names of the CONNECTs that it serves. */
  readonly addresses: readonly string[];
}

/** @throws ConfigError */
export function compileListener(bytes: Uint8Array): CompiledListener {
  const listener = decodeMessage(ListenerSchema, bytes);
  const metadata = listenerMetadata(listener.metadata);
  const inspects = inspectionOf(listener);
  const chains = listener.filterChains.map(compileChain);
  const http = chains.flatMap((chain) => chain.http ?? []);
  const tcp = chains.flatMap((chain) => chain.tcp ?? []);
  if (http.length + tcp.length === 0) refuse('it has no filter chain');
  const [first] = http;
  if (http.some((chain) => chain.routeTable !== first?.routeTable))
    refuse('its filter chains name several route configurations');
  return {
    addresses: metadata.addresses,
    frontend: {
      name: listener.name,
      service: metadata.service,
      port: metadata.port,
      ...(metadata.consumer_namespace === undefined
        ? {}
        : { consumerNamespace: metadata.consumer_namespace }),
      authorizations: metadata.authorizations ?? [],
      ...(metadata.refuse === undefined ? {} : { refuse: metadata.refuse }),
      protocol: protocolOf(inspects, first, tcp),
      ...(first === undefined ? {} : { routeTable: first.routeTable }),
      tcp,
    },
  };
}

interface Inspection {
  readonly http: boolean;
  readonly tls: boolean;
}

function inspectionOf(listener: Listener): Inspection {
  let inspection: Inspection = { http: false, tls: false };
  for (const { name, configType } of listener.listenerFilters) {
    const any = configType.case === 'typedConfig' ? configType.value : undefined;
    if (holds(any, HttpInspectorSchema)) inspection = { ...inspection, http: true };
    else if (holds(any, TlsInspectorSchema)) inspection = { ...inspection, tls: true };
    else refuse(`listener filter ${name} (${typeOf(any)}) is not known`);
  }
  return inspection;
}

function protocolOf(
  inspects: Inspection,
  http: HttpChain | undefined,
  tcp: readonly TcpRoute[],
): Frontend['protocol'] {
  if (http === undefined) {
    if (inspects.tls) return 'tls';
    if (tcp.some((route) => route.serverNames.length > 0))
      refuse('filter chains with server_names need a tls_inspector');
    return 'tcp';
  }
  if (tcp.length === 0) return http.protocol;
  return inspects.http ? 'detect' : refuse('filter chains of HTTP and TCP need an http_inspector');
}

interface CompiledChain {
  readonly http?: HttpChain;
  readonly tcp?: TcpRoute;
}

function compileChain(chain: FilterChain): CompiledChain {
  const [filter, ...more] = chain.filters;
  if (filter === undefined || more.length > 0) refuse('a filter chain has to have one filter');
  const any = filter.configType.case === 'typedConfig' ? filter.configType.value : undefined;
  const match = chain.filterChainMatch;
  if (match !== undefined && !['', 'raw_buffer', 'tls'].includes(match.transportProtocol))
    refuse(`transport_protocol ${match.transportProtocol} of a ${FilterChainMatchSchema.name} is not known`);
  if (holds(any, HttpConnectionManagerSchema)) {
    if ((match?.serverNames.length ?? 0) > 0) refuse('HTTP inside TLS is not supported');
    return { http: compileConnectionManager(decodeAny(HttpConnectionManagerSchema, any)) };
  }
  if (!holds(any, TcpProxySchema)) return refuse(`filter ${filter.name} (${typeOf(any)}) is not known`);
  return {
    tcp: {
      serverNames: match?.serverNames ?? [],
      backends: tcpBackends(decodeAny(TcpProxySchema, any)),
      origin: originOf(routeMetadata(chain.metadata)),
    },
  };
}

function tcpBackends(proxy: TcpProxy): readonly WeightedBackend[] {
  const { clusterSpecifier } = proxy;
  const plain = { requestHeaders: NO_MUTATIONS, responseHeaders: NO_MUTATIONS };
  if (clusterSpecifier.case === 'cluster') return [{ cluster: clusterSpecifier.value, weight: 1, ...plain }];
  if (clusterSpecifier.case === undefined) return refuse('a TcpProxy names no cluster');
  return clusterSpecifier.value.clusters.map(({ name, weight }) => ({ cluster: name, weight, ...plain }));
}
