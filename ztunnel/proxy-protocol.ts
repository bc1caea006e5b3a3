import { type HostPort, ipToBytes } from '#api/address.ts';

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
  const from = ipToBytes(source.ip);
  const to = ipToBytes(destination.ip);
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
  head[1] = from.length === 4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6;
  head.writeUInt16BE(body.length, 2);
  return Buffer.concat([SIGNATURE, head, body]);
}
