import { X509Certificate } from 'node:crypto';
import { encodeStruct } from './ads.ts';
import { connectGrpc, type GrpcStatus } from './grpc.ts';
import { CSR } from './recording.ts';
import { callMetadata, type Settings } from './settings.ts';
import { makeSigningRequest } from './signing-request.ts';
import { bytesField, integerField, Message } from './wire.ts';

const PATH = '/istio.v1.auth.IstioCertificateService/CreateCertificate';

/** A certificate of one identity, PEM. */
export interface Svid {
  readonly identity: string;
  readonly key: string;
  /** Leaf and intermediates: what is presented. */
  readonly chain: string;
  /** What peers are verified with. */
  readonly roots: string;
}

/** What the CA answered. */
export interface CertificateAnswer {
  readonly status: GrpcStatus;
  /** Leaf, intermediates, roots; PEM. Empty when it refused. */
  readonly chain: readonly string[];
  readonly keyPem: string;
}

/** Asks the CA as a stock ztunnel was recorded to ask. */
export async function requestCertificate(
  settings: Settings,
  identity: string,
  token: string = settings.token(),
): Promise<CertificateAnswer> {
  const channel = await connectGrpc(settings.caAddress, settings.caRoots());
  try {
    const { keyPem, csrPem } = makeSigningRequest(identity);
    const chain: string[] = [];
    const call = channel.call(PATH, callMetadata(settings, token), (message) => {
      chain.push(...new Message(message).texts(1));
    });
    call.send(encodeCertificateRequest(csrPem, settings.secretTtlSeconds, identity));
    call.end();
    return { status: await call.status, chain, keyPem };
  } finally {
    channel.close();
  }
}

/** The certificate in an answer. @throws Error when the CA refused, or left out the roots */
export function readSvid(identity: string, { status, chain, keyPem }: CertificateAnswer): Svid {
  if (status.code !== 0) throw new Error(`no certificate for ${identity}: ${status.code} ${status.message}`);
  const roots = chain.at(-1);
  if (chain.length < 2 || roots === undefined) throw new Error('no root certificate present');
  return { identity, key: keyPem, chain: chain.slice(0, -1).join(''), roots };
}

/** Serial numbers of those with which it verifies peers, lower-case hexadecimal. */
export function rootSerials({ roots }: Svid): readonly string[] {
  const pems = roots.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return pems.map((pem) => new X509Certificate(pem).serialNumber.toLowerCase());
}

/** Milliseconds until a stock ztunnel asks for the next one: at half of its life. */
export function renewalDelayMs({ chain }: Svid, nowMs: number): number {
  const { validFromDate, validToDate } = new X509Certificate(chain);
  return Math.max((validFromDate.getTime() + validToDate.getTime()) / 2 - nowMs, 0);
}

/** The bytes of an IstioCertificateRequest, with the metadata key that was recorded. */
export function encodeCertificateRequest(csrPem: string, ttlSeconds: number, identity: string): Buffer {
  const [key = ''] = Object.keys(CSR.request.metadata.fields);
  const metadata = encodeStruct({ [key]: { stringValue: identity } });
  return Buffer.concat([bytesField(1, csrPem), integerField(3, ttlSeconds), bytesField(4, metadata)]);
}
