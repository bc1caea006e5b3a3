import { duplexPair } from 'node:stream';
import { connect, createServer } from 'node:tls';
import { formatIdentity, identitiesEqual } from './identity.ts';
import { checkClientSocket, clientTlsOptions, PeerError, tlsOptions } from './peer.ts';
import { isRevoked } from './revoked.ts';
import type { Svid } from './svid.ts';

/** What two SVIDs have shown each other. */
export type Handshake = { readonly kind: 'accepted' } | { readonly kind: 'refused'; readonly reason: string };

/** For a handshake without a network. */
const TIMEOUT_MS = 10_000;

const ACCEPTED: Handshake = { kind: 'accepted' };
/** Pairs that have, for as long as the SVIDs live. */
const accepted = new WeakMap<Svid, WeakSet<Svid>>();
const underWay = new WeakMap<Svid, WeakMap<Svid, Promise<Handshake>>>();

/** Whether {@link shakeHands} has accepted this very pair before. */
export function haveShakenHands(client: Svid, server: Svid): boolean {
  if (isRevoked(client) || isRevoked(server)) return false;
  return accepted.get(client)?.has(server) === true;
}

/**
 * Has two SVIDs of this process prove themselves to each other: one mutual TLS handshake in memory, with the options and the
 * checks of one between nodes, so that whatever would be refused there is refused here. What was accepted is remembered for the
 * pair; whether the SVIDs are in their time still is the caller's to look at. Never rejects.
 */
export function shakeHands(client: Svid, server: Svid): Promise<Handshake> {
  if (haveShakenHands(client, server)) return Promise.resolve(ACCEPTED);
  const ofClient = underWay.get(client) ?? new WeakMap<Svid, Promise<Handshake>>();
  underWay.set(client, ofClient);
  const known = ofClient.get(server);
  if (known !== undefined) return known;
  const handshake = perform(client, server).then(
    () => {
      const ofOne = accepted.get(client) ?? new WeakSet<Svid>();
      accepted.set(client, ofOne.add(server));
      return ACCEPTED;
    },
    (error: unknown): Handshake => ({
      kind: 'refused',
      reason: error instanceof Error ? error.message : String(error),
    }),
  );
  ofClient.set(server, handshake);
  return handshake.finally(() => ofClient.delete(server));
}

/** Resolves when both ends have accepted the other. */
async function perform(client: Svid, server: Svid): Promise<void> {
  const [near, far] = duplexPair();
  const done = Promise.withResolvers<void>();
  const fail = (error: unknown): void => done.reject(error);
  // What a stream says after the end of the handshake is nobody's concern.
  near.on('error', fail);
  far.on('error', fail);
  const listener = createServer({ ...tlsOptions(server), handshakeTimeout: TIMEOUT_MS });
  listener.on('tlsClientError', fail);
  listener.on('secureConnection', (socket) => {
    socket.on('error', fail);
    const check = checkClientSocket(socket, server.identity.trustDomain);
    if (check.kind === 'refused') fail(new PeerError(check));
    else if (!identitiesEqual(check.identity, client.identity))
      fail(new Error(`the client's certificate is ${formatIdentity(check.identity)}`));
    // With TLS 1.3 a client is done before the server has looked at it: the server has the last word.
    else done.resolve();
  });
  listener.emit('connection', far);
  const socket = connect({ socket: near, ...clientTlsOptions(client, [server.identity]) });
  const secured = Promise.withResolvers<void>();
  socket.once('secureConnect', secured.resolve);
  socket.on('error', (error) => {
    fail(error);
    secured.reject(error);
  });
  try {
    await Promise.all([done.promise, secured.promise]);
  } finally {
    socket.destroy();
    near.destroy();
    far.destroy();
  }
}
