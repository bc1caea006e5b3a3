import type { Credentials } from './peers.ts';

/** What a stock Envoy needs to be a waypoint of one service with two backends. */
export interface EnvoyWaypoint {
  readonly credentials: Credentials;
  /** Trust domain, e.g. `cluster.local`. */
  readonly trustDomain: string;
  /** `ip:port` of each backend's endpoint, and its share. */
  readonly backends: readonly { readonly name: string; readonly address: string; readonly weight: number }[];
  readonly accessLog: string;
}

const TYPE = 'type.googleapis.com/envoy';
const HTTP_MANAGER = `${TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`;
const ORIGINAL_DST = 'envoy.filters.listener.original_dst';

/**
 * The configuration of an Envoy as a waypoint, the way istiod builds one: HBONE ends in `connect_terminate`, requests are
 * routed in `main_internal`, and leave over HBONE through `connect_originate`; the three are joined by internal listeners.
 */
export function envoyWaypoint(options: EnvoyWaypoint): unknown {
  return {
    bootstrap_extensions: [
      {
        name: 'envoy.bootstrap.internal_listener',
        typed_config: { '@type': `${TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener` },
      },
    ],
    static_resources: {
      listeners: [terminate(options), route(options), originate()],
      clusters: [
        internal('main_internal', [{ listener: 'main_internal' }]),
        ...options.backends.map(({ name, address }) =>
          internal(name, [{ listener: 'connect_originate', address }]),
        ),
        tunnel(options),
      ],
    },
  };
}

function terminate({ credentials, trustDomain }: EnvoyWaypoint): unknown {
  const manager = {
    '@type': HTTP_MANAGER,
    stat_prefix: 'connect_terminate',
    route_config: {
      virtual_hosts: [
        {
          name: 'default',
          domains: ['*'],
          routes: [
            {
              match: { connect_matcher: {} },
              route: {
                cluster: 'main_internal',
                timeout: '0s',
                upgrade_configs: [{ upgrade_type: 'CONNECT', connect_config: {} }],
              },
            },
          ],
        },
      ],
    },
    http_filters: [
      {
        name: 'connect_authority',
        typed_config: {
          '@type': `${TYPE}.extensions.filters.http.set_filter_state.v3.Config`,
          on_request_headers: [
            {
              object_key: `${ORIGINAL_DST}.local_ip`,
              format_string: { text_format_source: { inline_string: '%REQ(:AUTHORITY)%' } },
              shared_with_upstream: 'ONCE',
            },
          ],
        },
      },
      router(),
    ],
    http2_protocol_options: { max_concurrent_streams: 100, allow_connect: true },
    stream_idle_timeout: '0s',
    upgrade_configs: [{ upgrade_type: 'CONNECT' }],
  };
  return {
    name: 'connect_terminate',
    address: { socket_address: { address: '0.0.0.0', port_value: 15008 } },
    tcp_backlog_size: 4096,
    filter_chains: [
      {
        filters: [{ name: 'http', typed_config: manager }],
        transport_socket: tls(
          `${TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext`,
          credentials,
          trustDomain,
          { require_client_certificate: true },
        ),
      },
    ],
  };
}

function route({ backends, accessLog }: EnvoyWaypoint): unknown {
  const manager = {
    '@type': HTTP_MANAGER,
    stat_prefix: 'main_internal',
    route_config: {
      virtual_hosts: [
        {
          name: 'default',
          domains: ['*'],
          routes: [
            {
              match: { prefix: '/' },
              route: {
                weighted_clusters: { clusters: backends.map(({ name, weight }) => ({ name, weight })) },
                timeout: '10s',
                retry_policy: {
                  retry_on: 'connect-failure,refused-stream,reset,retriable-status-codes',
                  retriable_status_codes: [503],
                  num_retries: 2,
                },
              },
            },
          ],
        },
      ],
    },
    http_filters: [
      {
        name: 'envoy.filters.http.fault',
        typed_config: { '@type': `${TYPE}.extensions.filters.http.fault.v3.HTTPFault` },
      },
      {
        name: 'envoy.filters.http.cors',
        typed_config: { '@type': `${TYPE}.extensions.filters.http.cors.v3.Cors` },
      },
      router(),
    ],
    normalize_path: true,
    merge_slashes: true,
    access_log: [
      {
        name: 'file',
        typed_config: {
          '@type': `${TYPE}.extensions.access_loggers.file.v3.FileAccessLog`,
          path: accessLog,
          log_format: { json_format: LOG_FIELDS },
        },
      },
    ],
  };
  return {
    name: 'main_internal',
    internal_listener: {},
    listener_filters: [
      {
        name: ORIGINAL_DST,
        typed_config: { '@type': `${TYPE}.extensions.filters.listener.original_dst.v3.OriginalDst` },
      },
    ],
    filter_chains: [{ filters: [{ name: 'http', typed_config: manager }] }],
  };
}

