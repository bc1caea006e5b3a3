import { type HostPort, type Ip, ipFromBytes, ipToBytes } from '#api/address.ts';

/**
 * What layout.h says, as bytes: keys and values of the maps that the programs in the kernel share with us. Little endian,
 * addresses in network order in 16 bytes (IPv4 as `::ffff:a.b.c.d`), ports in host order. A test compares every size and
 * offset here with the types that the compiled objects carry.
 */

/** The version of everything in layout.h; part of the directory's name in which maps and links are pinned. */
export const ABI: 1 = 1;

/** Capture what the pod dials. */
export const POD_OUTBOUND: 1 = 1;
/** Capture what dials the pod. */
export const POD_INBOUND: 2 = 2;
/** Closed while no ztunnel is there; the egress program drops what goes round it. */
export const POD_STRICT: 4 = 4;
/** UDP to and from others is refused. */
export const POD_REFUSE_UDP: 8 = 8;
/** Port 53 goes to the ztunnel's resolver. */
export const POD_DNS: 16 = 16;
/** Whoever comes without an identity is denied, whatever else policies say. */
export const POD_REFUSE_PLAINTEXT: 32 = 32;
/** The egress program acts; set after POD_OUTBOUND, so that a connection just being made is not hit. */
export const POD_BACKSTOP: 64 = 64;

/** Which of the ztunnel's listening sockets of a pod: the number in `struct listener_key`. */
export type ListenerKind = 'outbound' | 'inbound' | 'hbone';
const LISTENER_KINDS: Readonly<Record<ListenerKind, number>> = { outbound: 0, inbound: 1, hbone: 2 };
/** Sockets of one kind that a pod can have, one a worker of the ztunnel. */
export const LISTENER_SLOTS: 8 = 8;

/** Why the programs refused, or counted, something; the index is the one in `struct counters`. */
export type Reason =
  | 'outbound_without_ztunnel'
  | 'inbound_without_ztunnel'
  | 'plaintext_refused'
  | 'egress_tcp'
  | 'egress_raw'
  | 'udp_outbound'
  | 'udp_inbound'
  | 'mesh_port_bound'
  | 'egress_fragment'
  | 'egress_protocol'
  | 'no_memory'
  | 'egress_seen'
  | 'mesh_port_dialled';
export const REASONS: readonly Reason[] = [
  'outbound_without_ztunnel',
  'inbound_without_ztunnel',
  'plaintext_refused',
  'egress_tcp',
  'egress_raw',
  'udp_outbound',
  'udp_inbound',
  'mesh_port_bound',
  'egress_fragment',
  'egress_protocol',
  'no_memory',
  'egress_seen',
  'mesh_port_dialled',
];

/** Bytes of the structures, and of the maps' keys and values that are plain numbers. */
export const SIZES: {
  readonly cookie: 8;
  readonly descriptor: 4;
  readonly socket: 8;
  readonly endpoint: 20;
  readonly flow: 48;
  readonly pod: 40;
  readonly listenerKey: 16;
  readonly ztunnelSocket: 32;
  readonly probeKey: 32;
  readonly probe: 4;
  readonly counters: 128;
} = {
  cookie: 8,
  descriptor: 4,
  socket: 8,
  endpoint: 20,
  flow: 48,
  pod: 40,
  listenerKey: 16,
  ztunnelSocket: 32,
  probeKey: 32,
  probe: 4,
  counters: 128,
};

/** Where the members of the structures lie, by their names in layout.h. */
export const OFFSETS: {
  readonly endpoint: { readonly ip: 0; readonly port: 16; readonly family: 18 };
  readonly flow: { readonly pod: 0; readonly from: 8; readonly to: 28 };
  readonly pod: { readonly flags: 0; readonly reserved: 4; readonly ip4: 8; readonly ip6: 24 };
  readonly listener_key: { readonly pod: 0; readonly kind: 8; readonly slot: 12 };
  readonly ztunnel_socket: {
    readonly version: 0;
    readonly reserved: 4;
    readonly shown: 8;
    readonly pad: 28;
  };
  readonly probe_key: { readonly pod: 0; readonly from: 8; readonly port: 24; readonly pad: 28 };
  readonly counters: { readonly count: 0 };
} = {
  endpoint: { ip: 0, port: 16, family: 18 },
  flow: { pod: 0, from: 8, to: 28 },
  pod: { flags: 0, reserved: 4, ip4: 8, ip6: 24 },
  listener_key: { pod: 0, kind: 8, slot: 12 },
  ztunnel_socket: { version: 0, reserved: 4, shown: 8, pad: 28 },
  probe_key: { pod: 0, from: 8, port: 24, pad: 28 },
  counters: { count: 0 },
};

/** A map's kind (bpf_map_type of linux/bpf.h), sizes in bytes, entries, and flags. */
export interface MapLayout {
  readonly type: number;
  readonly key: number;
  readonly value: number;
  readonly maxEntries: number;
  readonly flags: number;
}

/** Names of the maps, as they are pinned. */
export type MapName = 'pods' | 'listeners' | 'own' | 'peers' | 'handshakes' | 'probes' | 'counters';

const HASH = 1;
const LRU_HASH = 9;
const SOCKHASH = 18;
const SK_STORAGE = 24;
const NO_PREALLOC = 1;
/** What a listening socket's storage has goes to the sockets that it accepts. */
const CLONE = 512;

