import { type DescMessage, isFieldSet, type Message } from '@bufbuild/protobuf';
import { refuse } from './config-error.ts';

/**
 * The fields that are read, or that change nothing here. A field that is not in its message's list is refused when it is set:
 * what a proxy does not do must not look as if it were done. Messages that are not listed are taken whole.
 */
const KNOWN: Readonly<Record<string, readonly string[]>> = fieldsByMessage({
  'envoy.config.listener.v3.Listener': `name stat_prefix filter_chains metadata listener_filters listener_filters_timeout
    continue_on_listener_filters_timeout traffic_direction access_log internal_listener`,
  'envoy.config.listener.v3.ListenerFilter': 'name typed_config',
  'envoy.config.listener.v3.FilterChain': 'name filter_chain_match filters metadata',
  'envoy.config.listener.v3.FilterChainMatch': 'server_names transport_protocol application_protocols',
  'envoy.config.listener.v3.Filter': 'name typed_config',
  // Identifiers, forwarded addresses and certificates, timeouts and limits of connections are the waypoint's own business.
  'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager': `codec_type stat_prefix rds http_filters
    access_log access_log_options tracing common_http_protocol_options http_protocol_options http2_protocol_options server_name
    server_header_transformation max_request_headers_kb stream_idle_timeout request_headers_timeout drain_timeout
    delayed_close_timeout use_remote_address skip_xff_append generate_request_id preserve_external_request_id
    always_set_request_id_in_response forward_client_cert_details set_current_client_cert_details proxy_100_continue
    upgrade_configs normalize_path merge_slashes path_with_escaped_slashes_action internal_address_config
    stream_error_on_invalid_http_message`,
  'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig':
    'upgrade_type enabled',
  'envoy.extensions.filters.network.http_connection_manager.v3.Rds': 'config_source route_config_name',
  'envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter': 'name typed_config is_optional',
  'envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy': `stat_prefix cluster weighted_clusters access_log access_log_options
    max_connect_attempts`,
  'envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster': 'clusters',
  'envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight': 'name weight',
  'envoy.config.route.v3.RouteConfiguration': `name virtual_hosts validate_clusters metadata
    max_direct_response_body_size_bytes`,
  'envoy.config.route.v3.VirtualHost': `name domains routes metadata include_request_attempt_count
    include_attempt_count_in_response`,
  'envoy.config.route.v3.Route': `name match route redirect direct_response metadata decorator typed_per_filter_config
    request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove stat_prefix`,
  'envoy.config.route.v3.RouteMatch': `prefix path safe_regex path_separated_prefix headers query_parameters`,
  'envoy.config.route.v3.HeaderMatcher': 'name exact_match safe_regex_match string_match',
  'envoy.config.route.v3.QueryParameterMatcher': 'name string_match',
  'envoy.type.matcher.v3.StringMatcher': 'exact safe_regex',
  'envoy.config.route.v3.RouteAction': `cluster weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite
    host_rewrite_literal timeout idle_timeout retry_policy request_mirror_policies hash_policy`,
  'envoy.config.route.v3.WeightedCluster': 'clusters total_weight',
  'envoy.config.route.v3.WeightedCluster.ClusterWeight': `name weight request_headers_to_add request_headers_to_remove
    response_headers_to_add response_headers_to_remove`,
  'envoy.config.route.v3.RouteAction.RequestMirrorPolicy': `cluster runtime_fraction trace_sampled
    disable_shadow_host_suffix_append`,
  'envoy.config.route.v3.RouteAction.HashPolicy':
    'header cookie connection_properties query_parameter terminal',
  'envoy.config.route.v3.RouteAction.HashPolicy.Header': 'header_name',
  'envoy.config.route.v3.RouteAction.HashPolicy.Cookie': 'name',
  'envoy.config.route.v3.RetryPolicy': `retry_on num_retries per_try_timeout retry_host_predicate
    host_selection_retry_max_attempts retriable_status_codes retry_back_off rate_limited_retry_back_off`,
  'envoy.config.route.v3.RedirectAction': `https_redirect scheme_redirect host_redirect port_redirect path_redirect
    prefix_rewrite regex_rewrite response_code`,
  'envoy.extensions.filters.http.cors.v3.CorsPolicy': `allow_origin_string_match allow_methods allow_headers expose_headers
    max_age allow_credentials filter_enabled forward_not_matching_preflights`,
  'envoy.extensions.filters.http.fault.v3.HTTPFault': `delay abort headers max_active_faults response_rate_limit
    disable_downstream_cluster_stats`,
  'envoy.extensions.filters.http.fault.v3.FaultAbort': 'http_status grpc_status percentage',
  'envoy.extensions.filters.common.fault.v3.FaultDelay': 'fixed_delay percentage',
  'envoy.extensions.filters.common.fault.v3.FaultRateLimit': 'fixed_limit percentage',
  'envoy.extensions.filters.http.stateful_session.v3.StatefulSession': 'session_state',
  'envoy.config.cluster.v3.Cluster': `name alt_stat_name type eds_cluster_config connect_timeout lb_policy ring_hash_lb_config
    least_request_lb_config circuit_breakers typed_extension_protocol_options common_lb_config transport_socket metadata
    per_connection_buffer_limit_bytes dns_lookup_family`,
  'envoy.config.cluster.v3.Cluster.CommonLbConfig': 'healthy_panic_threshold',
  'envoy.config.cluster.v3.CircuitBreakers': 'thresholds',
  'envoy.config.cluster.v3.CircuitBreakers.Thresholds': `priority max_connections max_pending_requests max_requests max_retries
    retry_budget track_remaining`,
  'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': `explicit_http_config use_downstream_protocol_config
    common_http_protocol_options`,
  'envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext': 'common_tls_context sni',
  'envoy.extensions.transport_sockets.tls.v3.CommonTlsContext': `validation_context validation_context_sds_secret_config
    combined_validation_context alpn_protocols`,
  'envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext': `trusted_ca match_typed_subject_alt_names`,
  'envoy.config.endpoint.v3.ClusterLoadAssignment': 'cluster_name endpoints',
  'envoy.config.endpoint.v3.LocalityLbEndpoints': 'locality lb_endpoints load_balancing_weight metadata',
  'envoy.config.endpoint.v3.LbEndpoint': 'endpoint health_status metadata load_balancing_weight',
  'envoy.config.endpoint.v3.Endpoint': 'address hostname',
  'envoy.config.core.v3.SocketAddress': 'protocol address port_value',
});

