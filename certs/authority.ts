import { X509Certificate } from 'node:crypto';
import {
  AuthorityError,
  type AuthorityFiles,
  checkAuthorityFiles,
  readAuthorityFiles,
  writeAuthorityFiles,
} from './authority-files.ts';
import { formatIdentity, type Identity } from './identity.ts';
import {
  type CertificateTemplate,
  generateSigningKey,
  importSigningKey,
  type Signer,
  type SubjectName,
  signCertificate,
  signRoot,
} from './x509.ts';

export interface AuthorityOptions {
  /** Folder of its own: `root.pem root.key issuing.pem issuing.key bundle.pem`. */
  readonly directory: string;
  readonly trustDomain: string;
  /** Milliseconds since the epoch; default: the clock. */
  readonly now?: () => number;
}

/** A workload's key and the name that it was granted; whoever asks for it has been authorized already. */
interface IssueRequest {
  /** DER, of a verified signing request. */
  readonly publicKeySpki: Uint8Array;
  readonly identity: Identity;
  readonly ttlMs: number;
}

export interface IssuedCertificate {
  /** PEM: leaf, then intermediates; no root. */
  readonly chainPem: readonly string[];
  /** PEM bundle. */
  readonly rootsPem: string;
  /** Lower-case hexadecimal. */
  readonly serial: string;
  /** Milliseconds since the epoch. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** A server of the control plane's, known by DNS names and addresses: no SPIFFE ID, so never a mesh peer. */
interface ServerRequest {
  readonly dnsNames: readonly string[];
  readonly ips: readonly string[];
  readonly ttlMs: number;
}

/** The mesh's certificate authority: an intermediate that signs, under a root that is trusted. */
export interface Authority {
  readonly trustDomain: string;
  /** When the intermediate ends, which no certificate outlives; milliseconds since the epoch. */
  readonly notAfterMs: number;
  /** The roots with which everyone verifies everyone. */
  bundlePem(): string;
  /** @throws AuthorityError for another trust domain's identity, or once the intermediate has expired. */
  issue(request: IssueRequest): Promise<IssuedCertificate>;
  /** @throws AuthorityError when no name is given, or once the intermediate has expired. */
  issueServer(
    request: ServerRequest,
  ): Promise<{ readonly keyPem: string; readonly chainPem: readonly string[] }>;
}

const YEAR_MS = 365 * 24 * 3_600_000;
const AUTHORITY_LIFE_MS = 10 * YEAR_MS;
/** How far clocks of the mesh's machines may be behind. */
const CLOCK_SKEW_MS = 120_000;
const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/;

/**
 * Opens the authority in a folder, making one on first use: a root for ten years, and an issuing intermediate under
 * it that can sign nothing but leaves. What is there is used as it is, or refused; it is never replaced.
 * @throws AuthorityError
 */
export async function openAuthority(options: AuthorityOptions): Promise<Authority> {
  const { directory, trustDomain, now = Date.now } = options;
  if (!TRUST_DOMAIN.test(trustDomain)) {
    const message = `${JSON.stringify(trustDomain)} is not a trust domain: lower-case letters, digits, '.', '-' and '_' only`;
    throw new AuthorityError(message, { code: 'WRONG_TRUST_DOMAIN' });
  }
  const files =
    (await readAuthorityFiles(directory)) ?? (await createAuthority(directory, trustDomain, now()));
  checkAuthorityFiles(directory, files, { trustDomain, nowMs: now() });
  return new FileAuthority(files, trustDomain, now);
}

async function createAuthority(
  directory: string,
  trustDomain: string,
  nowMs: number,
): Promise<AuthorityFiles> {
  const rootKey = await generateSigningKey();
  const issuingKey = await generateSigningKey();
  const common = {
    names: [{ type: 'uri', value: `spiffe://${trustDomain}` }],
    notBeforeMs: nowMs - CLOCK_SKEW_MS,
    notAfterMs: nowMs + AUTHORITY_LIFE_MS,
  } as const;
  const root: CertificateTemplate = {
    ...common,
    role: 'root',
    subject: `O=Tulle, CN=${trustDomain} root`,
    publicKeySpki: rootKey.publicKeySpki,
  };
  const issuing: CertificateTemplate = {
    ...common,
    role: 'issuing',
    subject: `O=Tulle, CN=${trustDomain} issuing`,
    publicKeySpki: issuingKey.publicKeySpki,
  };
  const { pem: rootPem } = await signRoot(root, rootKey.key);
  const signed = await signCertificate(issuing, { key: rootKey.key, certificatePem: rootPem });
  const files: AuthorityFiles = {
    rootPem,
    rootKeyPem: rootKey.keyPem,
    issuingPem: signed.pem,
    issuingKeyPem: issuingKey.keyPem,
    bundlePem: rootPem,
  };
  await writeAuthorityFiles(directory, files);
  return files;
}

class FileAuthority implements Authority {
  readonly trustDomain: string;
  readonly notAfterMs: number;
  readonly #files: AuthorityFiles;
  readonly #signer: Signer;
  readonly #now: () => number;

