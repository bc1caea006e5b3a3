import { once } from 'node:events';
import http2, { type ClientHttp2Session, type IncomingHttpHeaders } from 'node:http2';
import tls from 'node:tls';

/** How a call ended. */
export interface GrpcStatus {
  /** gRPC's number: 0 is OK, 16 UNAUTHENTICATED. */
  readonly code: number;
  readonly message: string;
}

/** One call: messages both ways, then a status. */
export interface GrpcCall {
  readonly send: (message: Uint8Array) => void;
  /** Ends the requests. */
  readonly end: () => void;
  readonly cancel: () => void;
  /** Resolves once the call is over and every message has been handed over. */
  readonly status: Promise<GrpcStatus>;
}

/** gRPC over node:http2, which shares nothing with grpc-js on the other end. */
export interface GrpcChannel {
  readonly call: (
    path: string,
    metadata: Readonly<Record<string, string>>,
    onMessage: (message: Buffer) => void,
  ) => GrpcCall;
  readonly close: () => void;
}

/** Connects as a stock ztunnel does: TLS 1.3 only, ALPN `h2`, no client certificate, the address checked against the SAN. */
export async function connectGrpc(url: string, rootsPem: string): Promise<GrpcChannel> {
  const { hostname, port } = new URL(url);
  const socket = tls.connect({
    host: hostname,
    port: Number(port),
    ca: rootsPem,
    minVersion: 'TLSv1.3',
    ALPNProtocols: ['h2'],
  });
  await once(socket, 'secureConnect');
  if (socket.alpnProtocol !== 'h2') throw new Error(`the control plane chose ALPN ${socket.alpnProtocol}`);
  const session = http2.connect(url, { createConnection: () => socket });
  session.on('error', () => undefined); // Every call of it ends with a status that says so.
  return {
    call: (path, metadata, onMessage) => startCall(session, path, metadata, onMessage),
    close: () => session.destroy(),
  };
}

function startCall(
  session: ClientHttp2Session,
  path: string,
  metadata: Readonly<Record<string, string>>,
  onMessage: (message: Buffer) => void,
): GrpcCall {
  const stream = session.request(
    { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...metadata },
    { endStream: false },
  );
  const { promise, resolve } = Promise.withResolvers<GrpcStatus>();
  let last: IncomingHttpHeaders = {};
  let pending = Buffer.alloc(0);
  stream.on('response', (headers) => {
    last = headers;
  });
  stream.on('trailers', (headers) => {
    last = headers;
  });
  stream.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 5 && pending.length >= 5 + pending.readUInt32BE(1)) {
      const end = 5 + pending.readUInt32BE(1);
      onMessage(pending.subarray(5, end));
      pending = pending.subarray(end);
    }
  });
  stream.on('error', (error) => resolve({ code: 14, message: String(error) }));
  stream.on('end', () => resolve(statusOf(last))); // Before its close, which waits for our own end.
  stream.on('close', () => resolve(statusOf(last)));
  return {
    send: (message) => stream.write(frame(message)),
    end: () => stream.end(),
    cancel: () => stream.close(http2.constants.NGHTTP2_CANCEL),
    status: promise,
  };
}

function frame(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function statusOf(headers: IncomingHttpHeaders): GrpcStatus {
  const code = headers['grpc-status'];
  if (code === undefined)
    return { code: 14, message: `no status; HTTP says ${headers[':status'] ?? 'nothing'}` };
  return { code: Number(code), message: decodeURIComponent(String(headers['grpc-message'] ?? '')) };
}
