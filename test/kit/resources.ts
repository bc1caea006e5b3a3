import { type Authorization, EMPTY_MATCH, type Match, type Rule } from '#api/policy.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource } from '#api/resource.ts';
import type { Service, ServicePort } from '#api/service.ts';
import type { GatewayAddress, PortMapping, Workload } from '#api/workload.ts';
import { createTables } from '#ztunnel/tables/store.ts';
import type { MutableTables } from '#ztunnel/tables/tables.ts';

/** A pod of the mesh, `default/<name>`, healthy, on node n1; the uid follows namespace and name. */
export function workload(
  fields: Partial<Omit<Workload, 'services'>> & {
    readonly services?: Record<string, Record<number, number>>;
  },
): Workload {
  const name = fields.name ?? 'echo-1';
  const namespace = fields.namespace ?? 'default';
  return {
    kind: 'workload',
    uid: `Kubernetes//Pod/${namespace}/${name}`,
    name,
    namespace,
    addresses: ['10.244.1.2'],
    hostname: '',
    network: '',
    tunnelProtocol: 'HBONE',
    trustDomain: 'cluster.local',
    serviceAccount: 'default',
    node: 'n1',
    canonicalName: name,
    canonicalRevision: 'latest',
    workloadType: 'POD',
    workloadName: name,
    nativeTunnel: false,
    authorizationPolicies: [],
    status: 'HEALTHY',
    clusterId: 'Kubernetes',
    locality: { region: '', zone: '', subzone: '' },
    networkMode: 'STANDARD',
    capacity: 1,
    ...fields,
    services: portMappings(fields.services ?? {}),
  };
}

/** A Kubernetes service, `default/<name>.default.svc.cluster.local`, port 80 to 8080, VIP 10.96.1.1. */
export function service(fields: Partial<Service>): Service {
  const name = fields.name ?? 'echo';
  const namespace = fields.namespace ?? 'default';
  return {
    kind: 'service',
    name,
    namespace,
    hostname: `${name}.${namespace}.svc.cluster.local`,
    addresses: [{ network: '', ip: '10.96.1.1' }],
    ports: [port(80, 8080)],
    subjectAltNames: [],
    weightedWaypoints: [],
    ipFamilies: 'AUTOMATIC',
    canonical: true,
    ingressUseWaypoint: false,
    visibility: 'PUBLIC',
    ...fields,
  };
}

/** A service's port. */
export function port(servicePort: number, targetPort: number): ServicePort {
  return { servicePort, targetPort, appProtocol: 'UNKNOWN' };
}

/** A waypoint or gateway by hostname, in namespace `default`. */
export function gateway(hostname: string): GatewayAddress {
  return { destination: { kind: 'hostname', namespace: 'default', hostname }, hboneMtlsPort: 15008 };
}

/** An ALLOW policy of the namespace `default` that matches everything. */
export function policy(fields: Partial<Authorization>): Authorization {
  return {
    kind: 'authorization',
    name: 'p',
    namespace: 'default',
    scope: 'NAMESPACE',
    action: 'ALLOW',
    rules: [{ clauses: [] }],
    dryRun: false,
    ...fields,
  };
}

/** A rule of one clause with one match. */
export function rule(match: Partial<Match>): Rule {
  return { clauses: [{ matches: [{ ...EMPTY_MATCH, ...match }] }] };
}

/** Tables that hold these resources and have been answered both types. */
export function tablesOf(...resources: readonly Resource[]): MutableTables {
  const tables = createTables();
  const isPolicy = (resource: Resource): boolean => resource.kind === 'authorization';
  tables.apply({ type: AUTHORIZATION_TYPE, updated: resources.filter(isPolicy), removed: [] });
  tables.apply({ type: ADDRESS_TYPE, updated: resources.filter((each) => !isPolicy(each)), removed: [] });
  return tables;
}

function portMappings(services: Record<string, Record<number, number>>): Map<string, readonly PortMapping[]> {
  return new Map(
    Object.entries(services).map(([key, ports]) => [
      key,
      Object.entries(ports).map(([servicePort, targetPort]) => ({
        servicePort: Number(servicePort),
        targetPort,
      })),
    ]),
  );
}
