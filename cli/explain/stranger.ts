import type { Ip } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';

/** Whoever has an address that is nobody's of the mesh: it is captured by nothing, and shows nothing. */
export function stranger(ip: Ip): Workload {
  return {
    kind: 'workload',
    uid: '',
    name: ip,
    namespace: '',
    addresses: [ip],
    hostname: '',
    network: '',
    tunnelProtocol: 'NONE',
    trustDomain: '',
    serviceAccount: '',
    node: '',
    canonicalName: '',
    canonicalRevision: '',
    workloadType: 'POD',
    workloadName: '',
    nativeTunnel: false,
    services: new Map(),
    authorizationPolicies: [],
    status: 'HEALTHY',
    clusterId: '',
    locality: { region: '', zone: '', subzone: '' },
    networkMode: 'STANDARD',
    capacity: 1,
  };
}
