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
  const holders = new Map<string, ServiceInfo>();
  for (const info of infos)
    for (const address of info.service.addresses) {
      const holder = getOrAdd(holders, addressKey(address), () => info);
      if (holder.object === info.object) continue;
      context.report(
        problemAt(info.object, {
          path: info.object.kind === 'ServiceEntry' ? 'spec.addresses' : 'spec.clusterIP',
          message: `${nameWithPlace(info.object)} has the address ${addressKey(address)}, and so has ${nameWithPlace(holder.object)}; give one of them another`,
          severity: 'error',
          effect: `connections to it from other namespaces than ${info.service.namespace} may reach the other`,
        }),
      );
    }
}

function addressKey({ ip, length }: NetworkAddress): string {
  return length === undefined ? ip : `${ip}/${length}`;
}
