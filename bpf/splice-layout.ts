import type { HostPort } from '#api/address.ts';
import { type MapLayout, OFFSETS, SIZES, writeEndpoint } from './layout.ts';

/** What splice-layout.h says, as bytes; the rules, and the version, are those of layout.ts. */

/** Bytes of the structures. */
export const SPLICE_SIZES: { readonly splice: 16; readonly spliceCounts: 16; readonly spliceSocket: 96 } = {
  splice: 16,
  spliceCounts: 16,
  spliceSocket: 96,
};

/** Where the members of the structures lie, by their names in splice-layout.h. */
export const SPLICE_OFFSETS: {
  readonly splice: { readonly flushed: 0; readonly target: 8 };
  readonly splice_counts: { readonly redirected: 0; readonly acked: 8 };
} = {
  splice: { flushed: 0, target: 8 },
  splice_counts: { redirected: 0, acked: 8 },
};

/** What a direction may have queued in the target, in bytes of the kernel's memory. */
export const SPLICE_QUEUE: number = 2 << 20;

/** Names of the maps of the kernel splice, as they are pinned. */
export type SpliceMapName =
  | 'splice_pods'
  | 'splice_senders'
  | 'splice_targets'
  | 'splices'
  | 'splice_counts'
  | 'splice_sockets';

const LRU_HASH = 9;
const SOCKHASH = 18;
const SK_STORAGE = 24;
const NO_PREALLOC = 1;
const MAX_SOCKETS = 65536;

export const SPLICE_MAPS: Readonly<Record<SpliceMapName, MapLayout>> = {
  splice_pods: { type: LRU_HASH, key: SIZES.cookie, value: 4, maxEntries: 4096, flags: 0 },
  splice_senders: {
    type: SOCKHASH,
    key: SIZES.flow,
    value: SIZES.socket,
    maxEntries: MAX_SOCKETS,
    flags: 0,
  },
  splice_targets: {
    type: SOCKHASH,
    key: SIZES.cookie,
    value: SIZES.socket,
    maxEntries: MAX_SOCKETS,
    flags: 0,
  },
  splices: {
    type: LRU_HASH,
    key: SIZES.cookie,
    value: SPLICE_SIZES.splice,
    maxEntries: MAX_SOCKETS,
    flags: 0,
  },
  splice_counts: {
    type: LRU_HASH,
    key: SIZES.cookie,
    value: SPLICE_SIZES.spliceCounts,
    maxEntries: MAX_SOCKETS,
    flags: 0,
  },
  splice_sockets: {
    type: SK_STORAGE,
    key: SIZES.descriptor,
    value: SPLICE_SIZES.spliceSocket,
    maxEntries: 0,
    flags: NO_PREALLOC,
  },
};

/** The key of an application's socket: its pod, its own end of the connection, and the ztunnel's. @throws AddressError */
export function senderKey(cookie: bigint, application: HostPort, ztunnel: HostPort): Buffer {
  const key = Buffer.alloc(SIZES.flow);
  key.writeBigUInt64LE(cookie, OFFSETS.flow.pod);
  writeEndpoint(key, OFFSETS.flow.from, application);
  writeEndpoint(key, OFFSETS.flow.to, ztunnel);
  return key;
}

/** The key of a socket of the ztunnel's: its cookie, as SO_COOKIE says it. */
export function targetKey(cookie: bigint): Buffer {
  const key = Buffer.alloc(SIZES.cookie);
  key.writeBigUInt64LE(cookie);
  return key;
}
