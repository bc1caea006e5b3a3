import { bytesEqual, type DerElement, DerError, expectTag, readDer, readDerSequence, TAG } from './der.ts';

/** What a certificate says of what it may sign (RFC 5280, 4.2.1). */
export interface AuthorityConstraints {
  /** basicConstraints has cA. */
  readonly isAuthority: boolean;
  /** Authorities that may follow; undefined: any number. */
  readonly pathLength: number | undefined;
  /** keyUsage has keyCertSign, or there is no keyUsage. */
  readonly maySign: boolean;
  /** Object identifiers in hexadecimal; undefined: for any purpose. */
  readonly extendedUsages: readonly string[] | undefined;
  readonly nameConstraints: NameConstraints | undefined;
  /** Critical extensions that are none of these, in hexadecimal. */
  readonly unknownCritical: readonly string[];
}

/** Hosts of URIs that may and may not be named below it. */
export interface NameConstraints {
  readonly permittedUris: readonly string[];
  readonly excludedUris: readonly string[];
  /** There are others, of DNS names, addresses and the like. */
  readonly hasOthers: boolean;
}

const OID = {
  subjectAlternativeName: '551d11',
  basicConstraints: '551d13',
  keyUsage: '551d0f',
  extendedKeyUsage: '551d25',
  nameConstraints: '551d1e',
  subjectKey: '551d0e',
  authorityKey: '551d23',
  policies: '551d20',
} as const;

const URI = TAG.contextPrimitive(6);
const KEY_CERT_SIGN = 0x04;

interface Extension {
  readonly oid: string;
  readonly isCritical: boolean;
  readonly value: Uint8Array;
}

/**
 * Reads them from the bytes of a certificate.
 * @throws DerError for anything that is not a certificate in DER, or that has an extension twice.
 */
export function readAuthorityConstraints(der: Uint8Array): AuthorityConstraints {
  const [toBeSigned] = readDerSequence(readDer(der, TAG.sequence).content);
  const fields = readDerSequence(expectTag(toBeSigned, TAG.sequence).content);
  const wrapped = fields.find((field) => field.tag === TAG.context(3));
  const list = wrapped === undefined ? [] : readDerSequence(readDer(wrapped.content, TAG.sequence).content);
  const extensions = new Map<string, Extension>();
  for (const extension of list.map(readExtension)) {
    if (extensions.has(extension.oid)) throw new DerError('the same extension twice');
    extensions.set(extension.oid, extension);
  }
  const basic = extensions.get(OID.basicConstraints)?.value;
  const usage = extensions.get(OID.keyUsage)?.value;
  const extended = extensions.get(OID.extendedKeyUsage)?.value;
  const names = extensions.get(OID.nameConstraints)?.value;
  const known: ReadonlySet<string> = new Set(Object.values(OID));
  return {
    ...(basic === undefined ? { isAuthority: false, pathLength: undefined } : readBasic(basic)),
    maySign: usage === undefined || ((readDer(usage, TAG.bitString).content[1] ?? 0) & KEY_CERT_SIGN) !== 0,
    extendedUsages:
      extended === undefined
        ? undefined
        : readDerSequence(readDer(extended, TAG.sequence).content).map(({ content }) => hex(content)),
    nameConstraints: names === undefined ? undefined : readNames(names),
    unknownCritical: [...extensions.values()]
      .filter(({ oid, isCritical }) => isCritical && !known.has(oid))
      .map(({ oid }) => oid),
  };
}

function readExtension(extension: DerElement): Extension {
  const parts = readDerSequence(expectTag(extension, TAG.sequence).content);
  const [, critical] = parts;
  return {
    oid: hex(expectTag(parts[0], TAG.objectIdentifier).content),
    isCritical: critical?.tag === TAG.boolean && !bytesEqual(critical.content, Uint8Array.of(0)),
    value: expectTag(parts.at(-1), TAG.octetString).content,
  };
}

function readBasic(value: Uint8Array): Pick<AuthorityConstraints, 'isAuthority' | 'pathLength'> {
  const [authority, length] = readDerSequence(readDer(value, TAG.sequence).content);
  const isAuthority = authority?.tag === TAG.boolean && authority.content[0] !== 0;
  if (length?.tag !== TAG.integer) return { isAuthority, pathLength: undefined };
  const pathLength = length.content.reduce((sum, byte) => Math.min(sum * 256 + byte, 1_000_000), 0);
  return { isAuthority, pathLength };
}

function readNames(value: Uint8Array): NameConstraints {
  const parts = readDerSequence(readDer(value, TAG.sequence).content);
  const permitted = subtrees(parts.find(({ tag }) => tag === TAG.context(0)));
  const excluded = subtrees(parts.find(({ tag }) => tag === TAG.context(1)));
  const uris = (of: readonly DerElement[]): readonly string[] =>
    of.filter(({ tag }) => tag === URI).map(({ content }) => Buffer.from(content).toString('latin1'));
  return {
    permittedUris: uris(permitted),
    excludedUris: uris(excluded),
    hasOthers: [...permitted, ...excluded].some(({ tag }) => tag !== URI),
  };
}

/** The base of each subtree. */
function subtrees(list: DerElement | undefined): readonly DerElement[] {
  return (list === undefined ? [] : readDerSequence(list.content)).map((subtree) => {
    const [base] = readDerSequence(expectTag(subtree, TAG.sequence).content);
    if (base === undefined) throw new DerError('a name constraint without a name');
    return base;
  });
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
