import { createPublicKey, generateKeyPair, type KeyObject, sign, verify } from 'node:crypto';
import { promisify } from 'node:util';
import { bytesEqual, DerError, expectTag, readDer, readDerSequence, TAG, writeDer } from './der.ts';
import { formatIdentity, type Identity } from './identity.ts';
import { derOfPem, toPem } from './pem.ts';

/** A new key and the request to certify it. */
export interface SigningRequest {
  /** PKCS#8 PEM; it never leaves the process that made it. */
  readonly privateKeyPem: string;
  /** PKCS#10 PEM. */
  readonly csrPem: string;
}

/** Thrown for a signing request that is refused; the message may be shown to whoever sent it. */
export class SigningRequestError extends Error {
  override readonly name = 'SigningRequestError';
  readonly code = 'BAD_SIGNING_REQUEST';
}

const LABEL = 'CERTIFICATE REQUEST';
const MAX_REQUEST_CHARACTERS = 16_384;
const ECDSA_WITH_SHA256 = Uint8Array.of(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02);
const EXTENSION_REQUEST = Uint8Array.of(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e);
const SUBJECT_ALTERNATIVE_NAME = Uint8Array.of(0x55, 0x1d, 0x11);

const generateKey = promisify(generateKeyPair);

/**
 * Makes a key and a request in the shape that the stock ztunnel sends: ECDSA P-256 with SHA-256, empty subject, one
 * critical extension that names the identity as the only URI.
 */
export async function createSigningRequest(identity: Identity): Promise<SigningRequest> {
  const { publicKey, privateKey } = await generateKey('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const info = writeDer(
    TAG.sequence,
    writeDer(TAG.integer, Uint8Array.of(0)),
    writeDer(TAG.sequence),
    spki,
    writeDer(TAG.context(0), extensionRequest(formatIdentity(identity))),
  );
  const algorithm = writeDer(TAG.sequence, writeDer(TAG.objectIdentifier, ECDSA_WITH_SHA256));
  const signature = writeDer(TAG.bitString, Uint8Array.of(0), sign('sha256', info, privateKey));
  return {
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    csrPem: toPem(LABEL, writeDer(TAG.sequence, info, algorithm, signature)),
  };
}

/**
 * Takes the public key out of a request, once its signature shows that the sender has the private one. Subject and
 * names in it are ignored: an identity is granted, not asked for.
 * @throws SigningRequestError
 */
export function readSigningRequest(csrPem: string): { readonly publicKeySpki: Uint8Array } {
  if (csrPem.length > MAX_REQUEST_CHARACTERS) throw new SigningRequestError('larger than 16 KiB');
  const der = derOfPem(LABEL, csrPem);
  if (der === undefined) throw new SigningRequestError('not a PEM certificate request');
  const { info, spki, algorithm, signature } = takeApart(der);
  if (!bytesEqual(algorithm, ECDSA_WITH_SHA256))
    throw new SigningRequestError('not signed by ECDSA with SHA-256');
  const key = publicKeyOf(spki);
  if (!verify('sha256', info, key, signature)) throw new SigningRequestError('its signature does not verify');
  return { publicKeySpki: key.export({ type: 'spki', format: 'der' }) };
}

function extensionRequest(uri: string): Uint8Array {
  const names = writeDer(TAG.sequence, writeDer(TAG.contextPrimitive(6), Buffer.from(uri, 'latin1')));
  const extension = writeDer(
    TAG.sequence,
    writeDer(TAG.objectIdentifier, SUBJECT_ALTERNATIVE_NAME),
    writeDer(TAG.boolean, Uint8Array.of(0xff)),
    writeDer(TAG.octetString, names),
  );
  return writeDer(
    TAG.sequence,
    writeDer(TAG.objectIdentifier, EXTENSION_REQUEST),
    writeDer(TAG.set, writeDer(TAG.sequence, extension)),
  );
}

interface RequestParts {
  readonly info: Uint8Array;
  readonly spki: Uint8Array;
  readonly algorithm: Uint8Array;
  readonly signature: Uint8Array;
}

/** RFC 2986, 4. */
function takeApart(der: Uint8Array): RequestParts {
  try {
    const [info, algorithm, signature] = readDerSequence(readDer(der, TAG.sequence).content);
    const [, , spki] = readDerSequence(expectTag(info, TAG.sequence).content);
    const [oid] = readDerSequence(expectTag(algorithm, TAG.sequence).content);
    return {
      info: expectTag(info, TAG.sequence).encoded,
      spki: expectTag(spki, TAG.sequence).encoded,
      algorithm: expectTag(oid, TAG.objectIdentifier).content,
      signature: expectTag(signature, TAG.bitString).content.subarray(1),
    };
  } catch (cause) {
    if (cause instanceof DerError)
      throw new SigningRequestError(`not a PKCS#10 request: ${cause.message}`, { cause });
    throw cause;
  }
}

function publicKeyOf(spki: Uint8Array): KeyObject {
  const refusal = 'its key is not ECDSA P-256';
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
    if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return key;
  } catch (cause) {
    throw new SigningRequestError(refusal, { cause });
  }
  throw new SigningRequestError(refusal);
}
