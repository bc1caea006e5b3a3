import type { TLSSocket } from 'node:tls';
import { formatIdentity } from './identity.ts';
import { readCertificateNames, readSerial } from './leaf.ts';
import type { Svid } from './svid.ts';

/** Who may not be a peer any more, whatever certificate is shown. */
export interface RevocationList {
  /** SPIFFE IDs. */
  readonly identities: readonly string[];
  /** Serial numbers of leaves, lower-case hexadecimal without leading zeros. */
  readonly serials: readonly string[];
}

/** A session that ends when one of its two certificates is revoked. */
export interface WatchedSession {
  /** Its own end's. */
  readonly svid: Svid;
  /** After the handshake. */
  readonly socket: TLSSocket;
  readonly close: (reason: string) => void;
}

// One list for a thread, as OpenSSL has one store of revoked certificates for a process: no handshake can be without it.
let identities: ReadonlySet<string> = new Set();
let serials: ReadonlySet<string> = new Set();
const sessions = new Set<WatchedSession>();

/** Takes the list that holds from now on in this thread, and ends sessions that it hits. */
export function setRevoked(list: RevocationList): void {
  identities = new Set(list.identities);
  serials = new Set(list.serials);
  if (identities.size === 0 && serials.size === 0) return;
  for (const session of [...sessions]) {
    const reason = reasonAgainst(session);
    if (reason !== undefined) session.close(reason);
  }
}

/** Why that certificate is revoked; undefined if it is not. */
export function revocationOf(identity: string, serial: string): string | undefined {
  if (identities.has(identity)) return `${identity} is revoked`;
  return serials.has(serial) ? `the certificate ${serial} of ${identity} is revoked` : undefined;
}

/** Whether nobody may be that any more, so that no certificate for it is to be waited for. */
export function isIdentityRevoked(identity: string): boolean {
  return identities.has(identity);
}

/** Whether an SVID of one's own is revoked. */
export function isRevoked({ identity, serial }: Svid): boolean {
  return revocationOf(formatIdentity(identity), serial) !== undefined;
}

/** Has a session end when the list hits it, until its socket closes. */
export function watchSession(session: WatchedSession): void {
  sessions.add(session);
  session.socket.once('close', () => sessions.delete(session));
  const reason = reasonAgainst(session);
  if (reason !== undefined) session.close(reason);
}

function reasonAgainst({ svid, socket }: WatchedSession): string | undefined {
  const own = revocationOf(formatIdentity(svid.identity), svid.serial);
  if (own !== undefined) return own;
  const peer = socket.getPeerX509Certificate()?.raw;
  if (peer === undefined) return undefined;
  // Read before, in the handshake, so it can be read.
  const [uri = ''] = readCertificateNames(peer).uris;
  return revocationOf(uri, readSerial(peer));
}
