/** What a session's cookie or header says. */
export interface SessionToken {
  /** `10.1.0.5:8080`: the endpoint that has the session. */
  readonly address: string;
  /** Seconds since the epoch; absent: it does not end by itself. */
  readonly expires?: number;
  /** Ours, which Envoy passes over: when it began and was last used, in seconds since the epoch. */
  readonly created?: number;
  readonly used?: number;
}

/** Longest token that is looked at, in characters. */
const MAX_LENGTH = 512;

const ADDRESS = 1;
const EXPIRES = 2;
const CREATED = 101;
const USED = 102;

/** In base64: Envoy's message of a cookie (address 1, expires 2), with two fields of ours. */
export function encodeToken(token: SessionToken): string {
  const address = new TextEncoder().encode(token.address);
  const bytes = [...varint(ADDRESS * 8 + 2), ...varint(address.length), ...address];
  for (const [field, value] of [
    [EXPIRES, token.expires],
    [CREATED, token.created],
    [USED, token.used],
  ] as const)
    if (value !== undefined) bytes.push(...varint(field * 8), ...varint(value));
  return btoa(String.fromCharCode(...bytes));
}

/** The address alone in base64, as Envoy writes a session's header, and older ones its cookie. */
export function encodeAddress(address: string): string {
  return btoa(address);
}

/** Either form; undefined for anything else. */
export function decodeToken(text: string): SessionToken | undefined {
  if (text.length > MAX_LENGTH || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return undefined;
  let binary: string;
  try {
    binary = atob(text);
  } catch {
    return undefined;
  }
  if (/^[0-9a-f.:[\]]+:\d{1,5}$/.test(binary)) return { address: binary };
  return decodeMessage(Uint8Array.from(binary, (character) => character.charCodeAt(0)));
}

function decodeMessage(bytes: Uint8Array): SessionToken | undefined {
  const numbers = new Map<number, number>();
  let address = '';
  let at = 0;
  while (at < bytes.length) {
    const tag = readVarint(bytes, at);
    const value = tag === undefined ? undefined : readVarint(bytes, tag.next);
    if (tag === undefined || value === undefined) return undefined;
    at = value.next;
    const field = Math.floor(tag.value / 8);
    if (tag.value % 8 === 2) {
      if (at + value.value > bytes.length) return undefined;
      if (field === ADDRESS) address = String.fromCharCode(...bytes.subarray(at, at + value.value));
      at += value.value;
    } else if (tag.value % 8 === 0) numbers.set(field, value.value);
    else return undefined;
  }
  if (address === '') return undefined;
  const token: { -readonly [Key in keyof SessionToken]: SessionToken[Key] } = { address };
  const [expires, created, used] = [EXPIRES, CREATED, USED].map((field) => numbers.get(field));
  if (expires !== undefined) token.expires = expires;
  if (created !== undefined) token.created = created;
  if (used !== undefined) token.used = used;
  return token;
}

/** Up to 2^53. */
function varint(value: number): readonly number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

function readVarint(
  bytes: Uint8Array,
  start: number,
): { readonly value: number; readonly next: number } | undefined {
  let value = 0;
  for (let index = 0; index < 7; index += 1) {
    const byte = bytes[start + index];
    if (byte === undefined) return undefined;
    value += (byte % 128) * 128 ** index;
    if (byte < 128) return { value, next: start + index + 1 };
  }
  return undefined;
}
