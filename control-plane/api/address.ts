import ipaddr from 'ipaddr.js';

/**
 * An IP address as canonical text: IPv4 dotted, IPv6 compressed lower case (RFC 5952). IPv4-mapped IPv6 is
 * written as IPv4. Two addresses are equal exactly if their texts are.
 */
export type Ip = string;

/** A prefix: `length` leading bits of `address` count. A host has length 32 or 128. */
export interface Cidr {
  readonly address: Ip;
  readonly length: number;
}

/** A socket address. */
export interface HostPort {
  readonly ip: Ip;
  readonly port: number;
}

/** Thrown for text or bytes that are not an address. */
export class AddressError extends Error {
  override readonly name = 'AddressError';
}

/**
 * Parses IP text to its canonical form.
 * @throws AddressError when the text is not an IP address (also for IPv4 in octal, hexadecimal or short forms).
 */
export function parseIp(text: string): Ip {
  const ip = findIp(text);
  if (ip !== undefined) return ip;
  throw new AddressError(`not an IP address: ${JSON.stringify(text)}`);
}

/** Whether the text is an IP address that {@link parseIp} takes. */
export function isIp(text: string): boolean {
  return findIp(text) !== undefined;
}

const OCTET = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';
const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`);

function findIp(text: string): Ip | undefined {
  if (IPV4.test(text)) return text;
  return text.includes(':') && !text.includes('%') && ipaddr.IPv6.isValid(text)
    ? canonical(ipaddr.IPv6.parse(text))
    : undefined;
}

/** Address family of canonical text. */
export function familyOf(ip: Ip): 4 | 6 {
  return ip.includes(':') ? 6 : 4;
}

/**
 * Parses `10.0.0.0/8`, or an address alone as a host prefix. Host bits may be set and are kept, as istiod does.
 * @throws AddressError
 */
export function parseCidr(text: string): Cidr {
  const slash = text.indexOf('/');
  const address = parseIp(slash < 0 ? text : text.slice(0, slash));
  const bits = familyOf(address) === 4 ? 32 : 128;
  if (slash < 0) return { address, length: bits };
  const suffix = text.slice(slash + 1);
  const length = Number(suffix);
  if (!/^\d{1,3}$/.test(suffix) || length > bits)
    throw new AddressError(`not a CIDR: ${JSON.stringify(text)}`);
  return { address, length };
}

/** `10.0.0.0/8`. */
export function formatCidr(cidr: Cidr): string {
  return `${cidr.address}/${cidr.length}`;
}

/** 4 or 16 bytes, network order. */
export function ipToBytes(ip: Ip): Uint8Array {
  return IPV4.test(ip)
    ? Uint8Array.from(ip.split('.'), Number)
    : Uint8Array.from(ipaddr.parse(ip).toByteArray());
}

/**
 * 4 or 16 bytes to canonical text.
 * @throws AddressError for any other length.
 */
export function ipFromBytes(bytes: Uint8Array): Ip {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  if (bytes.length === 16 && isMapped(bytes)) return ipFromBytes(bytes.subarray(12));
  if (bytes.length === 16) return canonical(new ipaddr.IPv6([...bytes]));
  throw new AddressError(`an IP address has 4 or 16 bytes, not ${bytes.length}`);
}

/** `::ffff:a.b.c.d`: an IPv4 address among IPv6 ones. */
function isMapped(bytes: Uint8Array): boolean {
  for (let index = 0; index < 10; index++) if (bytes[index] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}

/** The address as an unsigned integer of 32 or 128 bits. */
export function ipToBigInt(ip: Ip): bigint {
  let value = 0n;
  for (const byte of ipToBytes(ip)) value = (value << 8n) | BigInt(byte);
  return value;
}

/** Whether the prefix contains the address; never across families. */
export function cidrContains(cidr: Cidr, ip: Ip): boolean {
  const bits = familyOf(cidr.address) === 4 ? 32 : 128;
  if (familyOf(cidr.address) !== familyOf(ip)) return false;
  const shift = BigInt(bits - cidr.length);
  return ipToBigInt(cidr.address) >> shift === ipToBigInt(ip) >> shift;
}

/** `10.0.0.1:80`, `[fd00::1]:80`. */
export function formatHostPort(address: HostPort): string {
  return familyOf(address.ip) === 6 ? `[${address.ip}]:${address.port}` : `${address.ip}:${address.port}`;
}

function canonical(address: ipaddr.IPv6): Ip {
  return address.isIPv4MappedAddress() ? address.toIPv4Address().toString() : address.toRFC5952String();
}
