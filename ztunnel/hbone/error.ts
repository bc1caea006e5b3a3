/** HTTP/2 error codes: RFC 9113, section 7. */
export const ERROR_CODES: {
  readonly NO_ERROR: 0;
  readonly PROTOCOL_ERROR: 1;
  readonly INTERNAL_ERROR: 2;
  readonly FLOW_CONTROL_ERROR: 3;
  readonly SETTINGS_TIMEOUT: 4;
  readonly STREAM_CLOSED: 5;
  readonly FRAME_SIZE_ERROR: 6;
  readonly REFUSED_STREAM: 7;
  readonly CANCEL: 8;
  readonly COMPRESSION_ERROR: 9;
  readonly CONNECT_ERROR: 10;
  readonly ENHANCE_YOUR_CALM: 11;
} = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  SETTINGS_TIMEOUT: 4,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  CONNECT_ERROR: 10,
  ENHANCE_YOUR_CALM: 11,
};

/** Name of an HTTP/2 error code. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** `CANCEL` for 8; `error 99` for a number without a name. */
export function nameOfCode(code: number): string {
  return Object.entries(ERROR_CODES).find(([, number]) => number === code)?.[0] ?? `error ${code}`;
}

/** What a peer did against RFC 9113. It ends the connection with that code. */
export class Http2Error extends Error {
  override readonly name = 'Http2Error';
  readonly code: ErrorCode;

  constructor(message: string, code: ErrorCode) {
    super(message);
    this.code = code;
  }
}

/** Why there is no tunnel. */
export type HboneErrorCode =
  /** TCP to the hop failed or took too long. */
  | 'CONNECT_FAILED'
  | 'CONNECT_TIMEOUT'
  /** The TLS handshake failed, or the peer is not who it has to be. */
  | 'TLS_FAILED'
  /** No SVID for the source. */
  | 'NO_IDENTITY'
  /** The session ended, or refused the stream, before there was an answer. */
  | 'SESSION_LOST'
  | 'STREAM_RESET'
  /** An answer other than 200. */
  | 'BAD_STATUS';

/** A tunnel that did not come about. The caller's application has seen no byte of it. */
export class HboneError extends Error {
  override readonly name = 'HboneError';
  readonly code: HboneErrorCode;
  /** The stream was not processed by the peer: it is safe to try again. */
  readonly isRetryable: boolean;

  constructor(
    message: string,
    options: { readonly code: HboneErrorCode; readonly isRetryable?: boolean; readonly cause?: unknown },
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = options.code;
    this.isRetryable = options.isRetryable ?? false;
  }
}
