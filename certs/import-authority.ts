import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readAuthorityConstraints } from './authority-constraints.ts';
import { NO_ROOT_KEY, signingKeyProblem } from './authority-files.ts';
import { DerError } from './der.ts';
import { readCertificateNames } from './leaf.ts';
import { splitPem } from './pem.ts';
import type { SigningFiles } from './rotation.ts';

/** What an operator hands over, PEM. */
export interface ImportedTexts {
  /** The certificate that is to sign; what it is signed by may follow. */
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Certificates between it and the root, in any order; the root may be among them. */
  readonly chainPem?: string;
  /** The root, if it is not among those. */
  readonly rootPem?: string;
}

/** An authority that can take over, or why it cannot. */
export type ImportDecision =
  | { readonly kind: 'accepted'; readonly files: SigningFiles }
  | { readonly kind: 'refused'; readonly reason: string };

/** One that ends sooner is not worth the change. */
const SHORTEST_REST_MS = 3_600_000;
const MOST_CERTIFICATES = 10;
const SERVER_AND_CLIENT = ['2b06010505070301', '2b06010505070302'];
const ANY_USAGE = '551d2500';
const WEAK_SIGNATURE = /md5|sha1(?!\d)/i;

/** Refused, with a reason; only ever thrown within this module. */
class Refusal extends Error {}

/**
 * Whether that is an authority that can sign for a trust domain: certificates that lead from the one that is to sign to a root,
 * all in their time and allowed to do so, and the key. What is decided here is read from the bytes.
 */
export function decideImport(
  texts: ImportedTexts,
  context: { readonly trustDomain: string; readonly nowMs: number },
): ImportDecision {
  try {
    const [issuing, ...others] = readCertificates('--cert', texts.certificatePem);
    if (issuing === undefined) return refused('--cert: there is no PEM certificate in it');
    checkKey(readKey(texts.keyPem), issuing);
    const known = [
      ...others,
      ...readCertificates('--chain', texts.chainPem ?? ''),
      ...readCertificates('--root', texts.rootPem ?? ''),
    ];
    const chain = chainOf(issuing, known);
    for (const [index, certificate] of chain.entries()) checkAuthority(certificate, index, context);
    const root = chain.at(-1) ?? issuing;
    const signing = chain.length === 1 ? chain : chain.slice(0, -1);
    return {
      kind: 'accepted',
      files: {
        rootPem: root.toString(),
        rootKeyPem: NO_ROOT_KEY,
        issuingPem: signing.map((certificate) => certificate.toString()).join(''),
        issuingKeyPem: texts.keyPem,
      },
    };
  } catch (error) {
    if (error instanceof Refusal) return refused(error.message);
    if (error instanceof DerError) return refused(`a certificate cannot be read: ${error.message}`);
    throw error;
  }
}

function readCertificates(what: string, text: string): readonly X509Certificate[] {
  const pems = splitPem(text);
  if (text.trim() !== '' && pems.length === 0)
    throw new Refusal(`${what}: there is no PEM certificate in it`);
  if (pems.length > MOST_CERTIFICATES)
    throw new Refusal(`${what}: there are more than ${MOST_CERTIFICATES} certificates in it`);
  return pems.map((pem) => {
    try {
      return new X509Certificate(pem);
    } catch (cause) {
      throw new Refusal(`${what}: a certificate in it cannot be read`, { cause });
    }
  });
}

function readKey(pem: string): KeyObject {
  if (pem.trim() === '')
    throw new Refusal('--key: there is no key in it; without its key an authority signs nothing');
  if (/ENCRYPTED/.test(pem))
    throw new Refusal('--key: it is encrypted; decrypt it first (openssl pkey -in FILE -out PLAIN)');
  try {
    return createPrivateKey(pem);
  } catch (cause) {
    throw new Refusal('--key: it is not a PEM private key', { cause });
  }
}

function checkKey(key: KeyObject, certificate: X509Certificate): void {
  const problem = signingKeyProblem(key);
  if (problem !== undefined) throw new Refusal(`--key: ${problem}`);
  if (!certificate.checkPrivateKey(key))
    throw new Refusal(`--key: it is not the key of ${nameOf(certificate)}`);
}

