import { CorsSchema } from '#api/envoy/gen/envoy/extensions/filters/http/cors/v3/cors_pb.ts';
import { HTTPFaultSchema } from '#api/envoy/gen/envoy/extensions/filters/http/fault/v3/fault_pb.ts';
import { RouterSchema } from '#api/envoy/gen/envoy/extensions/filters/http/router/v3/router_pb.ts';
import { StatefulSessionSchema } from '#api/envoy/gen/envoy/extensions/filters/http/stateful_session/v3/stateful_session_pb.ts';
import {
  type HttpConnectionManager,
  HttpConnectionManager_CodecType,
  HttpConnectionManager_PathWithEscapedSlashesAction,
  type HttpFilter,
} from '#api/envoy/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.ts';
import { refuse } from './config-error.ts';
import { decodeAny, holds, toMs, typeOf } from './decode.ts';

/** What a filter chain with an HttpConnectionManager says. */
export interface HttpChain {
  readonly protocol: 'http1' | 'http2' | 'http';
  readonly routeTable: string;
}

/** @throws ConfigError */
export function compileConnectionManager(manager: HttpConnectionManager): HttpChain {
  if (manager.routeSpecifier.case !== 'rds') refuse('an HttpConnectionManager without rds is not supported');
  const { configSource, routeConfigName } = manager.routeSpecifier.value;
  if (configSource?.configSourceSpecifier.case !== 'ads')
    refuse('rds from elsewhere than ads is not supported');
  refuseOtherPaths(manager);
  for (const { upgradeType } of manager.upgradeConfigs)
    if (upgradeType.toLowerCase() !== 'websocket') refuse(`upgrade_type ${upgradeType} is not supported`);
  if (manager.streamIdleTimeout !== undefined && toMs(manager.streamIdleTimeout) > 0)
    refuse('HttpConnectionManager.stream_idle_timeout other than 0s is not supported');
  for (const filter of manager.httpFilters) checkFilter(filter);
  return { protocol: protocolOf(manager.codecType), routeTable: routeConfigName };
}

/** One canonical path, always: other settings would be of no effect. */
function refuseOtherPaths(manager: HttpConnectionManager): void {
  if (manager.normalizePath !== true || !manager.mergeSlashes)
    refuse('an HttpConnectionManager without normalize_path and merge_slashes is not supported');
  if (
    manager.pathWithEscapedSlashesAction !== HttpConnectionManager_PathWithEscapedSlashesAction.REJECT_REQUEST
  )
    refuse('path_with_escaped_slashes_action other than REJECT_REQUEST is not supported');
}

function protocolOf(codec: HttpConnectionManager_CodecType): HttpChain['protocol'] {
  switch (codec) {
    case HttpConnectionManager_CodecType.AUTO:
      return 'http';
    case HttpConnectionManager_CodecType.HTTP1:
      return 'http1';
    case HttpConnectionManager_CodecType.HTTP2:
      return 'http2';
    default:
      return refuse(`codec_type ${codec} is not supported`);
  }
}

/** Known filters do what routes tell them to; settings of their own would hold for all routes, and are refused. */
function checkFilter(filter: HttpFilter): void {
  const any = filter.configType.case === 'typedConfig' ? filter.configType.value : undefined;
  if (holds(any, RouterSchema) || holds(any, CorsSchema)) return;
  if (holds(any, HTTPFaultSchema)) {
    const { delay, abort, responseRateLimit } = decodeAny(HTTPFaultSchema, any);
    if ((delay ?? abort ?? responseRateLimit) !== undefined)
      refuse('faults for all routes of a listener are not supported');
  } else if (holds(any, StatefulSessionSchema)) {
    if (decodeAny(StatefulSessionSchema, any).sessionState !== undefined)
      refuse('session persistence for all routes of a listener is not supported');
  } else if (!filter.isOptional) refuse(`http filter ${filter.name} (${typeOf(any)}) is not known`);
}
