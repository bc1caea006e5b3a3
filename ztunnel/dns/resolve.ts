import { familyOf, type Ip } from '#api/address.ts';
import type { NetworkAddress, Service } from '#api/service.ts';
import { preferredService } from '../tables/service-index.ts';
import type { Tables } from '../tables/tables.ts';

/** A question about a name, and who asks. */
export interface NameQuestion {
  readonly tables: Tables;
  /** As it was asked, without the last dot. */
  readonly name: string;
  readonly type: 'A' | 'AAAA' | 'other';
  readonly clientNamespace: string;
  /** The client's network: only addresses in it are answered. */
  readonly network: string;
  /** `cluster.local`. */
  readonly clusterDomain: string;
  /** Namespace whose services win over others of the same name, after the client's own and canonical ones. */
  readonly preferredNamespace?: string;
  /**
   * Whether nobody else knows names of the cluster's domain: those that are not found then do not exist. A cluster with a
   * DNS of its own has more of them (of a StatefulSet's pods, for one). Default false.
   */
  readonly ownsClusterDomain?: boolean;
  /** False: no AAAA records. */
  readonly ipv6: boolean;
  /** From 0 to below 1; shuffles the addresses. */
  readonly random: () => number;
}

/** What the mesh knows of a name. */
export type NameAnswer =
  /** The name is the mesh's; there may be no address of the family, which is an answer as well. */
  | {
      readonly kind: 'found';
      readonly service: Service;
      /** The name that the asked one is an alias of: it had one of our search domains behind it. */
      readonly alias?: string;
      readonly addresses: readonly Ip[];
    }
  /** There is no such name anywhere. */
  | { readonly kind: 'no-such-name' }
  /** To be asked upstream. */
  | { readonly kind: 'forward'; readonly reason: 'not-an-address-query' | 'unknown-name' };

/** Answers from the tables, as a cluster's DNS would: fact sheet ambient-wire.md, 7. */
export function answerName(question: NameQuestion): NameAnswer {
  const owns = question.ownsClusterDomain === true && isOfCluster(question);
  if (question.type === 'other' && !owns) return { kind: 'forward', reason: 'not-an-address-query' };
  for (const candidate of candidatesOf(question)) {
    const service = serviceNamed(question, candidate.hostname);
    if (service === undefined) continue;
    const addresses = shuffled(addressesOf(question, service), question.random);
    const isWildcard = service.hostname.startsWith('*');
    if (candidate.alias === undefined || isWildcard) return { kind: 'found', service, addresses };
    return { kind: 'found', service, alias: candidate.alias, addresses };
  }
  return owns ? { kind: 'no-such-name' } : { kind: 'forward', reason: 'unknown-name' };
}

function isOfCluster({ name, clusterDomain }: NameQuestion): boolean {
  return `.${name.toLowerCase()}`.endsWith(`.${clusterDomain}`);
}

interface NameCandidate {
  readonly hostname: string;
  /** Set if a search domain was taken off. */
  readonly alias?: string;
}

function candidatesOf(question: NameQuestion): readonly NameCandidate[] {
  const name = question.name.toLowerCase();
  const plain = withExpansions(name, question).flatMap(withWildcards);
  const stripped = searchDomains(question).flatMap((domain) => {
    if (!name.endsWith(`.${domain}`)) return [];
    const alias = name.slice(0, -domain.length - 1);
    const hostnames = withExpansions(alias, question).flatMap(withWildcards);
    return hostnames.map((hostname) => ({ hostname, alias }));
  });
  return [...plain.map((hostname) => ({ hostname })), ...stripped];
}

function searchDomains({ clientNamespace, clusterDomain }: NameQuestion): readonly string[] {
  return [`${clientNamespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain];
}

/** The name, and what it stands for in a cluster: `catalog`, `catalog.shop`, `catalog.shop.svc`. */
function withExpansions(name: string, question: NameQuestion): readonly string[] {
  const { clientNamespace, clusterDomain } = question;
  const labels = name.split('.');
  const endsInSvc = labels.at(-1) === 'svc';
  const inNamespace = `${name}.${clientNamespace}.svc.${clusterDomain}`;
  const ofService = `${name}.svc.${clusterDomain}`;
  const inDomain = endsInSvc ? [`${name}.${clusterDomain}`] : [];
  switch (labels.length) {
    case 1:
      return [name, inNamespace];
    case 2:
      return [name, ofService, inNamespace];
    case 3:
      return [name, ...inDomain, ofService];
    case 4:
      return [name, ...inDomain];
    default:
      return [name];
  }
}

/** The name, then `*.` and ever fewer of its last labels. */
function withWildcards(name: string): readonly string[] {
  const labels = name.split('.');
  return [name, ...labels.slice(1).map((_, index) => `*.${labels.slice(index + 1).join('.')}`)];
}

/** A service without a VIP counts only as a cluster's own: an outside name without one is for upstream. */
function serviceNamed(question: NameQuestion, hostname: string): Service | undefined {
  const named = question.tables.servicesByHostname(hostname);
  if (named.length === 0) return undefined;
  const isClusters = hostname.endsWith(`.svc.${question.clusterDomain}`);
  const eligible = named.filter((service) => isClusters || service.addresses.some(isHost));
  return preferredService(eligible, question.clientNamespace, question.preferredNamespace);
}

function addressesOf(question: NameQuestion, service: Service): readonly Ip[] {
  if (question.type === 'other') return [];
  const family = question.type === 'A' ? 4 : 6;
  if (family === 6 && !question.ipv6) return [];
  if (family === 4 && service.ipFamilies === 'IPV6_ONLY') return [];
  if (family === 6 && service.ipFamilies === 'IPV4_ONLY') return [];
  const isWanted = (ip: Ip): boolean => familyOf(ip) === family;
  const vips = service.addresses.filter(isHost);
  if (vips.length > 0) {
    return vips.filter((vip) => vip.network === question.network && isWanted(vip.ip)).map(({ ip }) => ip);
  }
  return question.tables.endpointsOf(service).flatMap(({ workload }) => {
    const ip = workload.network === question.network ? workload.addresses.find(isWanted) : undefined;
    return ip ?? [];
  });
}

/** Not a range of addresses, none of which in particular is the service's. */
function isHost({ ip, length }: NetworkAddress): boolean {
  return length === undefined || length === (familyOf(ip) === 4 ? 32 : 128);
}

function shuffled(addresses: readonly Ip[], random: () => number): readonly Ip[] {
  const keyed = addresses.map((ip) => ({ ip, key: random() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ ip }) => ip);
}
