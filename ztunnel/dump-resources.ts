import { formatCidr } from '#api/address.ts';
import type { Authorization, Match, StringMatch } from '#api/policy.ts';
import { type LoadBalancing, type NetworkAddress, type Service, serviceKey } from '#api/service.ts';
import type { GatewayAddress, Workload } from '#api/workload.ts';
import type { Tables } from './tables/tables.ts';
import { addressKey } from './tables/workload-index.ts';

/** Resources as a stock ztunnel's `/config_dump` shows them: its keys and spellings, empty values left out. */

/** A workload. */
export function dumpWorkload(workload: Workload): object {
  const { waypoint, networkGateway, locality, applicationTunnel } = workload;
  const place = withoutEmpty({ ...locality });
  return withoutEmpty({
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    workloadIps: workload.addresses,
    hostname: workload.hostname,
    network: workload.network,
    protocol: workload.tunnelProtocol === 'HBONE' ? 'HBONE' : 'TCP',
    nativeTunnel: workload.nativeTunnel || undefined,
    trustDomain: workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    waypoint: waypoint && dumpGateway(waypoint),
    networkGateway: networkGateway && dumpGateway(networkGateway),
    applicationTunnel: applicationTunnel && {
      protocol: applicationTunnel.protocol,
      port: applicationTunnel.port,
    },
    node: workload.node,
    workloadName: workload.workloadName,
    workloadType: workload.workloadType.toLowerCase(),
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    clusterId: workload.clusterId,
    locality: Object.keys(place).length === 0 ? undefined : place,
    services: [...workload.services.keys()].sort(),
    authorizationPolicies: workload.authorizationPolicies,
    status: pascalCase(workload.status),
    networkMode: pascalCase(workload.networkMode),
    capacity: workload.capacity,
  });
}

/** A service with its endpoints. */
export function dumpService(tables: Tables, service: Service): object {
  const endpoints = tables
    .endpointsOf(service)
    .map(({ workload, ports }) => [
      workload.uid,
      { workloadUid: workload.uid, port: Object.fromEntries(ports), status: pascalCase(workload.status) },
    ]);
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.addresses.map(dumpAddress),
    ports: Object.fromEntries(service.ports.map(({ servicePort, targetPort }) => [servicePort, targetPort])),
    endpoints: Object.fromEntries(endpoints),
    subjectAltNames: service.subjectAltNames,
    ...withoutEmpty({
      waypoint: service.waypoint && dumpGateway(service.waypoint),
      weightedWaypoints: service.weightedWaypoints.map(({ destination, weight }) => ({
        ...dumpGateway(destination),
        weight,
      })),
      loadBalancer: service.loadBalancing && dumpLoadBalancing(service.loadBalancing),
      ipFamilies: IP_FAMILIES[service.ipFamilies],
    }),
    canonical: service.canonical,
    visibility: pascalCase(service.visibility),
  };
}

/** A policy: rules, clauses and matches nested without names. */
export function dumpPolicy(policy: Authorization): object {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: pascalCase(policy.scope),
    action: pascalCase(policy.action),
    rules: policy.rules.map(({ clauses }) => clauses.map(({ matches }) => matches.map(dumpMatch))),
    dryRun: policy.dryRun,
  };
}

const IP_FAMILIES: Readonly<Record<Service['ipFamilies'], string | undefined>> = {
  AUTOMATIC: undefined,
  IPV4_ONLY: 'IPv4',
  IPV6_ONLY: 'IPv6',
  DUAL: 'Dual',
};

function dumpGateway({ destination, hboneMtlsPort }: GatewayAddress): object {
  const where =
    destination.kind === 'hostname'
      ? serviceKey(destination)
      : addressKey(destination.network, destination.ip);
  return { destination: where, hboneMtlsPort };
}

function dumpAddress({ network, ip, length }: NetworkAddress): string {
  return length === undefined ? addressKey(network, ip) : `${addressKey(network, ip)}/${length}`;
}

function dumpLoadBalancing({ routingPreference, mode, healthPolicy }: LoadBalancing): object {
  return {
    routingPreferences: routingPreference.map(pascalCase),
    mode: mode === 'UNSPECIFIED' ? 'Standard' : pascalCase(mode),
    healthPolicy: pascalCase(healthPolicy),
  };
}

function dumpMatch(match: Match): object {
  return withoutEmpty({
    namespaces: match.namespaces.map(dumpStringMatch),
    notNamespaces: match.notNamespaces.map(dumpStringMatch),
    principals: match.principals.map(dumpStringMatch),
    notPrincipals: match.notPrincipals.map(dumpStringMatch),
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
    sourceIps: match.sourceIps.map(formatCidr),
    notSourceIps: match.notSourceIps.map(formatCidr),
    destinationIps: match.destinationIps.map(formatCidr),
    notDestinationIps: match.notDestinationIps.map(formatCidr),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
  });
}

function dumpStringMatch(match: StringMatch): object {
  return match.kind === 'presence' ? { Presence: [] } : { [pascalCase(match.kind)]: match.value };
}

/** `HOST_NETWORK` to `HostNetwork`. */
function pascalCase(text: string): string {
  return text.toLowerCase().replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function withoutEmpty(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const isEmpty = (value: unknown): boolean =>
    value === undefined || value === '' || (Array.isArray(value) && value.length === 0);
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => !isEmpty(value)));
}
