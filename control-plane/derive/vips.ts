import {
  type Cidr,
  cidrContains,
  familyOf,
  type Ip,
  ipFromBytes,
  ipToBigInt,
  isIp,
  parseCidr,
  parseIp,
} from '#api/address.ts';
import { type ObjectSet, objectKey, type ServiceEntryObject, type ServiceObject } from '../source/objects.ts';
import { compareCreation, takeInventory } from './inventory.ts';
import { getOrAdd } from './selectors.ts';

/**
 * Virtual addresses that were given out, by {@link vipKey}, and where each range goes on. Plain data, which
 * {@link writeVips} and {@link readVips} turn into JSON and back.
 */
export interface VipAllocations {
  readonly addresses: ReadonlyMap<string, readonly Ip[]>;
  /** Offset of the next address to try, by range (`10.96.0.0/16`). */
  readonly next: ReadonlyMap<string, number>;
}

/** Before anything is given out. */
export const NO_VIPS: VipAllocations = { addresses: new Map(), next: new Map() };

/** A range to give addresses from: from offset `first`, up to the last but one, and never more than 2³¹. */
interface Range {
  readonly prefix: Cidr;
  readonly name: string;
  readonly first: number;
  readonly last: number;
}

/** Services without a clusterIP. */
const SERVICE_RANGES: readonly Range[] = [range('10.96.0.0/16', 256), range('fd00:10:96::/112', 256)];
/** Hosts of ServiceEntries without addresses: the ranges, and the order in them, of Istio. */
const ENTRY_RANGES: readonly Range[] = [range('240.240.0.0/16', 1), range('2001:2::/48', 1)];

/** Name under which addresses are kept: of the object, and of the host for a ServiceEntry, each of whose hosts has its own. */
export function vipKey(object: ServiceObject | ServiceEntryObject, host?: string): string {
  return host === undefined ? objectKey(object) : `${objectKey(object)} ${host}`;
}

/**
 * Gives addresses to Services without a clusterIP, and to hosts of ServiceEntries that want one. What was given stays
 * as long as its object does. New ones go to the oldest first, in the order of the text, and go on where the range was
 * left, so that an address is not used again soon; addresses that objects write themselves are left out.
 * When a range is full, the rest get none.
 */
export function allocateVips(objects: Pick<ObjectSet, 'objects'>, previous: VipAllocations): VipAllocations {
  const inventory = takeInventory(objects.objects.values());
  const wanted = [
    ...[...inventory.services].sort(compareCreation).filter(wantsVip).map(toServiceWant),
    ...[...inventory.serviceEntries].sort(compareCreation).flatMap(toEntryWants),
  ];
  const used = new Set<Ip>();
  for (const service of inventory.services) for (const ip of writtenClusterIps(service)) used.add(ip);
  for (const entry of inventory.serviceEntries) for (const ip of writtenEntryIps(entry)) used.add(ip);
  const kept = new Map<string, readonly Ip[]>();
  for (const { key } of wanted) {
    const addresses = previous.addresses.get(key)?.filter((ip) => !used.has(ip)) ?? [];
    for (const ip of addresses) used.add(ip);
    kept.set(key, addresses);
  }
  return fillUp(wanted, kept, used, new Map(previous.next));
}

/** The cluster IPs that a Service writes, canonical; none for a headless one. */
export function writtenClusterIps(service: ServiceObject): readonly Ip[] {
  const { clusterIP, clusterIPs } = service.spec;
  return (clusterIPs.length > 0 ? clusterIPs : [clusterIP ?? '']).filter(isIp).map(parseIp);
}

/** Whether a Service is to have an address of ours: neither written, nor headless, nor a mere name for something else. */
export function wantsVip(service: ServiceObject): boolean {
  const { type, clusterIP, clusterIPs } = service.spec;
  return type !== 'ExternalName' && !clusterIP && clusterIPs.length === 0;
}

/** Whether hosts of a ServiceEntry without addresses are given some. */
export function wantsEntryVips(entry: ServiceEntryObject): boolean {
  const { resolution, addresses } = entry.spec;
  const label = entry.metadata.labels.get('networking.istio.io/enable-autoallocate-ip') ?? '';
  return resolution !== 'NONE' && addresses.length === 0 && label.toLowerCase() !== 'false';
}

/** Whether a host may have an address: a wildcard only where the waypoint resolves what was asked for. */
export function hostMayHaveVip(entry: ServiceEntryObject, host: string): boolean {
  return !host.startsWith('*') || entry.spec.resolution === 'DYNAMIC_DNS';
}

