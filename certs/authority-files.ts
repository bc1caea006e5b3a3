import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readCertificateNames } from './leaf.ts';
import { splitPem } from './pem.ts';
import type { SigningFiles } from './rotation.ts';

/** What an authority's folder holds, as text. */
export interface AuthorityFiles extends SigningFiles {
  /** Every root that peers are verified against, `rootPem` among them. */
  readonly bundlePem: string;
}

export type AuthorityErrorCode =
  | 'FILE_MISSING'
  | 'UNREADABLE'
  | 'KEY_MISMATCH'
  | 'CHAIN_MISMATCH'
  | 'EXPIRED'
  | 'WRONG_TRUST_DOMAIN'
  | 'FOLDER_IN_USE'
  | 'BAD_REQUEST'
  | 'BUSY';

/** Thrown for an authority that cannot sign; the message names the file and what to do. */
export class AuthorityError extends Error {
  override readonly name = 'AuthorityError';
  readonly code: AuthorityErrorCode;

  constructor(message: string, options: { readonly code: AuthorityErrorCode; readonly cause?: unknown }) {
    super(message, { cause: options.cause });
    this.code = options.code;
  }
}

/** Its files. */
export const NAMES: Readonly<Record<keyof AuthorityFiles, string>> = {
  rootPem: 'root.pem',
  rootKeyPem: 'root.key',
  issuingPem: 'issuing.pem',
  issuingKeyPem: 'issuing.key',
  bundlePem: 'bundle.pem',
};

/** What is in the place of the key of a root that is not ours to sign with. */
export const NO_ROOT_KEY: string = '# The root of an imported authority: its operator has the key.\n';

const START_AFRESH =
  'restore it from a backup, or move the folder away to start with a new authority (every certificate issued so far then stops being trusted)';

/**
 * Reads an authority's folder, as far as it is one.
 * @returns undefined when the folder has none of the files, or is not there.
 * @throws AuthorityError when some of the files are there and others are not.
 */
export async function readAuthorityFiles(directory: string): Promise<AuthorityFiles | undefined> {
  const present = await existing(directory);
  const missing = Object.values(NAMES).filter((name) => !present.has(name));
  if (missing.length === Object.values(NAMES).length) return undefined;
  if (missing.length > 0) {
    throw new AuthorityError(`${join(directory, missing[0] ?? '')} is missing; ${START_AFRESH}`, {
      code: 'FILE_MISSING',
    });
  }
  const read = async (name: string): Promise<string> => await readFile(join(directory, name), 'utf8');
  await keepPrivate(directory);
  return {
    rootPem: await read(NAMES.rootPem),
    rootKeyPem: await read(NAMES.rootKeyPem),
    issuingPem: await read(NAMES.issuingPem),
    issuingKeyPem: await read(NAMES.issuingKeyPem),
    bundlePem: await read(NAMES.bundlePem),
  };
}

/**
 * Writes a new authority's folder (0700, keys 0600): all of it appears at once, or nothing.
 * @throws AuthorityError when the folder holds something else.
 */
export async function writeAuthorityFiles(directory: string, files: AuthorityFiles): Promise<void> {
  const building = `${directory}.new`;
  await rm(building, { recursive: true, force: true });
  await mkdir(building, { recursive: true, mode: 0o700 });
  for (const [key, name] of Object.entries(NAMES)) {
    const mode = name.endsWith('.key') ? 0o600 : 0o644;
    await writeDurably(join(building, name), files[key as keyof AuthorityFiles], mode);
  }
  await syncDirectory(building);
  try {
    await rename(building, directory);
  } catch (cause) {
    await rm(building, { recursive: true, force: true });
    const message = `${directory} cannot be made: it holds other files; move them away`;
    throw new AuthorityError(message, { code: 'FOLDER_IN_USE', cause });
  }
  await syncDirectory(dirname(directory));
}

/**
 * Checks that the files belong together, are in their time, and are this trust domain's.
 * @throws AuthorityError
 */
