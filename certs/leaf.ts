import { bytesEqual, type DerElement, DerError, expectTag, readDer, readDerSequence, TAG } from './der.ts';

/** What a certificate says of itself that decides whether it may speak for a workload. */
export interface CertificateNames {
  /** URI subject alternative names, one character a byte, in order. */
  readonly uris: readonly string[];
  /** basicConstraints has cA, or keyUsage has keyCertSign or cRLSign: it signs others, and names nobody itself. */
  readonly signsOthers: boolean;
  /** keyUsage is there and lacks digitalSignature: its key may not sign a handshake of TLS 1.3. */
  readonly mayNotShakeHands: boolean;
}

const SUBJECT_ALTERNATIVE_NAME = Uint8Array.of(0x55, 0x1d, 0x11);
const BASIC_CONSTRAINTS = Uint8Array.of(0x55, 0x1d, 0x13);
const KEY_USAGE = Uint8Array.of(0x55, 0x1d, 0x0f);
const EXTENSIONS = TAG.context(3);
const URI = TAG.contextPrimitive(6);
const KEY_CERT_SIGN_AND_CRL_SIGN = 0x06;
const DIGITAL_SIGNATURE = 0x80;

/**
 * Reads an X.509 certificate's names from its bytes (RFC 5280, 4.1 and 4.2.1). Printed forms are never used: they
 * cannot tell a URI from a DNS name that contains one. The signature is not checked here.
 * @throws DerError for anything that is not a certificate in DER, or that has an extension twice.
 */
export function readCertificateNames(der: Uint8Array): CertificateNames {
  const [toBeSigned] = readDerSequence(readDer(der, TAG.sequence).content);
  const fields = readDerSequence(expectTag(toBeSigned, TAG.sequence).content);
  const extensions = fields.find((field) => field.tag === EXTENSIONS);
  const list =
    extensions === undefined ? [] : readDerSequence(readDer(extensions.content, TAG.sequence).content);
  const read = list.map(readExtension);
  if (new Set(read.map(({ oid }) => Buffer.from(oid).toString('hex'))).size < read.length)
    throw new DerError('the same extension twice');

  const names = extensionValue(read, SUBJECT_ALTERNATIVE_NAME);
  const constraints = extensionValue(read, BASIC_CONSTRAINTS);
  const usage = extensionValue(read, KEY_USAGE);
  return {
    uris: names === undefined ? [] : readUris(names),
    signsOthers:
      (constraints !== undefined && isAuthority(constraints)) ||
      (usage !== undefined && (usageBits(usage) & KEY_CERT_SIGN_AND_CRL_SIGN) !== 0),
    mayNotShakeHands: usage !== undefined && (usageBits(usage) & DIGITAL_SIGNATURE) === 0,
  };
}

/**
 * The serial number of an X.509 certificate, lower-case hexadecimal without leading zeros.
 * @throws DerError for anything that is not a certificate in DER
 */
export function readSerial(der: Uint8Array): string {
  const [toBeSigned] = readDerSequence(readDer(der, TAG.sequence).content);
  const fields = readDerSequence(expectTag(toBeSigned, TAG.sequence).content);
  const serial = fields.find((field) => field.tag !== TAG.context(0));
  const text = Buffer.from(expectTag(serial, TAG.integer).content).toString('hex');
  return text.replace(/^(00)+(?=.)/, '');
}

interface Extension {
  readonly oid: Uint8Array;
  readonly value: Uint8Array;
}

function readExtension(extension: DerElement): Extension {
  const parts = readDerSequence(expectTag(extension, TAG.sequence).content);
  const oid = expectTag(parts[0], TAG.objectIdentifier).content;
  const value = expectTag(parts.at(-1), TAG.octetString).content;
  return { oid, value };
}

function extensionValue(extensions: readonly Extension[], oid: Uint8Array): Uint8Array | undefined {
  return extensions.find((extension) => bytesEqual(extension.oid, oid))?.value;
}

function readUris(value: Uint8Array): readonly string[] {
  return readDerSequence(readDer(value, TAG.sequence).content)
    .filter((name) => name.tag === URI)
    .map((name) => Buffer.from(name.content).toString('latin1'));
}

function isAuthority(value: Uint8Array): boolean {
  const [first] = readDerSequence(readDer(value, TAG.sequence).content);
  return first?.tag === TAG.boolean && first.content[0] !== 0;
}

/** The first eight: digitalSignature is the highest. */
function usageBits(value: Uint8Array): number {
  return readDer(value, TAG.bitString).content[1] ?? 0;
}
