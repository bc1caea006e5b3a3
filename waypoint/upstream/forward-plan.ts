import type { HostPort } from '#api/address.ts';
import type { HeaderList } from '../exchange.ts';
import type { Cluster, Endpoint, RetryPolicy } from '../model.ts';
import type { UpstreamRequest } from './attempt.ts';
import type { LocalReply } from './local-reply.ts';

/** What a fault does to one try. */
export interface TryFault {
  readonly delayMs: number;
  /** Instead of sending it: the application seems to answer so. */
  readonly abort: LocalReply | undefined;
  /** KiB a second of the answer's body. */
  readonly responseKbps: number | undefined;
  /** The try is over. */
  readonly release: () => void;
}

/** What is to be done with a request whose way has been decided. */
export interface ForwardPlan {
  readonly cluster: Cluster;
  /** As it is now: endpoints come and go while a request waits to be tried again. */
  readonly newest: () => Cluster;
  readonly retry: RetryPolicy;
  /** Of all tries together, from the start of the request, in ms; 0: none. */
  readonly timeoutMs: number;
  /** For ring-hash. */
  readonly hashKey: string | undefined;
  /** Where a session that lasts belongs: the first try goes there. */
  readonly sticksTo: Endpoint | undefined;
  /** As the given try, from 1, sends it. */
  readonly requestOf: (attempt: number) => UpstreamRequest;
  /** For endpoints without a port. */
  readonly authority: HostPort;
  readonly faultOfTry: () => TryFault | undefined;
  /** Headers of the application's answer, as they go out. */
  readonly answer: (status: number, headers: HeaderList, endpoint: Endpoint) => HeaderList;
  /** Sends an answer of the waypoint's own. */
  readonly reply: (reply: LocalReply) => void;
  /** Makes the answer slow, for a fault: KiB a second. */
  readonly responseKbps: number | undefined;
}