  constructor(files: AuthorityFiles, trustDomain: string, now: () => number) {
    this.trustDomain = trustDomain;
    this.#files = files;
    this.#now = now;
    this.#signer = { key: importSigningKey(files.issuingKeyPem), certificatePem: files.issuingPem };
    this.notAfterMs = new X509Certificate(files.issuingPem).validToDate.getTime();
  }

  bundlePem(): string {
    return this.#files.bundlePem;
  }

  async issue({ publicKeySpki, identity, ttlMs }: IssueRequest): Promise<IssuedCertificate> {
    if (identity.trustDomain !== this.trustDomain) {
      const message = `${formatIdentity(identity)} is not of trust domain ${this.trustDomain}`;
      throw new AuthorityError(message, { code: 'BAD_REQUEST' });
    }
    const validity = this.#validity(ttlMs);
    const names: readonly SubjectName[] = [{ type: 'uri', value: formatIdentity(identity) }];
    const leaf = await signCertificate(
      { role: 'workload', subject: '', names, publicKeySpki, ...validity },
      this.#signer,
    );
    return {
      chainPem: [leaf.pem, this.#files.issuingPem],
      rootsPem: this.#files.bundlePem,
      serial: leaf.serial,
      ...validity,
    };
  }

  async issueServer({
    dnsNames,
    ips,
    ttlMs,
  }: ServerRequest): Promise<{ readonly keyPem: string; readonly chainPem: readonly string[] }> {
    const names: readonly SubjectName[] = [
      ...dnsNames.map((value) => ({ type: 'dns', value }) as const),
      ...ips.map((value) => ({ type: 'ip', value }) as const),
    ];
    if (names.length === 0)
      throw new AuthorityError('a server needs a name or an address', { code: 'BAD_REQUEST' });
    const validity = this.#validity(ttlMs);
    const { keyPem, publicKeySpki } = await generateSigningKey();
    const leaf = await signCertificate(
      { role: 'server', subject: '', names, publicKeySpki, ...validity },
      this.#signer,
    );
    return { keyPem, chainPem: [leaf.pem, this.#files.issuingPem] };
  }

  #validity(ttlMs: number): { readonly notBeforeMs: number; readonly notAfterMs: number } {
    const nowMs = this.#now();
    if (!(ttlMs > 0)) throw new AuthorityError(`a life of ${ttlMs} ms`, { code: 'BAD_REQUEST' });
    if (nowMs >= this.notAfterMs) {
      const message = `the issuing certificate expired at ${new Date(this.notAfterMs).toISOString()}`;
      throw new AuthorityError(message, { code: 'EXPIRED' });
    }
    return {
      notBeforeMs: floorToSecond(nowMs - Math.min(CLOCK_SKEW_MS, ttlMs / 10)),
      notAfterMs: floorToSecond(Math.min(nowMs + ttlMs, this.notAfterMs)),
    };
  }
}

function floorToSecond(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}