export const MAPS: Readonly<Record<MapName, MapLayout>> = {
  pods: { type: HASH, key: SIZES.cookie, value: SIZES.pod, maxEntries: 4096, flags: 0 },
  listeners: { type: SOCKHASH, key: SIZES.listenerKey, value: SIZES.socket, maxEntries: 32768, flags: 0 },
  own: {
    type: SK_STORAGE,
    key: SIZES.descriptor,
    value: SIZES.ztunnelSocket,
    maxEntries: 0,
    flags: NO_PREALLOC | CLONE,
  },
  peers: {
    type: SK_STORAGE,
    key: SIZES.descriptor,
    value: SIZES.endpoint,
    maxEntries: 0,
    flags: NO_PREALLOC,
  },
  handshakes: { type: LRU_HASH, key: SIZES.flow, value: SIZES.endpoint, maxEntries: 65536, flags: 0 },
  probes: { type: HASH, key: SIZES.probeKey, value: SIZES.probe, maxEntries: 4096, flags: 0 },
  counters: { type: HASH, key: SIZES.cookie, value: SIZES.counters, maxEntries: 4096, flags: 0 },
};

/** One pod as the programs know it. */
export interface PodEntry {
  /** POD_… together. */
  readonly flags: number;
  /** Its own addresses; undefined: none of that family. */
  readonly ip4: Ip | undefined;
  readonly ip6: Ip | undefined;
}

/** The key of `pods` and `counters`: the cookie of the pod's network namespace. */
export function podKey(cookie: bigint): Buffer {
  const key = Buffer.alloc(SIZES.cookie);
  key.writeBigUInt64LE(cookie);
  return key;
}

export function encodePod(pod: PodEntry): Buffer {
  const value = Buffer.alloc(SIZES.pod);
  value.writeUInt32LE(pod.flags, OFFSETS.pod.flags);
  if (pod.ip4 !== undefined) writeIp(value, OFFSETS.pod.ip4, pod.ip4);
  if (pod.ip6 !== undefined) writeIp(value, OFFSETS.pod.ip6, pod.ip6);
  return value;
}

export function decodePod(value: Buffer): PodEntry {
  return {
    flags: value.readUInt32LE(OFFSETS.pod.flags),
    ip4: readIp(value, OFFSETS.pod.ip4),
    ip6: readIp(value, OFFSETS.pod.ip6),
  };
}

/** The key of a listening socket; `slot` from 0 to {@link LISTENER_SLOTS} - 1. */
export function listenerKey(cookie: bigint, kind: ListenerKind, slot: number): Buffer {
  const key = Buffer.alloc(SIZES.listenerKey);
  key.writeBigUInt64LE(cookie, OFFSETS.listener_key.pod);
  key.writeUInt32LE(LISTENER_KINDS[kind], OFFSETS.listener_key.kind);
  key.writeUInt32LE(slot, OFFSETS.listener_key.slot);
  return key;
}

/** The key of a probe that is let past the mesh: from an address to a port of the pod. */
export function probeKey(cookie: bigint, from: Ip, port: number): Buffer {
  const key = Buffer.alloc(SIZES.probeKey);
  key.writeBigUInt64LE(cookie, OFFSETS.probe_key.pod);
  writeIp(key, OFFSETS.probe_key.from, from);
  key.writeUInt32LE(port, OFFSETS.probe_key.port);
  return key;
}

/** The pod's cookie in a key of `probes`, `listeners` or `handshakes`: it comes first in each. */
export function podOfKey(key: Buffer): bigint {
  return key.readBigUInt64LE(0);
}

const TAG_VERSION = 1;

/**
 * The tag of a socket of the ztunnel's.
 * @param shown whom the application is to see as its peer; undefined: the socket's own address
 */
export function encodeZtunnelSocket(shown?: HostPort): Buffer {
  const value = Buffer.alloc(SIZES.ztunnelSocket);
  value.writeUInt32LE(TAG_VERSION, OFFSETS.ztunnel_socket.version);
  if (shown !== undefined) writeEndpoint(value, OFFSETS.ztunnel_socket.shown, shown);
  return value;
}

/** Writes `struct endpoint` with family 0, the form of keys. */
export function writeEndpoint(into: Buffer, offset: number, address: HostPort): void {
  writeIp(into, offset + OFFSETS.endpoint.ip, address.ip);
  into.writeUInt16LE(address.port, offset + OFFSETS.endpoint.port);
  into.writeUInt16LE(0, offset + OFFSETS.endpoint.family);
}

/** Reads `struct endpoint`, whatever its family; undefined when its port is 0: nobody. */
export function readEndpoint(from: Buffer, offset: number): HostPort | undefined {
  const port = from.readUInt16LE(offset + OFFSETS.endpoint.port);
  if (port === 0) return undefined;
  const at = offset + OFFSETS.endpoint.ip;
  return { ip: ipFromBytes(from.subarray(at, at + 16)), port };
}

/** How often each reason occurred; those that did not are there with 0. */
export function decodeCounters(value: Buffer): ReadonlyMap<Reason, bigint> {
  return new Map(
    REASONS.map((reason, index) => [reason, value.readBigUInt64LE(OFFSETS.counters.count + 8 * index)]),
  );
}

const MAPPED = Buffer.from('00000000000000000000ffff', 'hex');

function writeIp(into: Buffer, offset: number, ip: Ip): void {
  const bytes = ipToBytes(ip);
  if (bytes.length === 4) into.set(MAPPED, offset);
  into.set(bytes, offset + 16 - bytes.length);
}

function readIp(from: Buffer, offset: number): Ip | undefined {
  const bytes = from.subarray(offset, offset + 16);
  return bytes.every((byte) => byte === 0) ? undefined : ipFromBytes(bytes);
}
