import { randomBytes } from 'node:crypto';
import type { HeaderList, RequestHead } from '../exchange.ts';
import type { HeaderMutations } from '../model.ts';
import { firstValue } from '../route/headers.ts';

/** Whether a client asks for a WebSocket (or the like) in HTTP/2: RFC 8441. From here on it is an upgrade of HTTP/1.1. */
export function isExtendedConnect({ method, upgrade }: RequestHead): boolean {
  return upgrade !== undefined && method === 'CONNECT';
}

/** The key that HTTP/1.1 wants and HTTP/2 does not have: RFC 6455, 4.1, and RFC 8441, 5. */
export function keyOfWebSocket({ upgrade, headers }: RequestHead): HeaderList {
  if (upgrade !== 'websocket' || firstValue(headers, 'sec-websocket-key') !== undefined) return [];
  return ['sec-websocket-key', randomBytes(16).toString('base64')];
}

/** What HTTP/1.1 answers to the key. */
export const NO_ACCEPT: HeaderMutations = { set: [], add: [], remove: ['sec-websocket-accept'] };
