/** What one request may be made of. */
export interface RequestLimits {
  readonly maxNames: number;
  /** Bytes of a name, of a type, of a nonce. */
  readonly longestName: number;
  /** Bytes of what a client says of itself. */
  readonly largestNode: number;
}

/** Fields of `envoy.service.discovery.v3.DeltaDiscoveryRequest` that hold more than a name: its own words on what it rejects. */
const ERROR_DETAIL = 7;
const NODE = 1;
/** `initial_resource_versions`: an entry is a name, a version and four bytes around them. */
const INITIAL_VERSIONS = 5;
const LONGEST_VERSION = 128;

/** Each name is a field of its own; so many are no names. */
const OTHER_FIELDS = 16;

const LENGTH_DELIMITED = 2;

/** `malformed`: no decoder is to see it. */
export type RequestShape =
  | { readonly kind: 'fits' }
  | { readonly kind: 'malformed' }
  | { readonly kind: 'excess'; readonly what: string };

/**
 * Looks over a DeltaDiscoveryRequest before it is decoded: sixteen million empty names fit into a request of 32 MiB, and take
 * seconds and half a gigabyte to decode. Whatever cannot be walked over here is malformed, so that nothing hides behind it.
 */
export function shapeOf(bytes: Uint8Array, limits: RequestLimits): RequestShape {
  let at = 0;
  for (let fields = 0; at < bytes.length; fields += 1) {
    if (fields >= limits.maxNames + OTHER_FIELDS)
      return excess(`more than ${limits.maxNames} resource names`);
    const tag = readVarint(bytes, at);
    const end = tag && endOfValue(bytes, tag.value & 7, tag.end);
    if (tag === undefined || end === undefined || end > bytes.length) return { kind: 'malformed' };
    const number = Math.floor(tag.value / 8);
    const length = end - tag.end;
    if (length > longestOf(number, limits))
      return excess(`${nameOf(number)} has more than ${longestOf(number, limits)} bytes`);
    at = end;
  }
  return { kind: 'fits' };
}

function excess(what: string): RequestShape {
  return { kind: 'excess', what };
}

/** Undefined for groups, which are of another time, and for what is cut short. */
function endOfValue(bytes: Uint8Array, wireType: number, start: number): number | undefined {
  switch (wireType) {
    case 0:
      return readVarint(bytes, start)?.end;
    case 1:
      return start + 8;
    case LENGTH_DELIMITED: {
      const length = readVarint(bytes, start);
      return length && length.end + length.value;
    }
    case 5:
      return start + 4;
    default:
      return undefined;
  }
}

function longestOf(field: number, limits: RequestLimits): number {
  if (field === ERROR_DETAIL) return Number.POSITIVE_INFINITY;
  if (field === NODE) return limits.largestNode;
  return limits.longestName + (field === INITIAL_VERSIONS ? LONGEST_VERSION : 0);
}

function nameOf(field: number): string {
  const names = new Map([
    [NODE, 'node'],
    [2, 'the type'],
    [3, 'a resource name'],
    [4, 'a resource name'],
    [INITIAL_VERSIONS, 'a resource name with its version'],
    [6, 'the nonce'],
  ]);
  return names.get(field) ?? `field ${field}`;
}

function readVarint(
  bytes: Uint8Array,
  start: number,
): { readonly value: number; readonly end: number } | undefined {
  let value = 0;
  for (let i = 0; i < 5; i += 1) {
    const byte = bytes[start + i];
    if (byte === undefined) return undefined;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, end: start + i + 1 };
  }
  return undefined;
}
