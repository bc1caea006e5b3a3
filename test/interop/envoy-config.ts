/** A RouteConfiguration that the control plane serves, and where Envoy answers for it. */
export interface EnvoyFrontend {
  /** Name of the RouteConfiguration. */
  readonly route: string;
  readonly port: number;
}

/** What Envoy is started with. */
export interface EnvoySetting {
  readonly ip: string;
  readonly adminPort: number;
  readonly controlPlane: { readonly ip: string; readonly port: number };
  readonly token: string;
  /** PEM file: who signs the control plane's certificate. */
  readonly rootsFile: string;
  readonly accessLog: string;
  readonly frontends: readonly EnvoyFrontend[];
}

const TYPES = 'type.googleapis.com/envoy.extensions';

/**
 * A bootstrap with listeners of its own, one a RouteConfiguration, in plain text. Routes, clusters and endpoints come from the
 * control plane over delta ADS, as they are.
 */
export function envoyBootstrap(setting: EnvoySetting): unknown {
  const ads = { ads: {}, resource_api_version: 'V3', initial_fetch_timeout: '10s' };
  return {
    node: { id: 'interop', cluster: 'interop' },
    admin: { address: address(setting.ip, setting.adminPort) },
    dynamic_resources: {
      ads_config: {
        api_type: 'DELTA_GRPC',
        transport_api_version: 'V3',
        grpc_services: [
          {
            envoy_grpc: { cluster_name: 'control-plane' },
            initial_metadata: [{ key: 'authorization', value: `Bearer ${setting.token}` }],
          },
        ],
      },
      cds_config: ads,
    },
    static_resources: {
      clusters: [controlPlane(setting)],
      listeners: setting.frontends.map((frontend) => listener(setting, frontend, ads)),
    },
  };
}

function controlPlane({ controlPlane: { ip, port }, rootsFile }: EnvoySetting): unknown {
  return {
    name: 'control-plane',
    type: 'STATIC',
    connect_timeout: '2s',
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': `${TYPES}.upstreams.http.v3.HttpProtocolOptions`,
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
    transport_socket: {
      name: 'tls',
      typed_config: {
        '@type': `${TYPES}.transport_sockets.tls.v3.UpstreamTlsContext`,
        sni: 'tulle-control-plane',
        common_tls_context: {
          alpn_protocols: ['h2'],
          tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
          validation_context: { trusted_ca: { filename: rootsFile } },
        },
      },
    },
    load_assignment: {
      cluster_name: 'control-plane',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: address(ip, port) } }] }],
    },
  };
}

function listener(setting: EnvoySetting, { route, port }: EnvoyFrontend, ads: unknown): unknown {
  return {
    name: `interop-${port}`,
    address: address(setting.ip, port),
    filter_chains: [{ filters: [connectionManager(setting, route, ads)] }],
  };
}

function connectionManager({ accessLog }: EnvoySetting, route: string, ads: unknown): unknown {
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': `${TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: 'interop',
      codec_type: 'AUTO',
      rds: { route_config_name: route, config_source: ads },
      normalize_path: true,
      merge_slashes: true,
      path_with_escaped_slashes_action: 'REJECT_REQUEST',
      upgrade_configs: [{ upgrade_type: 'websocket' }],
      http_protocol_options: { enable_trailers: true },
      stream_idle_timeout: '0s',
      http_filters: [
        filter('fault', 'fault.v3.HTTPFault'),
        filter('cors', 'cors.v3.Cors'),
        filter('stateful_session', 'stateful_session.v3.StatefulSession'),
        filter('router', 'router.v3.Router'),
      ],
      access_log: [fileLog(accessLog)],
    },
  };
}

function filter(name: string, type: string): unknown {
  return { name: `envoy.filters.http.${name}`, typed_config: { '@type': `${TYPES}.filters.http.${type}` } };
}

/** The case, and Envoy's own words about how it went. */
function fileLog(path: string): unknown {
  const line =
    '%REQ(x-case)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_HOST% %ROUTE_NAME% %REQ(:PATH)%\n';
  return {
    name: 'file',
    typed_config: {
      '@type': `${TYPES}.access_loggers.file.v3.FileAccessLog`,
      path,
      log_format: { text_format_source: { inline_string: line } },
    },
  };
}

function address(ip: string, port: number): unknown {
  return { socket_address: { address: ip, port_value: port } };
}
