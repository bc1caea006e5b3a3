import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MethodDefinition } from '@grpc/grpc-js';
import { IstioCertificateRequestSchema, IstioCertificateResponseSchema } from './gen/istio/v1/auth/ca_pb.ts';

/** A node's wish for a certificate, as `istio.v1.auth.IstioCertificateService` carries it. */
export interface SignerRequest {
  /** PKCS#10 PEM. */
  readonly csrPem: string;
  /** Zero or less: the authority's default. */
  readonly ttlSeconds: bigint;
  /** SPIFFE ID for which the caller asks in another's place; absent: its own. `malformed`: given, but not as text. */
  readonly impersonated?: string | { readonly malformed: true };
}

/** What arrived in a request's place; a decoder that threw would be reported as our own fault. */
export type ReceivedRequest =
  | { readonly kind: 'request'; readonly request: SignerRequest }
  | { readonly kind: 'refused'; readonly reason: string };

/** What the authority answers: PEM of the leaf, of each intermediate, and last the bundle of roots. */
export interface SignerResponse {
  readonly certificateChain: readonly string[];
}

/** Largest message that is looked at, either way, in bytes: a request is about 600, a chain some thousands. */
const MAX_SIGNER_REQUEST_BYTES = 65_536;
export const MAX_SIGNER_RESPONSE_BYTES = 1_048_576;

const IMPERSONATED = 'ImpersonatedIdentity';
const PATH = '/istio.v1.auth.IstioCertificateService/CreateCertificate';

/** The service's only method, for either end. */
export const createCertificateMethod: {
  readonly createCertificate: MethodDefinition<ReceivedRequest, SignerResponse>;
} = {
  createCertificate: {
    path: PATH,
    requestStream: false,
    responseStream: false,
    requestSerialize: encodeSignerRequest,
    requestDeserialize: decodeSignerRequest,
    responseSerialize: encodeSignerResponse,
    responseDeserialize: decodeSignerResponse,
  },
};

function encodeSignerRequest(received: ReceivedRequest): Buffer {
  if (received.kind === 'refused') throw new TypeError('only a request can be sent');
  const { csrPem, ttlSeconds, impersonated } = received.request;
  const message = create(IstioCertificateRequestSchema, {
    csr: csrPem,
    validityDuration: ttlSeconds,
    ...(typeof impersonated === 'string' && { metadata: { [IMPERSONATED]: impersonated } }),
  });
  return Buffer.from(toBinary(IstioCertificateRequestSchema, message));
}

function decodeSignerRequest(bytes: Uint8Array): ReceivedRequest {
  if (bytes.length > MAX_SIGNER_REQUEST_BYTES) return { kind: 'refused', reason: 'larger than 64 KiB' };
  try {
    const message = fromBinary(IstioCertificateRequestSchema, bytes);
    const metadata = new Map(Object.entries(message.metadata ?? {}));
    const impersonated = metadata.get(IMPERSONATED);
    const common = { csrPem: message.csr, ttlSeconds: message.validityDuration };
    if (!metadata.has(IMPERSONATED)) return { kind: 'request', request: common };
    const name = typeof impersonated === 'string' ? impersonated : ({ malformed: true } as const);
    return { kind: 'request', request: { ...common, impersonated: name } };
  } catch {
    return { kind: 'refused', reason: 'not an IstioCertificateRequest' };
  }
}

function encodeSignerResponse(response: SignerResponse): Buffer {
  const message = create(IstioCertificateResponseSchema, { certChain: [...response.certificateChain] });
  return Buffer.from(toBinary(IstioCertificateResponseSchema, message));
}

function decodeSignerResponse(bytes: Uint8Array): SignerResponse {
  return { certificateChain: fromBinary(IstioCertificateResponseSchema, bytes).certChain };
}
