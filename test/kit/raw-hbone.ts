import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { HostPort } from '#api/address.ts';
import { clientTlsOptions } from '#certs/peer.ts';
import type { Svid } from '#certs/svid.ts';
import { nameOfCode } from '#ztunnel/hbone/error.ts';
import { FRAME, PREFACE, settingsFrame } from '#ztunnel/hbone/frames.ts';
import { type RawFrame, readFrames } from './raw-frames.ts';

/** What a client says first. */
export const HELLO: Buffer = Buffer.concat([PREFACE, settingsFrame([])]);

/** A client that has proven who it is, and sends frames by hand. */
export interface RawClient {
  readonly socket: TLSSocket;
  readonly frames: readonly RawFrame[];
  readonly isClosed: () => boolean;
  /** The error of the GOAWAY that came; undefined: none has. */
  readonly goaway: () => string | undefined;
}

/** Connects to an HBONE server as `default/cart`'s peer. Whoever made it destroys the socket. */
export async function openRawClient(at: HostPort, svid: Svid, localAddress?: string): Promise<RawClient> {
  const expected = [{ trustDomain: 'cluster.local', namespace: 'default', serviceAccount: 'cart' }];
  const near = connectTcp({ host: at.ip, port: at.port, ...(localAddress && { localAddress }) });
  near.on('error', () => undefined);
  const socket = connectTls({ socket: near, ...clientTlsOptions(svid, expected) });
  await once(socket, 'secureConnect');
  socket.on('error', () => undefined);
  let isClosed = false;
  socket.on('close', () => {
    isClosed = true;
  });
  const frames = readFrames(socket);
  return {
    socket,
    frames,
    isClosed: () => isClosed,
    goaway: () => {
      const last = frames.findLast(({ type }) => type === FRAME.GOAWAY);
      return last && nameOfCode(last.payload.readUInt32BE(4));
    },
  };
}