export function checkAuthorityFiles(
  directory: string,
  files: AuthorityFiles,
  expected: { readonly trustDomain: string; readonly nowMs: number },
): void {
  const path = (key: keyof AuthorityFiles): string => join(directory, NAMES[key]);
  const root = parseCertificate(path('rootPem'), files.rootPem);
  const chain = splitPem(files.issuingPem).map((pem) => parseCertificate(path('issuingPem'), pem));
  const [first = parseCertificate(path('issuingPem'), files.issuingPem)] = chain;
  if (files.rootKeyPem !== NO_ROOT_KEY) checkKey(path('rootKeyPem'), files.rootKeyPem, root);
  checkKey(path('issuingKeyPem'), files.issuingKeyPem, first);

  for (const [key, certificate] of [
    ['rootPem', root] as const,
    ...chain.map((certificate) => ['issuingPem', certificate] as const),
  ]) {
    if (!certificate.ca) throw mismatch(`${path(key)} is not the certificate of an authority`);
    checkTime(path(key), certificate, expected.nowMs);
    checkTrustDomain(path(key), certificate, expected.trustDomain);
  }
  chain.forEach((certificate, index) => {
    const issuer = chain[index + 1] ?? root;
    if (certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)) return;
    throw mismatch(`${path('issuingPem')} is not signed by ${path('rootPem')}`);
  });
  const bundle = splitPem(files.bundlePem).map((pem) => parseCertificate(path('bundlePem'), pem));
  if (!bundle.some((certificate) => certificate.raw.equals(root.raw))) {
    throw mismatch(`${path('bundlePem')} lacks the root of ${path('rootPem')}`);
  }
}

async function existing(directory: string): Promise<ReadonlySet<string>> {
  try {
    return new Set(await readdir(directory));
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return new Set();
    throw new AuthorityError(`${directory} cannot be read`, { code: 'UNREADABLE', cause });
  }
}

async function keepPrivate(directory: string): Promise<void> {
  for (const name of [NAMES.rootKeyPem, NAMES.issuingKeyPem]) {
    const { mode } = await stat(join(directory, name));
    if ((mode & 0o077) !== 0) await chmod(join(directory, name), 0o600);
  }
}

async function writeDurably(path: string, text: string, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function parseCertificate(path: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw new AuthorityError(`${path} is not a PEM certificate; ${START_AFRESH}`, {
      code: 'UNREADABLE',
      cause,
    });
  }
}

function checkKey(path: string, pem: string, certificate: X509Certificate): void {
  try {
    const key = createPrivateKey(pem);
    if (certificate.checkPrivateKey(key) && signingKeyProblem(key) === undefined) return;
  } catch (cause) {
    throw new AuthorityError(`${path} is not a PEM private key; ${START_AFRESH}`, {
      code: 'UNREADABLE',
      cause,
    });
  }
  const message = `${path} is not the key of the certificate beside it, or is too weak; ${START_AFRESH}`;
  throw new AuthorityError(message, { code: 'KEY_MISMATCH' });
}

/** Why an authority cannot sign with that key; undefined if it can. */
export function signingKeyProblem(key: KeyObject): string | undefined {
  const { namedCurve, modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  switch (key.asymmetricKeyType) {
    case 'ec':
      if (namedCurve === 'prime256v1' || namedCurve === 'secp384r1') return undefined;
      return `its curve is ${namedCurve}; only P-256 and P-384 can be verified by every client`;
    case 'rsa':
      if (modulusLength >= 2048 && modulusLength <= 8192) return undefined;
      return `its RSA key has ${modulusLength} bits; 2048 at least, 8192 at most`;
    default:
      return `it is a key of the kind ${key.asymmetricKeyType}; ECDSA (P-256, P-384) or RSA is wanted`;
  }
}

function checkTime(path: string, certificate: X509Certificate, nowMs: number): void {
  if (nowMs < certificate.validToDate.getTime() && nowMs >= certificate.validFromDate.getTime()) return;
  const span = `valid from ${certificate.validFromDate.toISOString()} to ${certificate.validToDate.toISOString()}`;
  const message = `${path} is expired or not yet valid (${span}); check this machine's clock, or move the folder away to start with a new authority`;
  throw new AuthorityError(message, { code: 'EXPIRED' });
}

function checkTrustDomain(path: string, certificate: X509Certificate, trustDomain: string): void {
  const ids = readCertificateNames(certificate.raw).uris.filter((uri) => uri.startsWith('spiffe://'));
  if (ids.every((id) => id === `spiffe://${trustDomain}`)) return;
  const message = `${path} is the authority of ${ids.join(', ')}, and this mesh's trust domain is ${trustDomain}; set trustDomain back, or use another state folder`;
  throw new AuthorityError(message, { code: 'WRONG_TRUST_DOMAIN' });
}

function mismatch(message: string): AuthorityError {
  return new AuthorityError(`${message}; ${START_AFRESH}`, { code: 'CHAIN_MISMATCH' });
}
