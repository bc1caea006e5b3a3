import type { HostPort, Ip } from '#api/address.ts';
import { type Service, serviceKey } from '#api/service.ts';
import type { GatewayAddress, Workload } from '#api/workload.ts';
import { chooseAddress, chooseEndpoint, type NoChoice } from './balance.ts';
import type { Tables } from './tables.ts';

/** What a reference to a waypoint or gateway points at. */
export type Gateway =
  | { readonly kind: 'service'; readonly service: Service }
  | { readonly kind: 'workload'; readonly workload: Workload };

/** One instance of a waypoint, and where its HBONE listener is. */
export type Instance =
  | {
      readonly kind: 'chosen';
      readonly workload: Workload;
      readonly hop: HostPort;
      readonly service?: Service;
    }
  | { readonly kind: 'none'; readonly reason: 'not-found' | 'not-ready' | 'other-network' };

/**
 * Chooses an instance of the waypoint that the reference points at.
 * @param asked where the application dialled: an instance's address of the same family is preferred.
 * @param random from 0 to below 1.
 * @param exclude workloads (by uid) that are not to be chosen.
 */
export function chooseInstance(
  tables: Tables,
  reference: GatewayAddress,
  source: Workload,
  asked: Ip,
  random: () => number,
  exclude?: ReadonlySet<string>,
): Instance {
  const gateway = findGateway(tables, reference, source.namespace);
  const port = reference.hboneMtlsPort;
  switch (gateway?.kind) {
    case undefined:
      return { kind: 'none', reason: 'not-found' };
    case 'workload':
      return instanceAt(gateway.workload, { ip: addressIn(reference) ?? asked, port }, source);
    case 'service': {
      const { service } = gateway;
      const choice = chooseEndpoint({ tables, service, port, source, purpose: 'waypoint', exclude }, random);
      if (choice.kind === 'none') return { kind: 'none', reason: whyNone(choice.reason) };
      const ip = chooseAddress(choice.workload, service, addressIn(reference) ?? asked);
      if (ip === undefined) return { kind: 'none', reason: 'not-ready' };
      return {
        kind: 'chosen',
        workload: choice.workload,
        hop: { ip, port: choice.targetPort },
        service,
      };
    }
  }
}

/** Resolves a reference to a waypoint: a service by hostname or VIP, or a workload by address. */
export function findGateway(
  tables: Tables,
  { destination }: GatewayAddress,
  clientNamespace: string,
): Gateway | undefined {
  const service =
    destination.kind === 'hostname'
      ? tables.serviceByKey(serviceKey(destination))
      : tables.serviceByVip(destination.network, destination.ip, clientNamespace);
  if (service !== undefined) return { kind: 'service', service };
  if (destination.kind === 'hostname') return undefined;
  const workload = tables.workloadByIp(destination.network, destination.ip);
  return workload && { kind: 'workload', workload };
}

/** Whether a workload is (one instance of) the waypoint that the reference points at. */
export function isInstanceOf(tables: Tables, reference: GatewayAddress, workload: Workload): boolean {
  const gateway = findGateway(tables, reference, workload.namespace);
  switch (gateway?.kind) {
    case 'service':
      return workload.services.has(serviceKey(gateway.service));
    case 'workload':
      return gateway.workload.uid === workload.uid;
    case undefined:
      return false;
  }
}

/** `shop/waypoint.shop.svc.cluster.local:15008`, `10.244.1.7:15008`: for messages. */
export function formatGateway({ destination, hboneMtlsPort }: GatewayAddress): string {
  const where = destination.kind === 'hostname' ? serviceKey(destination) : destination.ip;
  return `${where}:${hboneMtlsPort}`;
}

function instanceAt(workload: Workload, hop: HostPort, source: Workload): Instance {
  if (workload.network !== source.network) return { kind: 'none', reason: 'other-network' };
  if (workload.status !== 'HEALTHY') return { kind: 'none', reason: 'not-ready' };
  return { kind: 'chosen', workload, hop };
}

function addressIn({ destination }: GatewayAddress): Ip | undefined {
  return destination.kind === 'address' ? destination.ip : undefined;
}

function whyNone(reason: NoChoice): 'not-ready' | 'other-network' {
  switch (reason) {
    case 'other-network':
    case 'other-network-without-gateway':
      return 'other-network';
    case 'service-port-unknown':
    case 'no-healthy-endpoint':
      return 'not-ready';
  }
}
