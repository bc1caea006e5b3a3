import { type HostPort, type Ip, isIp, parseIp } from '#api/address.ts';

/** Target of a CONNECT: an address, or a service's hostname in lower case. */
export type Authority =
  | { readonly kind: 'address'; readonly address: HostPort }
  | { readonly kind: 'hostname'; readonly hostname: string; readonly port: number };

const HOST_AND_PORT = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]/@\s]{1,253})):(\d{1,5})$/;
const HOSTNAME = /^[a-z0-9_*]([a-z0-9_.-]*[a-z0-9_])?$/;

/** Parses `10.0.0.1:80`, `[fd00::1]:80`, `name.example:80`; undefined for anything else, also without a port or with 0. */
export function parseAuthority(text: string): Authority | undefined {
  const [, bracketed, host = bracketed, digits] = HOST_AND_PORT.exec(text) ?? [];
  const port = Number(digits);
  if (host === undefined || port < 1 || port > 65_535) return undefined;
  if (isIp(host)) return { kind: 'address', address: { ip: parseIp(host), port } };
  const hostname = host.toLowerCase();
  // All digits and dots, but no address: nobody's name either.
  if (bracketed !== undefined || !HOSTNAME.test(hostname) || /^[\d.]+$/.test(hostname)) return undefined;
  return { kind: 'hostname', hostname, port };
}

/** A socket's address as canonical text: an IPv4 address that a dual-stack listener shows as IPv6 is IPv4. */
export function canonicalIp(text: string): Ip {
  return text.startsWith('::ffff:') && text.includes('.') ? text.slice('::ffff:'.length) : text;
}
