import { expect, test } from 'vitest';
import { handshakeText } from './handshake-text.ts';

test.each([
  {
    what: 'a reason of OpenSSL is said without its functions and files',
    error: Object.assign(
      new Error(
        'C0F1:error:0A000086:SSL routines:tls_process_client_certificate:certificate verify failed:x.c:3:',
      ),
      { code: 'ERR_SSL_CERTIFICATE_VERIFY_FAILED', reason: 'certificate verify failed' },
    ),
    text: 'certificate verify failed',
  },
  {
    what: 'who goes away is said to have closed',
    error: Object.assign(new Error('Client network socket disconnected'), { code: 'ECONNRESET' }),
    text: 'the peer closed the connection',
  },
  {
    what: 'any other error is said as it is',
    error: new Error('the client does not speak HTTP/2'),
    text: 'the client does not speak HTTP/2',
  },
  { what: 'what is no error is said, too', error: 'no handshake', text: 'no handshake' },
])('$what', ({ error, text }) => {
  expect(handshakeText(error)).toBe(text);
});
