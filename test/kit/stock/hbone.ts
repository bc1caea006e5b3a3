import http2, {
  type ClientHttp2Session,
  type Http2Session,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type Settings,
} from 'node:http2';
import type net from 'node:net';
import tls, { type PeerCertificate, type TLSSocket } from 'node:tls';
import type { Svid } from './ca.ts';
import type { Journal } from './journal.ts';

/** HBONE on node:http2 with the numbers that were recorded: both ends of a tunnel. */

const CONNECTION_WINDOW = 16_777_216;
/** What the stock implementation puts into its PINGs. */
const PING = Buffer.from('3b7cdb7a0b8716b4', 'hex');

const COMMON_SETTINGS: Settings = { initialWindowSize: 4_194_304, maxFrameSize: 1_048_576 };

/** As recorded of a stock client and of a stock server; what is not here is HTTP/2's default. */
export const CLIENT_SETTINGS: Settings = { ...COMMON_SETTINGS, enablePush: false, maxHeaderListSize: 16_384 };
export const SERVER_SETTINGS: Settings = {
  ...COMMON_SETTINGS,
  maxConcurrentStreams: 200,
  maxHeaderListSize: 65_536,
};

/** What both ends share of a handshake: TLS 1.3, the two AES-GCM suites, `h2`, no resumption. */
function tlsOptions({ key, chain, roots }: Svid): tls.SecureContextOptions & { ALPNProtocols: string[] } {
  return {
    key,
    cert: chain,
    ca: roots,
    minVersion: 'TLSv1.3',
    ciphers: 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256',
    ALPNProtocols: ['h2'],
  };
}

/** Serves one connection that a stock ztunnel would have accepted on 15008. */
export function serveHbone(
  socket: net.Socket,
  options: {
    readonly svid: Svid;
    readonly peer: string;
    readonly journal: Journal;
    readonly onSession: (session: ServerHttp2Session) => void;
    readonly onStream: (
      stream: ServerHttp2Stream,
      headers: http2.IncomingHttpHeaders,
      identity: string,
    ) => void;
  },
): void {
  const { svid, peer, journal, onSession, onStream } = options;
  const server = http2.createSecureServer({
    ...tlsOptions(svid),
    requestCert: true,
    rejectUnauthorized: true,
    settings: SERVER_SETTINGS,
  });
  const failed = (error: Error): void => {
    journal({ event: 'tls failed', end: 'server', error: error.message });
    socket.destroy();
  };
  let identity = '';
  server.on('tlsClientError', failed);
  server.on('secureConnection', (secure: TLSSocket) => {
    try {
      identity = checkPeer(secure.getPeerCertificate(), [trustDomainOf(svid.identity)]);
      reportTls(journal, 'server', secure, peer);
    } catch (error) {
      failed(error as Error);
    }
  });
  server.on('session', (session) => {
    follow(session, 'server', journal);
    onSession(session);
  });
  server.on('stream', (stream, headers) => {
    journal({ event: 'request', end: 'server', headers: { ...headers }, peer });
    stream.on('close', () => journal({ event: 'stream closed', end: 'server', code: stream.rstCode ?? 0 }));
    stream.on('error', () => undefined); // Its close says so.
    onStream(stream as ServerHttp2Stream, headers, identity);
  });
  server.emit('connection', socket);
}

/** Opens a session as a stock client does: no SNI, no host name checked; the server has to be one of those expected. */
export async function openHbone(
  socket: net.Socket,
  options: {
    readonly svid: Svid;
    readonly peer: string;
    readonly expected: readonly string[];
    readonly journal: Journal;
  },
): Promise<ClientHttp2Session> {
  const { svid, peer, expected, journal } = options;
  const secure = tls.connect({ ...tlsOptions(svid), socket, checkServerIdentity: () => undefined });
  await new Promise<void>((resolve, reject) => {
    secure.once('secureConnect', resolve);
    secure.once('error', reject);
    secure.once('close', () => reject(new Error('closed in the handshake')));
  }).catch((error: Error) => {
    journal({ event: 'tls failed', end: 'client', error: error.message });
    throw error;
  });
  try {
    checkPeer(secure.getPeerCertificate(), expected);
  } catch (error) {
    secure.destroy();
    throw error;
  }
  reportTls(journal, 'client', secure, peer);
  const session = http2.connect('https://hbone', {
    createConnection: () => secure,
    settings: CLIENT_SETTINGS,
  });
  follow(session, 'client', journal);
  return session;
}

function follow(session: Http2Session, end: 'client' | 'server', journal: Journal): void {
  session.on('error', () => undefined); // The streams of it end with it.
  session.once('remoteSettings', (settings) => {
    journal({ event: 'settings', end, settings });
    session.setLocalWindowSize(CONNECTION_WINDOW);
    session.ping(PING, (error, _, payload) => {
      if (error === null && PING.equals(payload)) journal({ event: 'ping answered', end });
    });
  });
}

/** The peer's identity: its first SPIFFE ID. @throws Error when it is not expected: neither it nor its trust domain */
function checkPeer(certificate: PeerCertificate, expected: readonly string[]): string {
  const names = (certificate.subjectaltname ?? '').split(', ').map((name) => name.replace(/^URI:/, ''));
  const identity = names.find((name) => /^spiffe:\/\/[^/]+\/ns\/[^/]+\/sa\/[^/]+$/.test(name));
  if (identity === undefined) throw new Error(`the peer has no SPIFFE ID: ${certificate.subjectaltname}`);
  if (![identity, trustDomainOf(identity)].some((one) => expected.includes(one)))
    throw new Error(`the peer is ${identity}, expected was ${expected.join(' or ')}`);
  return identity;
}

function trustDomainOf(identity: string): string {
  return identity.split('/')[2] ?? '';
}

function reportTls(journal: Journal, end: 'client' | 'server', secure: TLSSocket, peer: string): void {
  const key = secure.getEphemeralKeyInfo();
  journal({
    event: 'tls',
    end,
    protocol: secure.getProtocol(),
    cipher: secure.getCipher().name,
    group: key !== null && 'name' in key ? String(key.name) : null,
    alpn: secure.alpnProtocol || null,
    sni: 'servername' in secure && Boolean(secure.servername),
    san: secure.getPeerCertificate().subjectaltname ?? '',
    peer,
  });
}