/** Addresses of a host in the status of its ServiceEntry: a cluster has already given them out. */
export function statusAddresses(entry: ServiceEntryObject, host: string): readonly Ip[] {
  return entry.status.addresses
    .filter((address) => address.host === host && isIp(address.value))
    .map(({ value }) => parseIp(value));
}

/** As JSON. */
export function writeVips(vips: VipAllocations): unknown {
  return { addresses: Object.fromEntries(vips.addresses), next: Object.fromEntries(vips.next) };
}

/** From JSON; what is not of the right form is left out, so that at worst an address is given out anew. */
export function readVips(written: unknown): VipAllocations {
  const addresses = entriesAt(written, 'addresses').flatMap(([key, value]): [string, readonly Ip[]][] => {
    const ips = Array.isArray(value)
      ? value.filter((ip): ip is string => typeof ip === 'string' && isIp(ip))
      : [];
    return ips.length > 0 ? [[key, ips.map(parseIp)]] : [];
  });
  const next = entriesAt(written, 'next').filter((entry): entry is [string, number] =>
    Number.isSafeInteger(entry[1]),
  );
  return { addresses: new Map(addresses), next: new Map(next) };
}

interface Want {
  readonly key: string;
  readonly ranges: readonly Range[];
}

function toServiceWant(service: ServiceObject): Want {
  const families = service.spec.ipFamilies;
  const ranges = SERVICE_RANGES.filter(
    ({ prefix }) =>
      families.length === 0 || families.includes(familyOf(prefix.address) === 4 ? 'IPv4' : 'IPv6'),
  );
  return { key: vipKey(service), ranges };
}

function toEntryWants(entry: ServiceEntryObject): readonly Want[] {
  if (!wantsEntryVips(entry)) return [];
  return [...new Set(entry.spec.hosts)]
    .filter((host) => hostMayHaveVip(entry, host) && statusAddresses(entry, host).length === 0)
    .map((host) => ({ key: vipKey(entry, host), ranges: ENTRY_RANGES }));
}

function writtenEntryIps(entry: ServiceEntryObject): readonly Ip[] {
  const given = entry.spec.hosts.flatMap((host) => statusAddresses(entry, host));
  return [...given, ...entry.spec.addresses.filter(isIp).map(parseIp)];
}

function fillUp(
  wanted: readonly Want[],
  kept: ReadonlyMap<string, readonly Ip[]>,
  used: Set<Ip>,
  next: Map<string, number>,
): VipAllocations {
  const addresses = new Map<string, readonly Ip[]>();
  for (const { key, ranges } of wanted) {
    const given = ranges.flatMap((range) => {
      const ip =
        kept.get(key)?.find((address) => cidrContains(range.prefix, address)) ?? take(range, used, next);
      return ip === undefined ? [] : [ip];
    });
    if (given.length > 0) addresses.set(key, given);
  }
  return { addresses, next };
}

/** The next free address, once round; undefined when the range is full. */
function take(range: Range, used: Set<Ip>, next: Map<string, number>): Ip | undefined {
  const size = range.last - range.first + 1;
  const start = getOrAdd(next, range.name, () => range.first);
  for (let step = 0; step < size; step += 1) {
    const offset = range.first + ((start - range.first + step) % size);
    const ip = addressAt(range.prefix, offset);
    if (used.has(ip)) continue;
    used.add(ip);
    next.set(range.name, offset + 1);
    return ip;
  }
  return undefined;
}

function addressAt(prefix: Cidr, offset: number): Ip {
  const length = familyOf(prefix.address) === 4 ? 4 : 16;
  let value = ipToBigInt(prefix.address) + BigInt(offset);
  const bytes = new Uint8Array(length);
  for (let index = length - 1; index >= 0; index -= 1) {
    bytes[index] = Number(value & 0xffn);
    value >>= 8n;
  }
  return ipFromBytes(bytes);
}

function range(text: string, first: number): Range {
  const prefix = parseCidr(text);
  const hostBits = (familyOf(prefix.address) === 4 ? 32 : 128) - prefix.length;
  return { prefix, name: text, first, last: 2 ** Math.min(hostBits, 31) - 2 };
}

function entriesAt(written: unknown, name: string): readonly [string, unknown][] {
  const value = typeof written === 'object' && written !== null ? Reflect.get(written, name) : undefined;
  return typeof value === 'object' && value !== null ? Object.entries(value) : [];
}
