import type { NetworkAddress } from '#api/service.ts';
import type { Context } from './context.ts';
import { nameWithPlace, problemAt } from './problems.ts';
import { getOrAdd } from './selectors.ts';
import type { ServiceInfo } from './services.ts';

/**
 * Settles who has a hostname. Within a namespace a Kubernetes Service wins over ServiceEntries, the oldest of which
 * wins over the others; what loses is left out. Of what is left in several namespaces one is canonical: it answers
 * clients of all other namespaces. `infos` come oldest first within Services and ServiceEntries.
 * @returns services by key
 */
export function settleConflicts(
  context: Context,
  infos: readonly ServiceInfo[],
): ReadonlyMap<string, ServiceInfo> {
  const byHostname = Map.groupBy(infos, ({ service }) => service.hostname);
  const settled = new Map<string, ServiceInfo>();
  for (const contenders of byHostname.values())
    for (const info of settleHostname(context, contenders)) settled.set(info.key, info);
  reportSharedAddresses(
    context,
    infos.flatMap(({ key }) => settled.get(key) ?? []),
  );
  return settled;
}

function settleHostname(context: Context, contenders: readonly ServiceInfo[]): readonly ServiceInfo[] {
  const winners = new Map<string, ServiceInfo>();
  const preferred = [...contenders.filter(isKubernetes), ...contenders.filter((info) => !isKubernetes(info))];
  for (const info of preferred) {
    const winner = getOrAdd(winners, info.key, () => info);
    if (winner !== info) reportLoser(context, info, winner);
  }
  const canonical = preferred.find((info) => winners.get(info.key) === info);
  return [...winners.values()].map((info) => {
    if (info === canonical) return { ...info, service: { ...info.service, canonical: true } };
    if (canonical !== undefined) reportSecond(context, info, canonical);
    return info;
  });
}

function isKubernetes(info: ServiceInfo): boolean {
  return info.object.kind === 'Service';
}

function reportLoser(context: Context, loser: ServiceInfo, winner: ServiceInfo): void {
  const { hostname } = loser.service;
  context.report(
    problemAt(loser.object, {
      path: 'spec.hosts',
      message: `${nameWithPlace(loser.object)} has the host ${hostname}, and so has ${nameWithPlace(winner.object)} in the same namespace; rename one`,
      severity: 'error',
      effect: `${hostname} is that of the ${winner.object.kind} ${winner.object.metadata.name}`,
    }),
  );
}

function reportSecond(context: Context, second: ServiceInfo, canonical: ServiceInfo): void {
  const { hostname, namespace } = second.service;
  context.report(
    problemAt(second.object, {
      path: second.object.kind === 'ServiceEntry' ? 'spec.hosts' : 'metadata.name',
      message: `${nameWithPlace(second.object)} has the host ${hostname}, and so has ${nameWithPlace(canonical.object)}`,
      severity: 'warning',
      effect: `clients outside namespace ${namespace} get that of ${canonical.service.namespace}`,
    }),
  );
}

function reportSharedAddresses(context: Context, infos: readonly ServiceInfo[]): void {
  const holders = new Map<string, Set<ServiceInfo['object']>>();
  for (const { object, service } of infos)
    for (const address of service.addresses) {
      const text = addressText(address);
      const objects = getOrAdd(holders, text, () => new Set([object]));
      const [first = object] = objects;
      if (!objects.has(object)) reportSharedAddress(context, object, first, text);
      objects.add(object);
    }
}

function reportSharedAddress(
  context: Context,
  object: ServiceInfo['object'],
  other: ServiceInfo['object'],
  address: string,
): void {
  context.report(
    problemAt(object, {
      path: object.kind === 'ServiceEntry' ? 'spec.addresses' : 'spec.clusterIP',
      message: `${nameWithPlace(object)} has the address ${address}, and so has ${nameWithPlace(other)}; give one of them another`,
      severity: 'error',
      effect: 'connections to it may reach the other',
    }),
  );
}

function addressText({ ip, length }: NetworkAddress): string {
  return length === undefined ? ip : `${ip}/${length}`;
}
