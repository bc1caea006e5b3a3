import { type Cidr, familyOf, ipFromBytes, ipToBytes, parseCidr } from '#api/address.ts';
import { type NetworkAddress, type Service, serviceKey } from '#api/service.ts';
import type { ServiceEntryObject } from '../source/objects.ts';
import { protocolOfName } from './app-protocol.ts';
import type { Context } from './context.ts';
import { balanceServiceEntry } from './load-balancing.ts';
import { problemAt } from './problems.ts';
import { bindingFields, type ServiceInfo } from './services.ts';
import { hostMayHaveVip, statusAddresses, vipKey, wantsEntryVips } from './vips.ts';

/** A service for every host of every ServiceEntry, oldest entry first. None of them is canonical yet. */
export function deriveServiceEntries(context: Context): readonly ServiceInfo[] {
  return context.inventory.serviceEntries.flatMap((object) => deriveServiceEntry(context, object));
}

function deriveServiceEntry(context: Context, object: ServiceEntryObject): readonly ServiceInfo[] {
  const written = writtenAddresses(context, object);
  if (written === undefined) return [];
  const { metadata, spec } = object;
  const namespaceAnnotations = context.inventory.namespaces.get(metadata.namespace)?.metadata.annotations;
  const loadBalancing = balanceServiceEntry(object, namespaceAnnotations ?? new Map());
  const binding = bindingFields(context, object);
  reportIneffective(context, object, binding.waypoint !== undefined);
  const portNames = new Map(spec.ports.map(({ number, name }) => [number, { name, targetName: '' }]));
  return [...new Set(spec.hosts)].map((hostname) => {
    const service: Service = {
      kind: 'service',
      name: metadata.name,
      namespace: metadata.namespace,
      hostname,
      addresses: written.length > 0 ? written : automaticAddresses(context, object, hostname),
      ports: spec.ports.map(({ number, targetPort, protocol }) => ({
        servicePort: number,
        targetPort: targetPort || number,
        appProtocol: protocolOfName(protocol),
      })),
      subjectAltNames: spec.subjectAltNames,
      ...binding,
      ...(loadBalancing && { loadBalancing }),
      ipFamilies: 'AUTOMATIC',
      canonical: false,
      visibility: 'PUBLIC',
    };
    const selector = spec.workloadSelector;
    return {
      key: serviceKey(service),
      service,
      object,
      portNames,
      ...(selector && selector.size > 0 && { selector }),
    };
  });
}

/** As a host, or as the prefix that a CIDR stands for; undefined and reported when one of them is neither. */
function writtenAddresses(
  context: Context,
  object: ServiceEntryObject,
): readonly NetworkAddress[] | undefined {
  const addresses: NetworkAddress[] = [];
  for (const [index, text] of object.spec.addresses.entries()) {
    const cidr = readCidr(text);
    if (cidr === undefined) {
      context.report(
        problemAt(object, {
          path: `spec.addresses[${index}]`,
          message: `${JSON.stringify(text)} is neither an IP address nor a CIDR`,
          severity: 'error',
          effect: 'the ServiceEntry is not served',
        }),
      );
      return undefined;
    }
    const isHost = cidr.length === (familyOf(cidr.address) === 4 ? 32 : 128);
    const { address: ip, length } = maskCidr(cidr);
    addresses.push({ network: context.network, ip, ...(!isHost && { length }) });
  }
  return addresses;
}

function automaticAddresses(
  context: Context,
  object: ServiceEntryObject,
  host: string,
): readonly NetworkAddress[] {
  if (!wantsEntryVips(object) || !hostMayHaveVip(object, host)) return [];
  const given = statusAddresses(object, host);
  const ips = given.length > 0 ? given : (context.vips.addresses.get(vipKey(object, host)) ?? []);
  return ips.map((ip) => ({ network: context.network, ip }));
}

function reportIneffective(context: Context, object: ServiceEntryObject, hasWaypoint: boolean): void {
  const warn = (path: string, message: string, effect: string): void =>
    context.report(problemAt(object, { path, message, severity: 'warning', effect }));
  if (object.spec.exportTo.some((namespace) => namespace !== '*'))
    warn(
      'spec.exportTo',
      'exportTo has no effect in ambient mode; an AuthorizationPolicy or a NetworkPolicy can restrict callers',
      'every namespace sees the ServiceEntry',
    );
  if (object.spec.resolution === 'DYNAMIC_DNS' && !hasWaypoint)
    warn(
      'spec.resolution',
      'resolution DYNAMIC_DNS needs a waypoint; add the label istio.io/use-waypoint',
      'wildcard hosts of it are not resolved',
    );
}

function readCidr(text: string): Cidr | undefined {
  try {
    return parseCidr(text);
  } catch {
    return undefined;
  }
}

/** The prefix with its host bits cleared. */
function maskCidr(cidr: Cidr): Cidr {
  const bytes = ipToBytes(cidr.address).map((byte, index) => {
    const bits = Math.min(8, Math.max(0, cidr.length - index * 8));
    return byte & (0xff << (8 - bits));
  });
  return { address: ipFromBytes(bytes), length: cidr.length };
}
