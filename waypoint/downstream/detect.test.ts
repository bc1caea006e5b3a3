import { expect, test } from 'vitest';
import { detectProtocol } from './detect.ts';

test.each([
  { bytes: 'GET / HTTP/1.1\r\n', is: 'http1' },
  { bytes: 'M-SEARCH * HTTP/1.1\r\n', is: 'http1' },
  { bytes: 'GET ', is: 'http1' },
  { bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', is: 'http2' },
  { bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore', is: 'http2' },
  { bytes: 'PRI * HTTP/1.1\r\n', is: 'http1' },
  { bytes: '\x16\x03\x01', is: 'tcp' },
  { bytes: ' GET', is: 'tcp' },
  { bytes: 'SSH-2.0-OpenSSH\r\n', is: 'tcp' },
  { bytes: '*1\r\n$4\r\nPING\r\n', is: 'tcp' },
  { bytes: 'abcdefghijklmnopqrstuvwxyzabc', is: 'tcp' },
  { bytes: 'a\nb ', is: 'tcp' },
])('$bytes is $is', ({ bytes, is }) => {
  expect(detectProtocol(Buffer.from(bytes, 'latin1'))).toBe(is);
});

test.each(['', 'G', 'GET', 'PRI', 'PRI * HTTP/2.0\r\n', 'abcdefghijklmnopqrst'])(
  'of %j nobody can tell yet',
  (bytes) => {
    expect(detectProtocol(Buffer.from(bytes))).toBeUndefined();
  },
);