/** The fields of istiod's usual log. */
const LOG_FIELDS = {
  start_time: '%START_TIME%',
  method: '%REQ(:METHOD)%',
  path: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%',
  protocol: '%PROTOCOL%',
  response_code: '%RESPONSE_CODE%',
  response_flags: '%RESPONSE_FLAGS%',
  response_code_details: '%RESPONSE_CODE_DETAILS%',
  bytes_received: '%BYTES_RECEIVED%',
  bytes_sent: '%BYTES_SENT%',
  duration: '%DURATION%',
  upstream_service_time: '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%',
  x_forwarded_for: '%REQ(X-FORWARDED-FOR)%',
  user_agent: '%REQ(USER-AGENT)%',
  request_id: '%REQ(X-REQUEST-ID)%',
  authority: '%REQ(:AUTHORITY)%',
  upstream_host: '%UPSTREAM_HOST%',
  upstream_cluster: '%UPSTREAM_CLUSTER%',
  upstream_local_address: '%UPSTREAM_LOCAL_ADDRESS%',
  downstream_local_address: '%DOWNSTREAM_LOCAL_ADDRESS%',
  downstream_remote_address: '%DOWNSTREAM_REMOTE_ADDRESS%',
  route_name: '%ROUTE_NAME%',
};

function originate(): unknown {
  return {
    name: 'connect_originate',
    internal_listener: {},
    listener_filters: [
      {
        name: ORIGINAL_DST,
        typed_config: { '@type': `${TYPE}.extensions.filters.listener.original_dst.v3.OriginalDst` },
      },
    ],
    filter_chains: [
      {
        filters: [
          {
            name: 'tcp',
            typed_config: {
              '@type': `${TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy`,
              stat_prefix: 'connect_originate',
              cluster: 'connect_originate',
              tunneling_config: { hostname: '%DOWNSTREAM_LOCAL_ADDRESS%' },
            },
          },
        ],
      },
    ],
  };
}

/** A cluster whose endpoints are listeners inside the process; with an address, where the tunnel has to lead. */
function internal(
  name: string,
  endpoints: readonly { readonly listener: string; readonly address?: string }[],
): unknown {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    circuit_breakers: UNLIMITED,
    load_assignment: {
      cluster_name: name,
      endpoints: [
        {
          lb_endpoints: endpoints.map(({ listener, address }) => ({
            endpoint: {
              address: {
                envoy_internal_address: {
                  server_listener_name: listener,
                  ...(address !== undefined && { endpoint_id: address }),
                },
              },
            },
            ...(address !== undefined && {
              metadata: { filter_metadata: { [ORIGINAL_DST]: { local: address } } },
            }),
          })),
        },
      ],
    },
    transport_socket: {
      name: 'internal_upstream',
      typed_config: {
        '@type': `${TYPE}.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport`,
        passthrough_metadata: [{ name: ORIGINAL_DST, kind: { host: {} } }],
        transport_socket: {
          name: 'raw',
          typed_config: { '@type': `${TYPE}.extensions.transport_sockets.raw_buffer.v3.RawBuffer` },
        },
      },
    },
  };
}

function tunnel({ credentials, trustDomain }: EnvoyWaypoint): unknown {
  return {
    name: 'connect_originate',
    type: 'ORIGINAL_DST',
    connect_timeout: '5s',
    lb_policy: 'CLUSTER_PROVIDED',
    circuit_breakers: UNLIMITED,
    original_dst_lb_config: { upstream_port_override: 15008 },
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': `${TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions`,
        explicit_http_config: { http2_protocol_options: { allow_connect: true } },
      },
    },
    transport_socket: tls(
      `${TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext`,
      credentials,
      trustDomain,
      {},
    ),
  };
}

function tls(
  type: string,
  { ca, certificate, key }: Credentials,
  trustDomain: string,
  more: object,
): unknown {
  return {
    name: 'tls',
    typed_config: {
      '@type': type,
      ...more,
      common_tls_context: {
        alpn_protocols: ['h2'],
        tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
        tls_certificates: [{ certificate_chain: { filename: certificate }, private_key: { filename: key } }],
        validation_context: {
          trusted_ca: { filename: ca },
          match_typed_subject_alt_names: [
            { san_type: 'URI', matcher: { prefix: `spiffe://${trustDomain}/` } },
          ],
        },
      },
    },
  };
}

function router(): unknown {
  return { name: 'router', typed_config: { '@type': `${TYPE}.extensions.filters.http.router.v3.Router` } };
}

const UNLIMITED = {
  thresholds: [
    {
      max_connections: 4294967295,
      max_pending_requests: 4294967295,
      max_requests: 4294967295,
      max_retries: 4294967295,
    },
  ],
};
