/** A TCP segment with a payload, as it crossed the wire. */
export interface Segment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Buffer;
}

const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const ETHERNET_BYTES = 14;
const LITTLE_ENDIAN_MAGIC = 0xa1b2c3d4;
const TCP = 6;

/**
 * Reads a capture of an Ethernet link as tcpdump writes it (pcap, https://www.tcpdump.org/manpages/pcap-savefile.5.html): its
 * TCP segments that carry something, in order.
 */
export function* readSegments(file: Buffer): Generator<Segment> {
  if (file.length < FILE_HEADER_BYTES || file.readUInt32LE(0) !== LITTLE_ENDIAN_MAGIC) {
    throw new TypeError('not a capture of tcpdump');
  }
  let offset = FILE_HEADER_BYTES;
  while (offset + RECORD_HEADER_BYTES <= file.length) {
    const length = file.readUInt32LE(offset + 8);
    offset += RECORD_HEADER_BYTES;
    const segment = readFrame(file.subarray(offset, offset + length));
    if (segment !== undefined && segment.payload.length > 0) yield segment;
    offset += length;
  }
}

/** Whether a segment begins with a ServerHello that chooses TLS 1.3 (RFC 8446, 4.1.3 and 4.2.1). */
export function choosesTls13({ payload }: Segment): boolean {
  const isServerHello = payload[0] === 0x16 && payload[5] === 0x02;
  return isServerHello && payload.includes(Buffer.from([0x00, 0x2b, 0x00, 0x02, 0x03, 0x04]));
}

function readFrame(frame: Buffer): Segment | undefined {
  if (frame.length < ETHERNET_BYTES) return undefined;
  const packet = frame.subarray(ETHERNET_BYTES);
  const etherType = frame.readUInt16BE(12);
  if (etherType === 0x0800 && packet.length >= 20 && packet[9] === TCP) {
    const headerBytes = ((packet[0] ?? 0) & 0x0f) * 4;
    return readTcp(packet.subarray(headerBytes, packet.readUInt16BE(2)));
  }
  if (etherType === 0x86dd && packet.length >= 40 && packet[6] === TCP) {
    return readTcp(packet.subarray(40, 40 + packet.readUInt16BE(4)));
  }
  return undefined;
}

function readTcp(segment: Buffer): Segment | undefined {
  if (segment.length < 20) return undefined;
  const headerBytes = ((segment[12] ?? 0) >> 4) * 4;
  return {
    sourcePort: segment.readUInt16BE(0),
    destinationPort: segment.readUInt16BE(2),
    payload: segment.subarray(headerBytes),
  };
}
