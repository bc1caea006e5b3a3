import { createPrivateKey, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { checkServerIdentity, createSecureContext } from 'node:tls';
import { Client, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { createSigningRequest, type SigningRequest } from './csr.ts';
import { formatIdentity, type Identity } from './identity.ts';
import { checkServer } from './peer.ts';
import { splitPem } from './pem.ts';
import {
  createCertificateMethod,
  MAX_SIGNER_RESPONSE_BYTES,
  type SignerResponse,
} from './signer-protocol.ts';
import type { Svid } from './svid.ts';

export interface SignerClientOptions {
  /** `https://host:port` of the authority; its certificate must name the host. */
  readonly address: string;
  /** PEM of the roots that the authority's server is verified against; read again for every request. */
  readonly rootsPem: () => string;
  /** Sent with every request: `authorization`, `clusterid`; asked for each time, so that a token may change. */
  readonly headers: () => Promise<Readonly<Record<string, string>>>;
  /** Another DNS name that the server's certificate may have instead. */
  readonly alternativeName?: string;
  /** Milliseconds until a request is given up. Default 10 000. */
  readonly timeoutMs?: number;
}

/** Asks the certificate authority for SVIDs; whoever made it closes it. */
export interface SignerClient {
  /**
   * Makes a new key and has it certified for the identity.
   * @throws SignerError
   */
  requestSvid(identity: Identity, ttlSeconds: number, signal?: AbortSignal): Promise<Svid>;
  close(): void;
}

type SignerErrorCode = 'REFUSED' | 'UNREACHABLE' | 'BAD_RESPONSE' | 'ABORTED';

/** Thrown when no SVID came; `REFUSED`: the authority said no. */
export class SignerError extends Error {
  override readonly name = 'SignerError';
  readonly code: SignerErrorCode;

  constructor(message: string, options: { readonly code: SignerErrorCode; readonly cause?: unknown }) {
    super(message, { cause: options.cause });
    this.code = options.code;
  }
}

const DEFAULT_TIMEOUT_MS = 10_000;
/** Sent as server name where the address is an IP, for which TLS has none. */
const NAME_FOR_ADDRESSES = 'istiod.istio-system.svc';

/**
 * A client of `istio.v1.auth.IstioCertificateService`.
 * @throws SignerError when the address is not an https URL.
 */
export function createSignerClient(options: SignerClientOptions): SignerClient {
  const url = parseAddress(options.address);
  let channel: { readonly rootsPem: string; readonly client: Client } | undefined;
  const connect = (): Client => {
    const rootsPem = options.rootsPem();
    if (channel?.rootsPem !== rootsPem) {
      channel?.client.close();
      channel = { rootsPem, client: openChannel(url, rootsPem, options.alternativeName) };
    }
    return channel.client;
  };
  const disconnect = (): void => {
    channel?.client.close();
    channel = undefined;
  };
  return {
    async requestSvid(identity, ttlSeconds, signal) {
      const request = await createSigningRequest(identity);
      const headers = new Metadata();
      for (const [name, value] of Object.entries(await options.headers())) headers.set(name, value);
      const received = {
        kind: 'request',
        request: {
          csrPem: request.csrPem,
          ttlSeconds: BigInt(Math.floor(ttlSeconds)),
          impersonated: formatIdentity(identity),
        },
      } as const;
      const deadline = Date.now() + (options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
      const client = connect();
      try {
        const response = await call(client, { received, headers, deadline, signal });
        return readResponse(response, identity, request);
      } catch (error) {
        // The connection may be dead without a word; the next request gets another.
        if (error instanceof SignerError && error.code === 'UNREACHABLE' && channel?.client === client)
          disconnect();
        throw error;
      }
    },
    close: disconnect,
  };
}

/**
 * Turns an authority's answer into an SVID, if it is one: at least a leaf and roots, the leaf for our key and naming
 * exactly the identity that was asked for, signed by what comes next.
 * @throws SignerError
 */
export function readResponse(response: SignerResponse, identity: Identity, request: SigningRequest): Svid {
  const chain = response.certificateChain.slice(0, -1).flatMap(splitPem);
  const roots = splitPem(response.certificateChain.at(-1) ?? '');
  const [leafPem] = chain;
  if (leafPem === undefined || roots.length === 0) throw badResponse('it lacks a certificate or the roots');
  try {
    const leaf = new X509Certificate(leafPem);
    const issuers = [...chain.slice(1), ...roots].map((pem) => new X509Certificate(pem));
    const check = checkServer(leaf.raw, [identity]);
    if (check.kind === 'refused') throw badResponse(check.detail);
    if (!leaf.checkPrivateKey(createPrivateKey(request.privateKeyPem)))
      throw badResponse('it is for another key');
    if (!issuers.some((issuer) => leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey))) {
      throw badResponse('the certificate is not signed by any that came with it');
    }
    return {
      identity,
      privateKeyPem: request.privateKeyPem,
      certificateChainPem: chain.join(''),
      rootsPem: roots.join(''),
      serial: leaf.serialNumber.toLowerCase(),
      notBeforeMs: leaf.validFromDate.getTime(),
      notAfterMs: leaf.validToDate.getTime(),
    };
  } catch (cause) {
    if (cause instanceof SignerError) throw cause;
    throw badResponse('a certificate in it cannot be read', cause);
  }
}

interface Call {
  readonly received: Parameters<typeof createCertificateMethod.createCertificate.requestSerialize>[0];
  readonly headers: Metadata;
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
}

function call(client: Client, { received, headers, deadline, signal }: Call): Promise<SignerResponse> {
  const { path, requestSerialize, responseDeserialize } = createCertificateMethod.createCertificate;
  const { promise, resolve, reject } = Promise.withResolvers<SignerResponse>();
  if (signal?.aborted) return Promise.reject(aborted());
  const running = client.makeUnaryRequest(
    path,
    requestSerialize,
    responseDeserialize,
    received,
    headers,
    { deadline },
    (error, response) => {
      signal?.removeEventListener('abort', cancel);
      if (response !== undefined) resolve(response);
      else reject(signal?.aborted ? aborted() : fromStatus(error));
    },
  );
  const cancel = (): void => running.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  return promise;
}

function openChannel(url: URL, rootsPem: string, alternativeName: string | undefined): Client {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const context = createSecureContext({
    ca: rootsPem,
    minVersion: 'TLSv1.3',
    ecdhCurve: 'X25519MLKEM768:X25519:P-256',
  });
  const names = [host, ...(alternativeName === undefined ? [] : [alternativeName])];
  const security = credentials.createFromSecureContext(context, {
    checkServerIdentity: (_name, certificate) => {
      const errors = names.map((name) => checkServerIdentity(name, certificate));
      return errors.includes(undefined) ? undefined : errors[0];
    },
  });
  return new Client(`dns:${url.hostname}:${url.port || '443'}`, security, {
    ...(isIP(host) !== 0 && { 'grpc.ssl_target_name_override': alternativeName ?? NAME_FOR_ADDRESSES }),
    'grpc.max_receive_message_length': MAX_SIGNER_RESPONSE_BYTES,
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 5_000,
    'grpc.enable_retries': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.use_local_subchannel_pool': 1,
  });
}

function parseAddress(address: string): URL {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url?.protocol === 'https:') return url;
  throw new SignerError(`${address} is not an https URL; the authority is never asked in clear text`, {
    code: 'UNREACHABLE',
  });
}

function fromStatus(error: ServiceError | null): SignerError {
  const nobodyAnswered =
    error === null || [status.DEADLINE_EXCEEDED, status.UNAVAILABLE].includes(error.code);
  const code = nobodyAnswered ? 'UNREACHABLE' : 'REFUSED';
  const what = code === 'REFUSED' ? 'the authority refused' : 'the authority cannot be reached';
  return new SignerError(`${what}: ${error?.details ?? 'no answer'}`, { code, cause: error });
}

function badResponse(reason: string, cause?: unknown): SignerError {
  return new SignerError(`the authority's answer is not an SVID: ${reason}`, { code: 'BAD_RESPONSE', cause });
}

function aborted(): SignerError {
  return new SignerError('no longer wanted', { code: 'ABORTED' });
}
