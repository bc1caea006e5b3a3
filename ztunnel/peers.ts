import type { Service } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import type { AccessRecord, PeerWorkload } from './access-log.ts';
import type { Baggage } from './hbone/headers.ts';

const DESCRIBED = new WeakMap<Workload, PeerWorkload>();

/** The labels of a workload; the same object each time, so that records that go to another thread together share it. */
export function describeWorkload(workload: Workload): PeerWorkload {
  const known = DESCRIBED.get(workload);
  if (known !== undefined) return known;
  const described = {
    name: workload.name,
    namespace: workload.namespace,
    workloadName: workload.workloadName,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    cluster: workload.clusterId,
    region: workload.locality.region,
    zone: workload.locality.zone,
  };
  DESCRIBED.set(workload, described);
  return described;
}

/** What a peer says of itself, when nothing better is known. */
export function describeBaggage(baggage: Baggage): PeerWorkload {
  return {
    name: baggage.workloadName ?? '',
    namespace: baggage.namespace ?? '',
    workloadName: baggage.workloadName ?? '',
    canonicalName: baggage.service ?? '',
    canonicalRevision: baggage.revision ?? '',
    cluster: baggage.cluster ?? '',
    region: baggage.region ?? '',
    zone: baggage.zone ?? '',
  };
}

const NAMED = new WeakMap<Service, NonNullable<AccessRecord['service']>>();

export function describeService(service: Service): NonNullable<AccessRecord['service']> {
  const known = NAMED.get(service);
  if (known !== undefined) return known;
  const { hostname, name, namespace } = service;
  const named = { hostname, name, namespace };
  NAMED.set(service, named);
  return named;
}
