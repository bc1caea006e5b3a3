import { type ClientHttp2Session, type ClientHttp2Stream, connect } from 'node:http2';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { parseControlPlaneAddress } from '#api/channel.ts';
import { DELTA_METHOD, decodeResponse, encodeRequest } from '#api/discovery.ts';
import type {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponse,
} from '#api/gen/envoy/service/discovery/v3/discovery_pb.ts';

/** One gRPC call by hand, so that it can be wrong in any way. */
export interface RawCall {
  readonly stream: ClientHttp2Stream;
  /** What `grpc-status` and `grpc-message` say at the end; -1 for a call that was cut. */
  readonly ended: Promise<{ readonly code: number; readonly details: string }>;
  /** A message of these bytes. */
  readonly sendBytes: (message: Uint8Array) => void;
}

/** A call of delta ADS. */
export interface RawDiscovery extends RawCall {
  readonly responses: readonly DeltaDiscoveryResponse[];
  readonly send: (request: MessageInitShape<typeof DeltaDiscoveryRequestSchema>) => void;
}

/** One connection to a control plane. */
export interface RawChannel extends Disposable {
  readonly session: ClientHttp2Session;
  readonly call: (path: string, headers?: Readonly<Record<string, string>>) => RawCall;
  readonly discovery: (token: string) => RawDiscovery;
}

/** Where a server is, and what its certificate is checked with. */
export interface RawTarget {
  /** `https://HOST:PORT` */
  readonly address: string;
  readonly rootsPem: string;
}

/** Connects; the server's certificate is verified against the roots, its name is not. */
export function openRawChannel({ address, rootsPem }: RawTarget): RawChannel {
  const session = connect(address, {
    ca: rootsPem,
    checkServerIdentity: () => undefined,
    maxSessionMemory: 1000,
  });
  session.on('error', () => session.destroy());
  const call = (path: string, headers: Readonly<Record<string, string>> = {}): RawCall =>
    rawCall(session, path, headers);
  return {
    session,
    call,
    discovery: (token) => {
      const made = call(DELTA_METHOD, { authorization: `Bearer ${token}` });
      const responses: DeltaDiscoveryResponse[] = [];
      readMessages(made.stream, (bytes) => responses.push(decodeResponse(bytes)));
      return { ...made, responses, send: (request) => made.sendBytes(encodeRequest(request)) };
    },
    [Symbol.dispose]: () => session.destroy(),
  };
}

/** TLS as far as `h2`, for frames by hand. */
export function openRawTls({ address, rootsPem }: RawTarget): TLSSocket {
  const { host, port } = parseControlPlaneAddress(address);
  const socket = connectTls({
    host,
    port,
    ca: rootsPem,
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
  socket.on('error', () => socket.destroy());
  return socket;
}

function rawCall(
  session: ClientHttp2Session,
  path: string,
  headers: Readonly<Record<string, string>>,
): RawCall {
  const stream = session.request(
    { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...headers },
    { endStream: false },
  );
  const ended = Promise.withResolvers<{ code: number; details: string }>();
  const take = (fields: Readonly<Record<string, unknown>>): void => {
    if (fields['grpc-status'] === undefined) return;
    const details = decodeURIComponent(String(fields['grpc-message'] ?? ''));
    ended.resolve({ code: Number(fields['grpc-status']), details });
  };
  stream.on('response', take);
  stream.on('trailers', take);
  stream.on('error', () => undefined);
  stream.on('close', () => ended.resolve({ code: -1, details: '' }));
  return { stream, ended: ended.promise, sendBytes: (message) => void stream.write(framed(message)) };
}

/** A message as gRPC has it on the wire, not compressed. */
export function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function readMessages(stream: ClientHttp2Stream, onMessage: (bytes: Buffer) => void): void {
  let chunks: Buffer[] = [];
  let length = 0;
  let wanted = 5;
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
    // A long message comes in thousands of chunks, which are put together once.
    if (length < wanted) return;
    let rest = Buffer.concat(chunks);
    for (wanted = lengthOf(rest); rest.length >= wanted; wanted = lengthOf(rest)) {
      onMessage(rest.subarray(5, wanted));
      rest = rest.subarray(wanted);
    }
    chunks = [rest];
    length = rest.length;
  });
}

/** Of the message that begins there, with its head; of its head, as long as that is not whole. */
function lengthOf(bytes: Buffer): number {
  return bytes.length < 5 ? 5 : 5 + bytes.readUInt32BE(1);
}
