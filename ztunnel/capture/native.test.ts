import { expect, test } from 'vitest';
import {
  check,
  NativeError,
  readSockaddr,
  SOCKADDR_SIZE,
  sys,
  withinNamespace,
  writeSockaddr,
} from './native.ts';

test.each([
  { ip: '10.244.1.2', port: 15008, size: SOCKADDR_SIZE[4], hex: '02003aa00af40102' },
  { ip: '255.255.255.255', port: 1, size: SOCKADDR_SIZE[4], hex: '02000001ffffffff' },
  { ip: 'fd00:10:244:1::2', port: 80, size: SOCKADDR_SIZE[6], hex: '0a00005000000000fd00001002440001' },
])('$ip port $port becomes a socket address and comes back', ({ ip, port, size, hex }) => {
  const buffer = Buffer.alloc(28, 0xff);
  expect(writeSockaddr(buffer, ip, port)).toBe(size);
  expect(buffer.toString('hex', 0, hex.length / 2)).toBe(hex);
  expect(readSockaddr(buffer)).toEqual({ ip, port });
});

test('a v4-mapped address reads as IPv4', () => {
  const buffer = Buffer.alloc(28);
  writeSockaddr(buffer, '::1', 8080);
  Buffer.from('00000000000000000000ffff0a000001', 'hex').copy(buffer, 8);
  expect(readSockaddr(buffer)).toEqual({ ip: '10.0.0.1', port: 8080 });
});

test.each(['10.0.0', '10.0.0.1.2'])('%s is not an address', (ip) => {
  expect(() => writeSockaddr(Buffer.alloc(28), ip, 1)).toThrow('not an IP address');
});

test('a failed call names itself and its errno', () => {
  const failed = (): number => check('close', sys.close(-1));
  expect(failed).toThrow(NativeError);
  expect(failed).toThrow('close: EBADF: bad file descriptor');
});

test('a namespace cannot be entered before the thread pool is warm', () => {
  expect(() => withinNamespace(0, () => 1)).toThrow('warmThreadPool');
});
