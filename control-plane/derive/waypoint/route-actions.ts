import { packAny } from '#api/envoy/any.ts';
import {
  type RetryPolicySchema,
  RouteAction_ClusterNotFoundResponseCode,
  type RouteActionSchema,
} from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import { PreviousHostsPredicateSchema } from '#api/envoy/gen/envoy/extensions/retry/host/previous_hosts/v3/previous_hosts_pb.ts';
import type { Retry } from '../../source/route-objects.ts';
import { duration, type Fields, typed } from './messages.ts';

/** What a forwarding route does, as it is written into it. */
export type RouteActionFields = Fields<typeof RouteActionSchema>;

/** How often and how long. */
export interface Patience {
  /** Of the whole request, in ms; 0: without end. */
  readonly requestMs: number;
  /** Of one try, in ms; 0: without end. */
  readonly tryMs: number;
  readonly retry?: Retry;
}

const PREVIOUS_HOSTS = 'envoy.retry_host_predicates.previous_hosts';
const HOST_ATTEMPTS = 5n;
/** Nothing was sent: safe for every request. */
const SAFE = 'connect-failure,refused-stream';

/** The fields of every forwarding route. */
export function patienceFields({ requestMs, tryMs, retry }: Patience): RouteActionFields {
  return {
    timeout: duration(requestMs),
    clusterNotFoundResponseCode: RouteAction_ClusterNotFoundResponseCode.INTERNAL_SERVER_ERROR,
    retryPolicy: retryPolicy(tryMs, retry),
  };
}

function retryPolicy(tryMs: number, retry: Retry | undefined): Fields<typeof RetryPolicySchema> {
  const shared: Fields<typeof RetryPolicySchema> = {
    retryHostPredicate: [typed(PREVIOUS_HOSTS, packAny(PreviousHostsPredicateSchema))],
    hostSelectionRetryMaxAttempts: HOST_ATTEMPTS,
    ...(tryMs > 0 && { perTryTimeout: duration(tryMs) }),
  };
  if (retry === undefined) return { ...shared, retryOn: SAFE, numRetries: 1 };
  const { codes, attempts, backoffMs = 0 } = retry;
  return {
    ...shared,
    retryOn: `${SAFE},reset${codes.length > 0 ? ',retriable-status-codes' : ''}`,
    numRetries: attempts,
    retriableStatusCodes: [...codes],
    ...(backoffMs > 0 && { retryBackOff: { baseInterval: duration(backoffMs) } }),
  };
}
