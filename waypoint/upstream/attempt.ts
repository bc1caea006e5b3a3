import type { ByteTunnel, HeaderList } from '../exchange.ts';

/** A request as it goes upstream, written once for each try. */
export interface UpstreamRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  /** Host, `:authority`. */
  readonly authority: string;
  readonly scheme: 'http' | 'https';
  /** Without host and headers of the connection; `te: trailers` may be there. */
  readonly headers: HeaderList;
  /** Whether `write` and `end` follow. Without a `content-length` the body is of unknown length. */
  readonly hasBody: boolean;
  /** Change to this protocol, if the other end does: `websocket`. */
  readonly upgrade?: string;
  /** Not on a connection that has been idle. */
  readonly isFreshOnly?: boolean;
}

/** Why a try came to nothing. */
export interface AttemptFailure {
  readonly kind: /** No connection, in time or at all. Nothing was sent. */
    | 'connect'
    | 'connect-timeout'
    /** The destination's ztunnel does not let the caller in. Nothing was sent, and another try would fare no better. */
    | 'denied'
    /** The peer says that it has not looked at the request: REFUSED_STREAM. */
    | 'refused'
    /** The peer reset this request. */
    | 'reset'
    /** The connection ended before the answer did. */
    | 'closed'
    /** The same, on a connection that had been used before, and without a byte of an answer: it was being closed when the request went out. */
    | 'stale'
    /** What came is not HTTP, or too much of it. */
    | 'protocol'
    /** No more connections, or requests waiting for one. */
    | 'overflow';
  /** For people. */
  readonly reason: string;
}

/** What happens to a try. After `onEnd`, `onUpgrade` or `onFailure` nothing does. */
export interface AttemptHandlers {
  /** 100 to 199, but for 101. */
  readonly onInform: (status: number, headers: HeaderList) => void;
  readonly onHead: (status: number, headers: HeaderList) => void;
  /** The bytes are the receiver's to keep. */
  readonly onData: (chunk: Buffer) => void;
  readonly onEnd: (trailers: HeaderList) => void;
  /** Instead of `onHead`: the bytes of the new protocol. */
  readonly onUpgrade: (status: number, headers: HeaderList, tunnel: ByteTunnel) => void;
  /** Also after `onHead`: the answer is not complete. */
  readonly onFailure: (failure: AttemptFailure) => void;
  /** More of the body may be written. */
  readonly onDrain: () => void;
}

/** One try. */
export interface Attempt {
  /** Of the body. Taken at any time, also before there is a connection. False: wait for `onDrain`. The bytes are kept. */
  readonly write: (chunk: Buffer) => boolean;
  /** The body is complete. */
  readonly end: (trailers: HeaderList) => void;
  /** Gives it up; no event comes after. Harmless when it is over. */
  readonly abort: () => void;
  /** Bytes of memory in which its bodies wait, either way. */
  readonly held: () => number;
  /** Stops and goes on reading the answer. */
  readonly pause: () => void;
  readonly resume: () => void;
}
