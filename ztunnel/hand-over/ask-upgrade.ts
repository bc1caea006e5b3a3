import { once } from 'node:events';
import http, { type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/** Where another process is asked to speak a protocol of its own on the connection. */
export interface UpgradeRequest {
  /** Its order or admin socket. */
  readonly socketPath: string;
  readonly path: string;
  readonly protocol: string;
  /** How long its answer may take. */
  readonly answerMs: number;
}

/**
 * Asks with `POST` and `Upgrade` (RFC 9110, 7.8).
 * @returns the connection, which is the caller's; nothing that came with the answer is lost
 * @throws Error when nobody answers in time, or something else is answered
 */
export async function askUpgrade({ socketPath, path, protocol, answerMs }: UpgradeRequest): Promise<Socket> {
  const request = http.request({
    ...{ socketPath, path, method: 'POST', agent: false },
    headers: { connection: 'Upgrade', upgrade: protocol },
    signal: AbortSignal.timeout(answerMs),
  });
  request.on('error', () => undefined);
  request.end();
  const answer = await Promise.race([once(request, 'upgrade'), once(request, 'response')]);
  const [response, socket, head] = answer as [IncomingMessage, Socket?, Buffer?];
  if (socket === undefined) {
    response.resume();
    throw new Error(`it answered ${response.statusCode}`);
  }
  if (head !== undefined && head.length > 0) socket.unshift(head);
  return socket;
}
