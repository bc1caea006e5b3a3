import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Authority, openAuthority, type RotatingAuthority } from './authority.ts';
import { createSigningRequest, readSigningRequest } from './csr.ts';
import { type Identity, parseIdentity } from './identity.ts';
import type { Svid } from './svid.ts';
import { importSigningKey, type Signer } from './x509.ts';

/** A real authority in a folder that goes away with it; for tests. */
export interface TemporaryAuthority extends AsyncDisposable {
  readonly authority: RotatingAuthority;
  readonly directory: string;
  /** Issues as the signing service would, key included. Default life: an hour. */
  svid(identity: Identity | string, ttlMs?: number): Promise<Svid>;
  /** The issuing intermediate's key, to sign what the authority never would. */
  signer(): Promise<Signer>;
}

/** Makes one; dispose of it. Defaults: trust domain `cluster.local`, the clock. */
export async function temporaryAuthority(
  options: { readonly trustDomain?: string; readonly now?: () => number } = {},
): Promise<TemporaryAuthority> {
  const parent = await mkdtemp(join(tmpdir(), 'tulle-ca-'));
  const directory = join(parent, 'ca');
  const { trustDomain = 'cluster.local', now = Date.now } = options;
  const authority = await openAuthority({ directory, trustDomain, now });
  return {
    authority,
    directory,
    svid: async (identity, ttlMs) => await issueSvid(authority, identity, ttlMs),
    signer: async () => ({
      key: importSigningKey(await readFile(join(directory, 'issuing.key'), 'utf8')),
      certificatePem: await readFile(join(directory, 'issuing.pem'), 'utf8'),
    }),
    async [Symbol.asyncDispose]() {
      await rm(parent, { recursive: true, force: true });
    },
  };
}

/** Issues as the signing service would, key included. Default life: an hour. */
export async function issueSvid(
  authority: Authority,
  identity: Identity | string,
  ttlMs = 3_600_000,
): Promise<Svid> {
  const wanted = typeof identity === 'string' ? parseIdentity(identity) : identity;
  const { privateKeyPem, csrPem } = await createSigningRequest(wanted);
  const { publicKeySpki } = readSigningRequest(csrPem);
  const { chainPem, ...issued } = await authority.issue({ publicKeySpki, identity: wanted, ttlMs });
  return { identity: wanted, privateKeyPem, certificateChainPem: chainPem.join(''), ...issued };
}
