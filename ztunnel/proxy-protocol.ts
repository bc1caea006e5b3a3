import { familyOf, type HostPort, type Ip, ipToBytes } from '#api/address.ts';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const VERSION_2_PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;
/** Type of the TLV with the caller's SPIFFE ID, as a stock ztunnel writes it. */
const TLV_SOURCE_IDENTITY = 0xd0;

/**
 * A PROXY protocol header, version 2, for an application that is itself a proxy: who called, from where, and for what. Fact
 * sheet ambient-wire.md, 1.7.
 */
export function proxyHeader(source: HostPort, destination: HostPort, identity: string): Buffer {
  // Both of one family, as the header has it: a pod with both may be called over one for an address of the other.
  const isIpv4 = familyOf(source.ip) === 4 && familyOf(destination.ip) === 4;
  const from = isIpv4 ? ipToBytes(source.ip) : ipv6Bytes(source.ip);
  const to = isIpv4 ? ipToBytes(destination.ip) : ipv6Bytes(destination.ip);
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(source.port, 0);
  ports.writeUInt16BE(destination.port, 2);
  const text = Buffer.from(identity, 'latin1');
  const tlv = Buffer.alloc(3);
  tlv[0] = TLV_SOURCE_IDENTITY;
  tlv.writeUInt16BE(text.length, 1);
  const body = Buffer.concat([from, to, ports, tlv, text]);
  const head = Buffer.alloc(4);
  head[0] = VERSION_2_PROXY;
  head[1] = isIpv4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6;
  head.writeUInt16BE(body.length, 2);
  return Buffer.concat([SIGNATURE, head, body]);
}

/** An IPv4 address as IPv6 shows it: `::ffff:10.0.0.1`. */
function ipv6Bytes(ip: Ip): Uint8Array {
  const bytes = ipToBytes(ip);
  return bytes.length === 16 ? bytes : Buffer.concat([Buffer.alloc(10), Buffer.from('ffff', 'hex'), bytes]);
}