/**
 * Refuses what is set and not known, at any depth but for `Any`s, whose messages are looked at when they are decoded.
 * @param path of the message inside its resource; empty for the resource itself
 * @throws ConfigError naming the field: `virtual_hosts[0].routes[2].route.hedge_policy is not supported`
 */
export function refuseUnknownFields(schema: DescMessage, message: Message, path = ''): void {
  const known = KNOWN[schema.typeName];
  if (known === undefined) return;
  const number = message.$unknown?.[0]?.no;
  if (number !== undefined)
    refuse(`field number ${number} of ${path === '' ? schema.name : path} is not known`);
  for (const field of schema.fields) {
    if (!isFieldSet(message, field)) continue;
    const name = path === '' ? field.name : `${path}.${field.name}`;
    if (!known.includes(field.name)) refuse(`${name} is not supported`);
    if (field.message === undefined || KNOWN[field.message.typeName] === undefined) continue;
    for (const [index, child] of childrenOf(message, field.localName, field.oneof?.localName).entries())
      refuseUnknownFields(field.message, child, field.fieldKind === 'list' ? `${name}[${index}]` : name);
  }
}

function childrenOf(message: Message, field: string, oneof: string | undefined): readonly Message[] {
  // Plain data: fields by name, those of a oneof one level below.
  const holder = message as unknown as Readonly<Record<string, unknown>>;
  const value =
    oneof === undefined ? holder[field] : (holder[oneof] as { readonly value?: unknown } | undefined)?.value;
  return (Array.isArray(value) ? value : [value]) as readonly Message[];
}

function fieldsByMessage(
  table: Readonly<Record<string, string>>,
): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries(Object.entries(table).map(([name, fields]) => [name, fields.split(/\s+/)]));
}
