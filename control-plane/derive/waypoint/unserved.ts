import type { Context } from '../context.ts';
import { TRAFFIC_DISTRIBUTION } from '../load-balancing.ts';
import { problemAt } from '../problems.ts';
import type { ServiceInfo } from '../services.ts';
import type { EndpointWorkload } from './endpoints.ts';

/**
 * Reports what a waypoint cannot do for what is bound to it: it looks up no names, has to know addresses, and does not know what is
 * near.
 */
export function reportUnserved(
  context: Context,
  { object, service }: ServiceInfo,
  members: readonly EndpointWorkload[],
): void {
  const report = (path: string, message: string, effect: string): void =>
    context.report(problemAt(object, { path, message, severity: 'error', effect }));
  const nameless = members.find(
    ({ workload }) => workload.addresses.length === 0 && workload.hostname !== '',
  );
  if (nameless !== undefined)
    report(
      'spec.resolution',
      `a waypoint looks up no names, and ${nameless.workload.hostname} is one; write addresses, or the label istio.io/use-waypoint: none`,
      'what goes to it is answered 503',
    );
  if (service.loadBalancing?.mode === 'PASSTHROUGH')
    report(
      'spec.resolution',
      'a waypoint does not send to where a connection was sent first; write endpoints, or the label istio.io/use-waypoint: none',
      'what goes to it is answered 503',
    );
  if (service.addresses.some(({ length }) => length !== undefined))
    report(
      'spec.addresses',
      'a waypoint does not serve ranges of addresses; write each address, or the label istio.io/use-waypoint: none',
      'connections to them are refused',
    );
  reportPreference(context, { object, service });
}

function reportPreference(
  context: Context,
  { object, service }: Pick<ServiceInfo, 'object' | 'service'>,
): void {
  const mode = service.loadBalancing?.mode;
  if (mode !== 'FAILOVER' && mode !== 'STRICT') return;
  const message =
    'a waypoint does not prefer endpoints that are near, as all its instances are told the same; remove the preference, or write the label istio.io/use-waypoint: none';
  const effect = 'what goes through the waypoint is spread over all endpoints';
  context.report(
    problemAt(object, { path: placeOfPreference(object), message, severity: 'warning', effect }),
  );
}

/** The field that asks for endpoints that are near; the object itself where its namespace does. */
function placeOfPreference(object: ServiceInfo['object']): string {
  if (object.kind === 'Service' && object.spec.internalTrafficPolicy === 'Local')
    return 'spec.internalTrafficPolicy';
  if (object.kind === 'Service' && object.spec.trafficDistribution !== undefined)
    return 'spec.trafficDistribution';
  return object.metadata.annotations.has(TRAFFIC_DISTRIBUTION)
    ? `metadata.annotations["${TRAFFIC_DISTRIBUTION}"]`
    : '';
}
