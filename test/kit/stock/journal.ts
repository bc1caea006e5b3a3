import type { IncomingHttpHeaders, Settings } from 'node:http2';
import type { RecordedRequest } from './recording.ts';

/** Something that the played ztunnel said, heard or did, in the order in which it happened. */
export type Entry =
  | { readonly event: 'zds'; readonly direction: '<-' | '->'; readonly hex: string; readonly fds: number }
  | { readonly event: 'ads stream'; readonly metadata: Readonly<Record<string, string>> }
  | { readonly event: 'ads request'; readonly request: RecordedRequest }
  | {
      readonly event: 'ads response';
      readonly type: string;
      readonly nonce: string;
      readonly resources: readonly { readonly name: string; readonly version: string }[];
      readonly removed: readonly string[];
      /** Why resources were rejected, `name: reason`. */
      readonly errors: readonly string[];
    }
  | { readonly event: 'ads end'; readonly code: number; readonly message: string }
  | {
      readonly event: 'certificate';
      readonly identity: string;
      readonly error: string | null;
      /** Serial numbers of the roots that came with it, lower-case hexadecimal. */
      readonly roots: readonly string[];
    }
  | {
      readonly event: 'tls';
      /** Which end of the handshake was played here. */
      readonly end: 'client' | 'server';
      readonly protocol: string | null;
      readonly cipher: string;
      /** Key exchange; known to the client's end only. */
      readonly group: string | null;
      readonly alpn: string | null;
      readonly sni: boolean;
      readonly san: string;
      readonly peer: string;
    }
  | { readonly event: 'tls failed'; readonly end: 'client' | 'server'; readonly error: string }
  /** The other end's. */
  | { readonly event: 'settings'; readonly end: 'client' | 'server'; readonly settings: Settings }
  | { readonly event: 'ping answered'; readonly end: 'client' | 'server' }
  /** A request that came in, or that went out. */
  | {
      readonly event: 'request';
      readonly end: 'client' | 'server';
      readonly headers: IncomingHttpHeaders;
      readonly peer: string;
    }
  | {
      readonly event: 'response';
      readonly end: 'client' | 'server';
      readonly status: number;
      readonly headers: IncomingHttpHeaders;
    }
  | { readonly event: 'stream closed'; readonly end: 'client' | 'server'; readonly code: number }
  /** A connection of a pod that was taken at one of the ports. */
  | {
      readonly event: 'taken';
      readonly at: 'outbound' | 'inbound' | 'hbone';
      readonly pod: string;
      readonly peer: string;
      readonly original: string;
    }
  | { readonly event: 'dropped'; readonly pod: string; readonly reason: string }
  | { readonly event: 'ready' };

/** Takes an entry; where it goes is the caller's business. */
export type Journal = (entry: Entry) => void;
