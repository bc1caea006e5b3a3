import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Authority, openAuthority } from './authority.ts';
import { createSigningRequest, readSigningRequest } from './csr.ts';
import { type Identity, parseIdentity } from './identity.ts';
import type { Svid } from './svid.ts';
import { importSigningKey, type Signer } from './x509.ts';

/** A real authority in a folder that goes away with it; for tests. */
export interface TemporaryAuthority extends AsyncDisposable {
  readonly authority: Authority;
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
    svid: async (identity, ttlMs = 3_600_000) =>
      await issueSvid(authority, typeof identity === 'string' ? parseIdentity(identity) : identity, ttlMs),
    signer: async () => ({
      key: importSigningKey(await readFile(join(directory, 'issuing.key'), 'utf8')),
      certificatePem: await readFile(join(directory, 'issuing.pem'), 'utf8'),
    }),
    async [Symbol.asyncDispose]() {
      await rm(parent, { recursive: true, force: true });
    },
  };
}

async function issueSvid(authority: Authority, identity: Identity, ttlMs: number): Promise<Svid> {
  const { privateKeyPem, csrPem } = await createSigningRequest(identity);
  const { publicKeySpki } = readSigningRequest(csrPem);
  const { chainPem, ...issued } = await authority.issue({ publicKeySpki, identity, ttlMs });
  return { identity, privateKeyPem, certificateChainPem: chainPem.join(''), ...issued };
}
