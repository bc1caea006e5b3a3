/** What `client.ts` is to send. */
export interface Call {
  /** `http://echo/v1`; for gRPC `echo:7070`. */
  readonly url: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** How often; default: once. */
  readonly count?: number;
  /** How many of them are on their way at a time; default: one after the other. */
  readonly atOnce?: number;
  /** `echo.Echo/Unary`: a gRPC call. */
  readonly grpc?: string;
}

/** What came back. Status 0: nothing, and why is the body. */
export interface Reply {
  readonly status: number;
  readonly grpcStatus?: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
  readonly ms: number;
}

/** What `echo.ts` saw of an HTTP request. */
export interface Seen {
  readonly name: string;
  readonly port: number;
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly httpVersion: string;
  readonly body: string;
}

/** Reads an answer of `echo.ts`. @throws Error when it is none */
export function seenBy(reply: Reply | undefined): Seen {
  if (reply?.status !== 200) throw new Error(`no answer of echo: ${JSON.stringify(reply)}`);
  return JSON.parse(reply.body) as Seen;
}

/** What `rate.ts` has seen. */
export interface RateReport {
  readonly sent: number;
  /** Answered 200, in full. */
  readonly ok: number;
  readonly failed: number;
  /** Answers by status. */
  readonly statuses: Readonly<Record<string, number>>;
  /** Answers 200 by the server that gave them. */
  readonly answeredBy: Readonly<Record<string, number>>;
  /** The first failures, with their time. */
  readonly errors: readonly string[];
  readonly longestMs: number;
}
