import type { HostPort } from '#api/address.ts';
import type { Identity } from '#certs/identity.ts';
import type { Baggage } from '#ztunnel/hbone/headers.ts';
import type { ServerTunnel } from './hand-over/server-tunnel.ts';
import type { Frontend } from './model.ts';

/** Header fields, name and value alternating; names lower case, in the order in which they came, one entry a line. */
export type HeaderList = readonly string[];

/** Who called, for all requests of one tunnel. */
export interface Caller {
  /** What its certificate says. */
  readonly identity: Identity;
  /** Of the TCP connection to the waypoint, which is the caller's own address. */
  readonly address: HostPort;
  /** What its ztunnel says of it: for logs and metrics only, as anybody can say so. */
  readonly baggage: Baggage;
  /** Of its ztunnel's CONNECT, for connections that carry no `traceparent` themselves. */
  readonly traceparent: string | undefined;
  /** Of its ztunnel's CONNECT. */
  readonly connectionId: string | undefined;
}

/** One tunnel's frontend and caller. */
export interface Downstream {
  readonly caller: Caller;
  /** The one in force when the tunnel was opened; the newest of its name is looked up for each request. */
  readonly frontend: Frontend;
  /** Of the CONNECT: what the caller dialled. */
  readonly authority: HostPort;
  /** For a waypoint that is being restarted: no new requests, if it can be helped. */
  readonly isDraining: () => boolean;
  /** The caller's end, where it can be handed over. */
  readonly tunnel?: ServerTunnel | undefined;
}

/** A request as it came, well formed: `downstream/` has refused what is not. */
export interface RequestHead {
  readonly method: string;
  /** Path and query as they were sent; `*` for OPTIONS. An absolute form has been taken apart. */
  readonly target: string;
  /** Host or `:authority`, as it was sent. */
  readonly authority: string;
  /** Without `host`, pseudo headers, and headers of the connection (RFC 9110, 7.6.1); `te: trailers` stays. */
  readonly headers: HeaderList;
  readonly protocol: 'HTTP/1.0' | 'HTTP/1.1' | 'HTTP/2';
  /** Protocol that the client wants to change to: `websocket`. */
  readonly upgrade?: string;
}

/** Gets a body, as fast as it is taken. */
export interface BodySink {
  /** The bytes are the sink's to keep. */
  readonly onData: (chunk: Buffer) => void;
  readonly onEnd: (trailers: HeaderList) => void;
  /** It will not be complete: the peer is gone, or has reset. */
  readonly onAbort: () => void;
}

/** A body that is coming in. Nothing is read before `start`, which is called once. */
export interface BodySource {
  readonly start: (sink: BodySink) => void;
  readonly pause: () => void;
  readonly resume: () => void;
}

/** What the waypoint itself had against a request after it was handed over: the client broke the protocol, or was too slow. */
export interface ExchangeFailure {
  /** What it answered, if there was no answer yet: 400, 408. */
  readonly status: number;
  readonly flag: 'DPE' | 'SI';
  readonly details: string;
}

/** One request and its answer, whatever the version of HTTP. Made by `downstream/`, answered by `serve-request.ts`. */
export interface Exchange {
  readonly downstream: Downstream;
  readonly head: RequestHead;
  /** Undefined: the request has none. */
  readonly body: BodySource | undefined;
  /** An answer before the answer (103, 100). */
  readonly inform: (status: number, headers: HeaderList) => void;
  /** Starts the answer; once. */
  readonly respond: (status: number, headers: HeaderList) => void;
  /** False: wait for `onDrain`. */
  readonly write: (chunk: Buffer) => boolean;
  readonly end: (trailers?: HeaderList) => void;
  /** Resets: the client sees that the answer is not complete. Harmless when it is. */
  readonly abort: () => void;
  /**
   * After a 101 (or, in HTTP/2, a 200 to an extended CONNECT): the bytes of the tunnel, both ways. Once; instead of `write`, `end`.
   */
  readonly upgrade: (status: number, headers: HeaderList) => ByteTunnel;
  /** Set by whoever serves it. `onClose` is called once: done, or given up by the client (`complete` false). */
  onDrain: (() => void) | undefined;
  onClose: ((complete: boolean) => void) | undefined;
  /** Bytes of memory in which its bodies wait, either way; those of its connection apart. */
  readonly held: () => number;
  /** Bytes of bodies so far. */
  readonly bytesReceived: () => number;
  readonly bytesSent: () => number;
  /** Set before `onClose(false)` and a body's `onAbort` where it was not simply the client that left. */
  readonly failure?: ExchangeFailure | undefined;
}

/** One end of an upgraded connection. */
export interface ByteTunnel {
  /** Bytes of memory in which data waits, either way; those of a connection of HTTP that it was made of apart. */
  readonly held: () => number;
  readonly start: (events: {
    readonly onData: (chunk: Buffer) => void;
    readonly onEnd: () => void;
    readonly onAbort: (reason: string) => void;
    readonly onDrain: () => void;
  }) => void;
  readonly write: (chunk: Buffer) => boolean;
  readonly end: () => void;
  readonly abort: () => void;
  readonly pause: () => void;
  readonly resume: () => void;
}
