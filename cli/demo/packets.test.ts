import { expect, test } from 'vitest';
import { choosesTls13, readSegments } from './packets.ts';

/** A capture of one frame: Ethernet, IPv4, TCP from 15008 to 40000 with that payload, and two bytes of padding. */
function capture(payload: Buffer): Buffer {
  const tcp = Buffer.alloc(20);
  tcp.writeUInt16BE(15008, 0);
  tcp.writeUInt16BE(40000, 2);
  tcp[12] = 5 << 4;
  const ip = Buffer.alloc(20);
  ip[0] = 0x45;
  ip.writeUInt16BE(40 + payload.length, 2);
  ip[9] = 6;
  const ethernet = Buffer.alloc(14);
  ethernet.writeUInt16BE(0x0800, 12);
  const frame = Buffer.concat([ethernet, ip, tcp, payload, Buffer.alloc(2)]);
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  const record = Buffer.alloc(16);
  record.writeUInt32LE(frame.length, 8);
  return Buffer.concat([header, record, frame]);
}

test('a segment is read without the padding of its frame', () => {
  const [segment, ...rest] = readSegments(capture(Buffer.from('hello')));
  expect(rest).toEqual([]);
  expect(segment).toMatchObject({ sourcePort: 15008, destinationPort: 40000 });
  expect(segment?.payload.toString()).toBe('hello');
});

test('segments that carry nothing are left out', () => {
  expect([...readSegments(capture(Buffer.alloc(0)))]).toEqual([]);
});

test('a ServerHello that chooses TLS 1.3 is told from others', () => {
  const hello = (version: number): Buffer =>
    Buffer.from([
      0x16,
      0x03,
      0x03,
      0x00,
      0x40,
      0x02,
      0x00,
      0x00,
      0x3c,
      0x00,
      0x2b,
      0x00,
      0x02,
      0x03,
      version,
    ]);
  const segment = (payload: Buffer) => ({ sourcePort: 15008, destinationPort: 1, payload });
  expect(choosesTls13(segment(hello(0x04)))).toBe(true);
  expect(choosesTls13(segment(hello(0x03)))).toBe(false);
  expect(choosesTls13(segment(Buffer.from('GET / HTTP/1.1\r\n')))).toBe(false);
});

test('something else than a capture is refused', () => {
  expect(() => [...readSegments(Buffer.from('not one'))]).toThrow(/not a capture/);
});
