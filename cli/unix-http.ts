import http from 'node:http';
import { CliError } from './cli-error.ts';

/** One call over a Unix socket. */
export interface SocketCall {
  readonly socketPath: string;
  readonly method?: 'GET' | 'POST' | 'DELETE';
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Default 60 s: some calls wait for something to end. */
  readonly timeoutMs?: number;
}

/** What came back: a status, and JSON (undefined when the body is empty or is not JSON). */
export interface SocketAnswer {
  readonly status: number;
  readonly body: unknown;
}

const DEFAULT_TIMEOUT_MS = 60_000;

/**
 * Calls a server on a Unix socket.
 * @throws Error of the socket: ENOENT and ECONNREFUSED when nobody listens; CliError when it does not answer in time.
 */
export function callSocket(call: SocketCall): Promise<SocketAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<SocketAnswer>();
  const payload = call.body === undefined ? undefined : JSON.stringify(call.body);
  const request = http.request(
    {
      socketPath: call.socketPath,
      method: call.method ?? 'GET',
      path: call.path,
      timeout: call.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      agent: false,
      headers: payload === undefined ? {} : { 'content-type': 'application/json' },
    },
    (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          body: parseOrUndefined(Buffer.concat(chunks).toString()),
        }),
      );
    },
  );
  request.on('timeout', () => {
    const seconds = (call.timeoutMs ?? DEFAULT_TIMEOUT_MS) / 1000;
    request.destroy(
      new CliError(`no answer on ${call.socketPath} within ${seconds} s; see the logs beside it`),
    );
  });
  request.on('error', reject);
  request.end(payload);
  return promise;
}

/** Whether an error means that nobody listens on a socket. */
export function isNobodyThere(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return code === 'ENOENT' || code === 'ECONNREFUSED';
}

/** Whether an error means that who listened on a socket went away before it had answered. */
export function isCutOff(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return code === 'ECONNRESET' || code === 'EPIPE';
}

/** Whether an error means that the caller may not use a socket. */
export function isForbidden(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return code === 'EACCES' || code === 'EPERM';
}

/** The message of an answer that refuses: `{"error": "…"}`. */
export function errorOf(answer: SocketAnswer): string {
  const { body } = answer;
  const said = typeof body === 'object' && body !== null && 'error' in body ? body.error : undefined;
  return typeof said === 'string' ? said : `status ${answer.status}`;
}

/**
 * The body of an answer that does not refuse.
 * @throws CliError with what it refused for.
 */
export function bodyOf(answer: SocketAnswer): unknown {
  if (answer.status < 400) return answer.body;
  throw new CliError(errorOf(answer));
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
