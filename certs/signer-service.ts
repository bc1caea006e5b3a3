import {
  type handleUnaryCall,
  type Metadata,
  type ServiceDefinition,
  type sendUnaryData,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import type { Authority, IssuedCertificate } from './authority.ts';
import { readSigningRequest, SigningRequestError } from './csr.ts';
import { formatIdentity, type Identity, IdentityError, parseIdentity } from './identity.ts';
import type { IssuedRecord } from './issued.ts';
import {
  createCertificateMethod,
  type ReceivedRequest,
  type SignerRequest,
  type SignerResponse,
} from './signer-protocol.ts';

/** Who calls, as its credential says. */
export interface Caller {
  /** The node that it is, or `waypoint/NAMESPACE/NAME`: where the certificate is, in the log of those issued. */
  readonly node: string;
  /** The identity that the caller itself has, named or not; absent for one that only asks for others. */
  readonly identity?: Identity;
}

export interface SignerServiceOptions {
  readonly authority: Authority;
  /** Who sent this metadata; undefined for nobody we know. */
  readonly authenticate: (metadata: Metadata) => Caller | undefined | Promise<Caller | undefined>;
  /** Whether the caller may hold this identity, which is not its own: some workload on its node runs under it. */
  readonly mayImpersonate: (caller: Caller, identity: Identity) => boolean;
  /** Whether an identity gets no certificates any more, whoever asks; default: none is. */
  readonly isRevoked?: (identity: Identity) => boolean;
  /** Told of every certificate before it is sent. */
  readonly record: (issued: IssuedRecord) => void;
  readonly logger: Logger;
  /** Life of a certificate when the caller names none. */
  readonly defaultTtlMs: number;
  /** Longest life that can be asked for; more is refused. */
  readonly maxTtlMs: number;
  /** Milliseconds since the epoch; default: the clock. */
  readonly now?: () => number;
}

/** `server.addService(service.definition, service.implementation)`. */
export interface SignerService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

type Grant =
  | {
      readonly kind: 'granted';
      readonly caller: Caller;
      readonly identity: Identity;
      readonly publicKeySpki: Uint8Array;
      readonly ttlMs: number;
    }
  | Refusal;

/** What the caller is told is `details`; `reason` is for the log. */
interface Refusal {
  readonly kind: 'refused';
  readonly code: status;
  readonly details: string;
  readonly reason: string;
}

/**
 * `istio.v1.auth.IstioCertificateService` in front of an authority. A caller gets a certificate for the identity that
 * it names in its metadata (and may hold), or else for its own; what its signing request says is ignored. One that is
 * not authenticated or not entitled is told so without a reason; the log has it.
 */
export function createSignerService(options: SignerServiceOptions): SignerService {
  const handle: handleUnaryCall<ReceivedRequest, SignerResponse> = (call, callback) => {
    answer(options, call.metadata, call.request, callback).catch((error: unknown) => {
      options.logger.error({ err: error }, 'certificate not issued');
      callback({ code: status.INTERNAL, details: 'the authority cannot sign at the moment' });
    });
  };
  return { definition: createCertificateMethod, implementation: { createCertificate: handle } };
}

async function answer(
  options: SignerServiceOptions,
  metadata: Metadata,
  received: ReceivedRequest,
  callback: sendUnaryData<SignerResponse>,
): Promise<void> {
  const { authority, logger } = options;
  const caller = await options.authenticate(metadata);
  const grant = decideGrant(options, caller, received);
  if (grant.kind === 'refused') {
    logger.warn(
      { node: caller?.node, code: status[grant.code], reason: grant.reason },
      'certificate refused',
    );
    return callback({ code: grant.code, details: grant.details });
  }
  const { identity, publicKeySpki, ttlMs } = grant;
  const issued = await authority.issue({ publicKeySpki, identity, ttlMs });
  recordIssued(options, grant, issued);
  callback(null, { certificateChain: [...issued.chainPem, issued.rootsPem] });
}

function decideGrant(
  options: SignerServiceOptions,
  caller: Caller | undefined,
  received: ReceivedRequest,
): Grant {
  if (caller === undefined) return unauthenticated('no valid credential');
  if (received.kind === 'refused') return invalid(received.reason);
  const { request } = received;
  const ttlMs = lifeOf(request, options);
  if (ttlMs === undefined) return invalid(`validity_duration is above ${options.maxTtlMs / 1000} seconds`);
  const identity = decideIdentity(options, caller, request.impersonated);
  if ('kind' in identity) return identity;
  if (options.isRevoked?.(identity) === true)
    return unauthenticated(`${formatIdentity(identity)} is revoked`);
  try {
    return { kind: 'granted', caller, identity, ttlMs, ...readSigningRequest(request.csrPem) };
  } catch (error) {
    if (error instanceof SigningRequestError) return invalid(`csr: ${error.message}`);
    throw error;
  }
}

function decideIdentity(
  { authority, mayImpersonate }: SignerServiceOptions,
  caller: Caller,
  impersonated: SignerRequest['impersonated'],
): Identity | Refusal {
  if (impersonated === undefined) {
    return caller.identity ?? unauthenticated('the caller has no identity of its own');
  }
  if (typeof impersonated === 'object') return invalid('ImpersonatedIdentity is not text');
  const identity = parseWanted(impersonated);
  if (identity === undefined)
    return unauthenticated(`not a SPIFFE ID: ${JSON.stringify(impersonated.slice(0, 200))}`);
  const name = formatIdentity(identity);
  if (identity.trustDomain !== authority.trustDomain) {
    return unauthenticated(`${name} is not of trust domain ${authority.trustDomain}`);
  }
  if (caller.identity !== undefined && formatIdentity(caller.identity) === name) return identity;
  if (!mayImpersonate(caller, identity)) {
    return unauthenticated(`no workload of ${caller.node} runs as ${name}`);
  }
  return identity;
}

function recordIssued(
  { record, logger, now = Date.now }: SignerServiceOptions,
  { caller, identity }: Grant & { kind: 'granted' },
  { serial, notBeforeMs, notAfterMs }: IssuedCertificate,
): void {
  const issued = { serial, identity: formatIdentity(identity), node: caller.node };
  record({ ...issued, issuedMs: now(), notBeforeMs, notAfterMs });
  logger.info({ ...issued, notAfter: new Date(notAfterMs).toISOString() }, 'certificate issued');
}

function lifeOf(request: SignerRequest, options: SignerServiceOptions): number | undefined {
  if (request.ttlSeconds <= 0n) return options.defaultTtlMs;
  const ttlMs = request.ttlSeconds * 1000n;
  return ttlMs > BigInt(options.maxTtlMs) ? undefined : Number(ttlMs);
}

function parseWanted(text: string): Identity | undefined {
  try {
    return parseIdentity(text);
  } catch (error) {
    if (error instanceof IdentityError) return undefined;
    throw error;
  }
}

function unauthenticated(reason: string): Refusal {
  return { kind: 'refused', code: status.UNAUTHENTICATED, details: 'request authenticate failure', reason };
}

function invalid(reason: string): Refusal {
  return { kind: 'refused', code: status.INVALID_ARGUMENT, details: reason, reason };
}
