import { expect, test } from 'vitest';
import { proxyHeader } from './proxy-protocol.ts';

test.each([
  { what: 'IPv4', from: '10.0.0.1', to: '10.0.0.2', family: 0x11, addresses: '0a0000010a000002' },
  {
    what: 'IPv6',
    from: 'fd00::1',
    to: 'fd00::2',
    family: 0x21,
    addresses: 'fd000000000000000000000000000001fd000000000000000000000000000002',
  },
  {
    what: 'IPv4 for an address of IPv6, as both',
    from: '10.0.0.1',
    to: 'fd00::2',
    family: 0x21,
    addresses: '00000000000000000000ffff0a000001fd000000000000000000000000000002',
  },
])('addresses are of one family: $what', ({ from, to, family, addresses }) => {
  const header = proxyHeader({ ip: from, port: 1 }, { ip: to, port: 2 }, 'spiffe://a/ns/b/sa/c');
  expect(header[13]).toBe(family);
  expect(header.readUInt16BE(14)).toBe(header.length - 16);
  const size = addresses.length / 2;
  expect(header.subarray(16, 16 + size).toString('hex')).toBe(addresses);
  expect(header.readUInt32BE(16 + size)).toBe(0x00010002);
});
