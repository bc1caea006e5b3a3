import { X509Certificate } from 'node:crypto';
import {
  AuthorityError,
  type AuthorityFiles,
  checkAuthorityFiles,
  readAuthorityFiles,
  writeAuthorityFiles,
} from './authority-files.ts';
import { formatIdentity, type Identity } from './identity.ts';
import { CLOCK_SKEW_MS, makeSigningFiles } from './make-authority.ts';
import { splitPem } from './pem.ts';
import type { Rotation, SigningFiles } from './rotation.ts';
import {
  filesOf,
  readRotation,
  sameCertificate,
  updateAuthorityFiles,
  withoutRoot,
  writeRotation,
} from './rotation-file.ts';
import {
  generateSigningKey,
  importSigningKey,
  type Signer,
  type SubjectName,
  signCertificate,
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

/** An authority that can be changed for another. */
export interface RotatingAuthority extends Authority {
  /** What signs now. */
  signing(): SigningFiles;
  rotation(): Rotation;
  /**
   * Begins to trust the root of another authority, beside the own.
   * @throws AuthorityError while a rotation is under way.
   */
  distribute(next: SigningFiles): void;
  /** From now on the next authority signs. `untilMs`: when the last certificate of the old one ends. */
  signWithNext(untilMs: number): void;
  /** Trusts the old root no longer. */
  retire(): void;
}

const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/;

/**
 * Opens the authority in a folder, making one on first use: a root for ten years, and an issuing intermediate under
 * it that can sign nothing but leaves. What is there is used as it is, or refused; it is never replaced.
 * @throws AuthorityError
 */
export async function openAuthority(options: AuthorityOptions): Promise<RotatingAuthority> {
  const { directory, trustDomain, now = Date.now } = options;
  if (!TRUST_DOMAIN.test(trustDomain)) {
    const message = `${JSON.stringify(trustDomain)} is not a trust domain: lower-case letters, digits, '.', '-' and '_' only`;
    throw new AuthorityError(message, { code: 'WRONG_TRUST_DOMAIN' });
  }
  const present =
    (await readAuthorityFiles(directory)) ?? (await createAuthority(directory, trustDomain, now()));
  const rotation = readRotation(directory);
  const files = filesOf(present, rotation);
  updateAuthorityFiles(directory, present, files);
  checkAuthorityFiles(directory, files, { trustDomain, nowMs: now() });
  return new FileAuthority({ directory, trustDomain, now, files, rotation });
}

async function createAuthority(
  directory: string,
  trustDomain: string,
  nowMs: number,
): Promise<AuthorityFiles> {
  const signing = await makeSigningFiles(trustDomain, nowMs);
  const files: AuthorityFiles = { ...signing, bundlePem: signing.rootPem };
  await writeAuthorityFiles(directory, files);
  return files;
}

/** What signs at one moment: a certificate is never put together from two. */
interface Signing {
  readonly files: SigningFiles;
  readonly signer: Signer;
  readonly notAfterMs: number;
  /** What comes after a leaf in its chain; no root. */
  readonly intermediates: readonly string[];
}

function signingOf(files: SigningFiles): Signing {
  const chain = splitPem(files.issuingPem);
  const root = new X509Certificate(files.rootPem);
  const intermediates = chain.filter((pem) => !new X509Certificate(pem).raw.equals(root.raw));
  const ends = [...chain, files.rootPem].map((pem) => new X509Certificate(pem).validToDate.getTime());
  return {
    files,
    signer: { key: importSigningKey(files.issuingKeyPem), certificatePem: chain[0] ?? files.issuingPem },
    notAfterMs: Math.min(...ends),
    intermediates,
  };
}

class FileAuthority implements RotatingAuthority {
  readonly trustDomain: string;
  readonly #directory: string;
  readonly #now: () => number;
  #files: AuthorityFiles;
  #rotation: Rotation;
  #signing: Signing;

  constructor(options: {
    readonly directory: string;
    readonly trustDomain: string;
    readonly now: () => number;
    readonly files: AuthorityFiles;
    readonly rotation: Rotation;
  }) {
    this.trustDomain = options.trustDomain;
    this.#directory = options.directory;
    this.#now = options.now;
    this.#files = options.files;
    this.#rotation = options.rotation;
    this.#signing = signingOf(options.files);
  }

  get notAfterMs(): number {
    return this.#signing.notAfterMs;
  }

  bundlePem(): string {
    return this.#files.bundlePem;
  }

  signing(): SigningFiles {
    return this.#signing.files;
  }

  rotation(): Rotation {
    return this.#rotation;
  }

  distribute(next: SigningFiles): void {
    if (this.#rotation.kind !== 'none') {
      const message = 'a rotation is under way; `tulle ca list` says how far it is';
      throw new AuthorityError(message, { code: 'BUSY' });
    }
    signingOf(next); // Refused here rather than in the middle.
    this.#change({ kind: 'distributing', startedMs: this.#now(), next });
  }

  signWithNext(untilMs: number): void {
    const rotation = this.#rotation;
    if (rotation.kind !== 'distributing') throw wrongPhase(rotation);
    const { rootPem, issuingPem } = this.#files;
    this.#change({
      kind: 'retiring',
      startedMs: rotation.startedMs,
      switchedMs: this.#now(),
      untilMs,
      signing: rotation.next,
      previous: { rootPem, issuingPem },
    });
    this.#signing = signingOf(rotation.next);
  }

  retire(): void {
    const rotation = this.#rotation;
    if (rotation.kind !== 'retiring') throw wrongPhase(rotation);
    const { previous, signing } = rotation;
    const isSame = sameCertificate(previous.rootPem, signing.rootPem);
    const bundlePem = isSame ? this.#files.bundlePem : withoutRoot(this.#files.bundlePem, previous.rootPem);
    this.#replace({ ...this.#files, bundlePem }); // cut off here, both are trusted again and this is done again
    writeRotation(this.#directory, { kind: 'none' });
    this.#rotation = { kind: 'none' };
  }

  /** First what is to be, then the files: what is cut off in between is carried out at the next start. */
  #change(rotation: Rotation): void {
    writeRotation(this.#directory, rotation);
    this.#rotation = rotation;
    this.#replace(filesOf(this.#files, rotation));
  }

  #replace(files: AuthorityFiles): void {
    updateAuthorityFiles(this.#directory, this.#files, files);
    this.#files = files;
  }

  async issue({ publicKeySpki, identity, ttlMs }: IssueRequest): Promise<IssuedCertificate> {
    if (identity.trustDomain !== this.trustDomain) {
      const message = `${formatIdentity(identity)} is not of trust domain ${this.trustDomain}`;
      throw new AuthorityError(message, { code: 'BAD_REQUEST' });
    }
    const { signer, intermediates } = this.#signing;
    const validity = this.#validity(ttlMs);
    const names: readonly SubjectName[] = [{ type: 'uri', value: formatIdentity(identity) }];
    const leaf = await signCertificate(
      { role: 'workload', subject: '', names, publicKeySpki, ...validity },
      signer,
    );
    return {
      chainPem: [leaf.pem, ...intermediates],
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
    const { signer, intermediates } = this.#signing;
    const { keyPem, publicKeySpki } = await generateSigningKey();
    const leaf = await signCertificate(
      { role: 'server', subject: '', names, publicKeySpki, ...validity },
      signer,
    );
    return { keyPem, chainPem: [leaf.pem, ...intermediates] };
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

function wrongPhase({ kind }: Rotation): AuthorityError {
  return new AuthorityError(`the rotation is not where it is to be: ${kind}`, { code: 'BUSY' });
}

function floorToSecond(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}
