/**
 * Why a TLS handshake failed, for people: OpenSSL's own reason, without the names of its functions and files. What both ends may
 * see of each other's refusals is an alert, or a connection that just ends.
 */
export function handshakeText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if ('code' in error && error.code === 'ECONNRESET') return 'the peer closed the connection';
  return 'reason' in error && typeof error.reason === 'string' ? error.reason : error.message;
}
