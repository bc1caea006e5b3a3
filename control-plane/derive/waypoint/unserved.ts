import type { Context } from '../context.ts';
import { problemAt } from '../problems.ts';
import type { ServiceInfo } from '../services.ts';
import type { EndpointWorkload } from './endpoints.ts';

/** Reports what a waypoint cannot do for a ServiceEntry that is bound to it: it looks up no names, and has to know addresses. */
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
}