/** From the one that signs up to a root. */
function chainOf(issuing: X509Certificate, known: readonly X509Certificate[]): readonly X509Certificate[] {
  const chain = [issuing];
  for (;;) {
    const last = chain.at(-1) ?? issuing;
    if (isSignedBy(last, last)) break;
    const next = known.find((each) => isSignedBy(last, each));
    if (next === undefined) {
      throw new Refusal(
        `${nameOf(last)} is signed by ${JSON.stringify(oneLine(last.issuer))}, whose certificate is not there; give it with --chain or --root`,
      );
    }
    if (chain.some(({ raw }) => raw.equals(next.raw))) throw new Refusal('the chain leads back to itself');
    chain.push(next);
  }
  const used = (each: X509Certificate): boolean => chain.some(({ raw }) => raw.equals(each.raw));
  const stray = known.find((each) => !used(each));
  if (stray === undefined) return chain;
  throw new Refusal(`${nameOf(stray)} does not belong to the chain of ${nameOf(issuing)}; leave it out`);
}

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
  } catch {
    return false; // A key of a kind that cannot verify at all.
  }
}

/**
 * Whether one of a chain may be in it.
 * @param below how many authorities there are between it and the leaves
 */
function checkAuthority(
  certificate: X509Certificate,
  below: number,
  { trustDomain, nowMs }: { readonly trustDomain: string; readonly nowMs: number },
): void {
  const refuse = (why: string): never => {
    throw new Refusal(`${nameOf(certificate)} ${why}`);
  };
  const { isAuthority, maySign, pathLength, extendedUsages, nameConstraints, unknownCritical } =
    readAuthorityConstraints(certificate.raw);
  if (!isAuthority) refuse('is not an authority: its basicConstraints lack CA:TRUE');
  if (!maySign) refuse('may not sign certificates: its keyUsage lacks keyCertSign');
  if (pathLength !== undefined && pathLength < below)
    refuse(`allows ${pathLength} authorities below it (pathlen), and there are ${below}`);
  if (unknownCritical.length > 0)
    refuse(`has a critical extension that is not understood: ${unknownCritical[0]}`);
  if (
    extendedUsages !== undefined &&
    !extendedUsages.includes(ANY_USAGE) &&
    !SERVER_AND_CLIENT.every((usage) => extendedUsages.includes(usage))
  )
    refuse('is limited to other purposes: its extendedKeyUsage lacks serverAuth or clientAuth');
  const problem =
    nameConstraints &&
    (nameConstraints.hasOthers
      ? 'has name constraints on other names than URIs, which the control plane would not meet'
      : constraintProblem(nameConstraints, trustDomain));
  if (problem) refuse(problem);
  const keyProblem = signingKeyProblem(certificate.publicKey);
  if (keyProblem !== undefined) refuse(`is too weak, or not understood by every client: ${keyProblem}`);
  const signature = certificate.signatureAlgorithm ?? '';
  if (WEAK_SIGNATURE.test(signature)) refuse(`is signed with ${signature}, which nobody accepts any more`);
  checkTime(certificate, nowMs, refuse);
  const ids = readCertificateNames(certificate.raw).uris.filter((uri) => uri.startsWith('spiffe://'));
  const foreign = ids.find((id) => id !== `spiffe://${trustDomain}`);
  if (foreign !== undefined) refuse(`is of ${foreign}, and this mesh's trust domain is ${trustDomain}`);
}

function checkTime(certificate: X509Certificate, nowMs: number, refuse: (why: string) => never): void {
  const { validFromDate: from, validToDate: to } = certificate;
  if (nowMs < from.getTime()) refuse(`is not valid before ${from.toISOString()}`);
  if (nowMs >= to.getTime()) refuse(`has expired: it was valid until ${to.toISOString()}`);
  if (nowMs >= to.getTime() - SHORTEST_REST_MS)
    refuse(`ends within the hour, at ${to.toISOString()}: a rotation would be hardly over`);
}

/** Constraints are hosts, or domains with a dot before; the host of a SPIFFE ID is its trust domain. */
function constraintProblem(
  {
    permittedUris,
    excludedUris,
  }: { readonly permittedUris: readonly string[]; readonly excludedUris: readonly string[] },
  trustDomain: string,
): string | undefined {
  const covers = (constraint: string): boolean =>
    constraint.startsWith('.') ? trustDomain.endsWith(constraint) : trustDomain === constraint;
  if (excludedUris.some(covers)) return `excludes the trust domain ${trustDomain} (name constraints)`;
  if (permittedUris.length > 0 && !permittedUris.some(covers))
    return `permits ${permittedUris.slice(0, 4).join(', ')} only (name constraints), and the trust domain is ${trustDomain}`;
  return undefined;
}

function nameOf(certificate: X509Certificate): string {
  return `the certificate ${JSON.stringify(oneLine(certificate.subject))}`;
}

function oneLine(name: string | undefined): string {
  return (name ?? '').replaceAll('\n', ', ').slice(0, 200);
}

function refused(reason: string): ImportDecision {
  return { kind: 'refused', reason };
}
