import { formatHostPort } from '#api/address.ts';
import { type Baggage, CALLER_HEADER, formatForwarded, newTraceparent } from '#ztunnel/hbone/headers.ts';
import type { Field } from '#ztunnel/hbone/hpack-tables.ts';
import { textOf, type UpstreamTarget } from './target.ts';

const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;
const PRINTABLE = /^[\x20-\x2b\x2d-\x7e]*$/;

/**
 * Headers of the CONNECT to an application's ztunnel: whom it is for. What the caller's own ztunnel said of it is passed on, as
 * it was said; only the identity and the address are known for certain.
 */
export function connectFields({ caller, address, cluster }: UpstreamTarget): readonly Field[] {
  const { traceparent = '' } = caller;
  // `namespace/hostname`.
  const hostname = cluster.service.slice(cluster.service.indexOf('/') + 1);
  return [
    [':method', 'CONNECT'],
    [':authority', formatHostPort(address)],
    [CALLER_HEADER, textOf(caller.identity)],
    ['baggage', formatCallerBaggage(caller.baggage)],
    ['forwarded', formatForwarded(caller.address, hostname === '' ? undefined : hostname)],
    ['traceparent', TRACEPARENT.test(traceparent) ? traceparent : newTraceparent()],
  ];
}

function formatCallerBaggage(baggage: Baggage): string {
  return [
    ['k8s.cluster.name', baggage.cluster],
    ['k8s.namespace.name', baggage.namespace],
    [`k8s.${baggage.workloadType ?? 'deployment'}.name`, baggage.workloadName],
    ['service.name', baggage.service],
    ['service.version', baggage.revision],
    ['cloud.region', baggage.region],
    ['cloud.availability_zone', baggage.zone],
  ]
    .filter(([, value = '']) => value !== '' && PRINTABLE.test(value))
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}
