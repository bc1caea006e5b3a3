import type { Exchange, HeaderList } from '../exchange.ts';
import { grpcStatusOf } from '../route/grpc.ts';
import { firstValue } from '../route/headers.ts';

/** An answer of the waypoint itself. */
export interface LocalReply {
  readonly status: number;
  readonly body: string;
  readonly headers?: HeaderList;
  /** For gRPC, instead of what follows from the status. */
  readonly grpcStatus?: number;
}

/** HTTP status of an answer with a status of gRPC, for those who do not speak that: by Envoy's table. */
export function httpStatusOf(grpcStatus: number): number {
  return HTTP_STATUS[grpcStatus] ?? 500;
}

/** From OK (0) to UNAUTHENTICATED (16). */
const HTTP_STATUS: readonly number[] = [
  200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
];

/**
 * What goes out for a reply: to gRPC an answer of trailers only, with HTTP status 200; to others text. A type that a route set stands
 * where there is a body, a status of gRPC always, as in Envoy.
 * @returns status, headers (a length included) and body
 */
export function formatReply(
  reply: LocalReply,
  forGrpc: boolean,
): { readonly status: number; readonly headers: HeaderList; readonly body: Buffer } {
  const extra = reply.headers ?? [];
  if (forGrpc) {
    const code = firstValue(extra, 'grpc-status') ?? String(reply.grpcStatus ?? grpcStatusOf(reply.status));
    const message = reply.body === '' ? [] : ['grpc-message', percentEncode(reply.body)];
    const own = ['content-type', 'application/grpc', 'grpc-status', code, ...message];
    return { status: 200, headers: [...own, ...without(extra, own)], body: Buffer.alloc(0) };
  }
  const body = Buffer.from(reply.body);
  const hasNoLength = reply.status === 204 || reply.status === 304;
  const length = hasNoLength ? [] : ['content-length', String(body.length)];
  const type = ['content-type', firstValue(extra, 'content-type') ?? 'text/plain'];
  const headers = [...length, ...(body.length > 0 ? type : []), ...without(extra, type)];
  return { status: reply.status, headers, body };
}

/** Without what the reply says itself; a length is always its own. */
function without(extra: HeaderList, own: HeaderList): HeaderList {
  return extra.filter((_text, index) => {
    const name = extra[index - (index % 2)] ?? '';
    return name !== 'content-length' && !own.some((each, at) => at % 2 === 0 && each === name);
  });
}

/** Sends a reply, whole. */
export function sendReply(exchange: Exchange, reply: ReturnType<typeof formatReply>): void {
  exchange.respond(reply.status, reply.headers);
  if (reply.body.length > 0 && exchange.head.method !== 'HEAD') exchange.write(reply.body);
  exchange.end();
}

/** As gRPC writes messages: printable ASCII without `%` as it is. */
function percentEncode(text: string): string {
  return text.replace(/[^\x20-\x24\x26-\x7e]/gu, (character) =>
    [...Buffer.from(character)]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}
