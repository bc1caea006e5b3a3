/** Name and value, in order, as they go over the wire. */
export type Field = readonly [name: string, value: string];

/** A well-formed request. */
export interface Request {
  readonly method: string;
  readonly path: string;
  /** Host or `:authority`; the service's name when absent. */
  readonly host?: string;
  readonly headers: readonly Field[];
  readonly body?: string;
  /** The body in so many bytes of `x`, instead of `body`. */
  readonly bodyBytes?: number;
  readonly chunked?: boolean;
  /** After a chunked body, or in HTTP/2. */
  readonly trailers?: readonly Field[];
  readonly protocol: 'http1' | 'http2';
}

/** Bytes as they are, for what no client would send. `%CASE%` becomes the header line that names the case. */
export interface RawRequest {
  readonly raw: string;
  /** Sent once the head of the first answer is there: what goes over an upgraded connection. */
  readonly afterHead?: string;
  /** How many answers to read; 1 when absent. */
  readonly answers?: number;
  /** Ends the sending direction after the bytes. */
  readonly end?: boolean;
}

/** Frames of HTTP/2 whose header fields no client library would send; pseudo headers included. */
export interface RawStream {
  readonly fields: readonly Field[];
  readonly body?: string;
}

/** What an application saw of one attempt. */
export interface Seen {
  /** Name of the service it stands behind. */
  readonly app: string;
  /** Its address. */
  readonly endpoint: string;
  readonly httpVersion: string;
  readonly method: string;
  readonly path: string;
  readonly headers: readonly Field[];
  readonly body: string;
  readonly trailers: readonly Field[];
  readonly complete: boolean;
  /** Milliseconds since the request was sent. */
  readonly atMs: number;
}

/** One answer, and what it took. */
export interface Observation {
  /** 0: there was none. Of the last answer, where several were read. */
  readonly status: number;
  readonly headers: readonly Field[];
  readonly body: string;
  readonly trailers: readonly Field[];
  /** Statuses of answers before the answer, and of those before the last. */
  readonly earlier: readonly number[];
  /** `incomplete`: it ended before it was whole. `none`: the connection or stream ended without. `slow`: nothing more came. */
  readonly end: 'complete' | 'incomplete' | 'none' | 'slow';
  readonly ms: number;
  readonly seen: readonly Seen[];
}

/** What has to hold on both sides; what is absent may be anything. */
export interface Expectation {
  readonly status?: number;
  /** Service that answered; null: the proxy itself. */
  readonly upstream?: string | null;
  /** Attempts that reached an application, mirrors not counted. */
  readonly attempts?: number;
  /** How many hosts our attempts went to. Envoy draws one up to five times, and may always draw the same. */
  readonly hosts?: number;
  readonly body?: string;
  /** Of the answer; null: not there. Several of a name are joined by `, `. */
  readonly headers?: Readonly<Record<string, string | null>>;
  readonly trailers?: Readonly<Record<string, string | null>>;
  readonly end?: Observation['end'];
  readonly earlier?: readonly number[];
  /** What the last application got. */
  readonly seenMethod?: string;
  readonly seenPath?: string;
  readonly seenHeaders?: Readonly<Record<string, string | null>>;
  readonly seenBody?: string;
  /** Mirrors that got it, sorted. */
  readonly mirrors?: readonly string[];
  readonly atLeastMs?: number;
  readonly belowMs?: number;
}

/** What is compared between the two proxies. */
export type Aspect =
  | 'status'
  | 'headers'
  | 'body'
  | 'trailers'
  | 'end'
  | 'earlier'
  | 'upstream'
  | 'attempts'
  | 'mirrors'
  | 'seen request'
  | 'mirrored requests';

/** A difference on purpose. Each side is held to what is written here, so that it is noticed when they agree again. */
export interface Difference {
  readonly because: string;
  /** Not compared; what each side does is in `envoy` and `ours`. */
  readonly aspects: readonly Aspect[];
  readonly envoy: Expectation;
  readonly ours: Expectation;
}

/** One request, sent to both. */
export interface Case {
  readonly name: string;
  /** Service of the namespace `interop`, `:port` when it is not 80. */
  readonly to: string;
  /** Namespace of the caller; `elsewhere` when absent. */
  readonly from?: string;
  readonly send: Request | RawRequest | RawStream;
  /** What applications do, attempt by attempt: see stage/script.ts. */
  readonly script?: string;
  readonly expect: Expectation;
  readonly differs?: Difference;
  /** What depends on which of several hosts comes first: not compared. */
  readonly chance?: readonly Aspect[];
  /** How long to wait for the answer; 5 s when absent. */
  readonly patienceMs?: number;
}

type RequestOptions = Partial<Omit<Request, 'method' | 'path' | 'headers'>> & {
  readonly headers?: Readonly<Record<string, string>> | readonly Field[];
};

/** A request of HTTP/1.1, unless the options say otherwise. */
export function request(method: string, path: string, options: RequestOptions = {}): Request {
  const { headers = [], ...rest } = options;
  const fields = Array.isArray(headers) ? (headers as readonly Field[]) : Object.entries(headers);
  return { protocol: 'http1', ...rest, method, path, headers: fields };
}

/** A GET. */
export function get(path: string, headers: RequestOptions['headers'] = []): Request {
  return request('GET', path, { headers });
}

/** A unary call of gRPC with an empty message. */
export function grpc(path: string, headers: Readonly<Record<string, string>> = {}): Request {
  return request('POST', path, {
    protocol: 'http2',
    headers: { 'content-type': 'application/grpc', te: 'trailers', ...headers },
    body: '\0\0\0\0\0',
  });
}

/** Lines of a request, ended as HTTP/1.1 wants, with the case's header before the empty line. */
export function raw(lines: readonly string[], body = '', more: Omit<RawRequest, 'raw'> = {}): RawRequest {
  return { raw: `${lines.join('\r\n')}\r\n%CASE%\r\n\r\n${body}`, ...more };
}
