import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';

/** Where a request goes in. */
export type Door =
  | { readonly kind: 'plain'; readonly ip: string; readonly port: number }
  /** Through a tunnel of HBONE, as a caller of that namespace. */
  | { readonly kind: 'hbone'; readonly ip: string; readonly authority: string; readonly namespace: string };

/** What callers show, by namespace: PEM. */
export interface Credentials {
  readonly roots: string;
  readonly callers: Readonly<Record<string, { readonly key: string; readonly certificate: string }>>;
}

const HBONE_PORT = 15008;
const PATIENCE_MS = 10_000;

/** Opens connections; each is its own, tunnels share a session for each caller. */
export function createDoors(credentials: Credentials): (door: Door) => Promise<Duplex> {
  const sessions = new Map<string, Promise<http2.ClientHttp2Session>>();
  const sessionOf = (ip: string, namespace: string): Promise<http2.ClientHttp2Session> => {
    const key = `${ip} ${namespace}`;
    const known = sessions.get(key);
    if (known !== undefined) return known;
    const opened = openSession(credentials, ip, namespace, () => sessions.delete(key));
    sessions.set(key, opened);
    opened.catch(() => sessions.delete(key));
    return opened;
  };
  return async (door) => {
    if (door.kind === 'plain') return await dial(door.ip, door.port);
    return await openTunnel(await sessionOf(door.ip, door.namespace), door.authority);
  };
}

async function dial(host: string, port: number): Promise<Duplex> {
  const socket = net.connect({ host, port, noDelay: true, allowHalfOpen: true });
  await once(socket, 'connect', { signal: AbortSignal.timeout(PATIENCE_MS) });
  return socket;
}

async function openSession(
  { roots, callers }: Credentials,
  host: string,
  namespace: string,
  onClose: () => void,
): Promise<http2.ClientHttp2Session> {
  const caller = callers[namespace];
  if (caller === undefined) throw new Error(`no caller of ${namespace}`);
  const socket = tls.connect({
    host,
    port: HBONE_PORT,
    key: caller.key,
    cert: caller.certificate,
    ca: roots,
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
  await once(socket, 'secureConnect', { signal: AbortSignal.timeout(PATIENCE_MS) });
  const session = http2.connect('https://hbone', {
    createConnection: () => socket,
    settings: { initialWindowSize: 1 << 20 },
  });
  session.on('error', onClose);
  session.on('close', onClose);
  session.on('goaway', onClose);
  return session;
}

async function openTunnel(session: http2.ClientHttp2Session, authority: string): Promise<Duplex> {
  const stream = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false });
  const [headers] = (await once(stream, 'response', { signal: AbortSignal.timeout(PATIENCE_MS) })) as [
    http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader,
  ];
  if (headers[':status'] !== 200) {
    stream.destroy();
    throw new Error(`CONNECT ${authority} was answered ${headers[':status']}`);
  }
  return stream;
}
