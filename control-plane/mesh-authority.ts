import type { Logger } from 'pino';
import { encodeRevoked, encodeRoots, REVOKED_SECRET, ROOTS_SECRET } from '#api/mesh-secrets.ts';
import type { RotatingAuthority } from '#certs/authority.ts';
import { AuthorityError } from '#certs/authority-files.ts';
import { formatIdentity } from '#certs/identity.ts';
import { decideImport, type ImportedTexts } from '#certs/import-authority.ts';
import type { IssuedLog, IssuedRecord } from '#certs/issued.ts';
import { makeSigningFiles } from '#certs/make-authority.ts';
import type { RootsClient } from '#certs/rotation.ts';
import { type AuthorityReport, authorityReport, reportRotation } from './authority-report.ts';
import type { MeshState } from './mesh-state.ts';
import { decideRevocation, type Revocations } from './revocations.ts';
import { followRotation } from './rotation-loop.ts';
import { type Caller, type CallerTokens, formatCaller } from './serve/caller-tokens.ts';
import type { DiscoveryServer } from './serve/server.ts';

/** The authority as an operator has it: looked at, and changed for another. */
export interface MeshAuthority extends Disposable {
  readonly report: () => AuthorityReport;
  /** How far a rotation is, which is in the report as well. */
  readonly rotation: () => AuthorityReport['rotation'];
  /**
   * Changes to a new authority of our own.
   * @throws AuthorityError while a rotation is under way
   */
  readonly rotate: () => Promise<AuthorityReport>;
  /**
   * Changes to an operator's authority.
   * @throws AuthorityError for one that cannot take over, or while a rotation is under way
   */
  readonly import: (texts: ImportedTexts) => Promise<AuthorityReport>;
  /**
   * Has nobody take an identity (`spiffe://…`) or a certificate (its serial number) for a peer any more; or again.
   * @throws AuthorityError where there is none such
   */
  readonly revoke: (what: string, undo: boolean) => AuthorityReport;
}

export interface MeshAuthorityOptions {
  readonly authority: RotatingAuthority;
  readonly discovery: Pick<DiscoveryServer, 'publishSecrets' | 'secretState'>;
  readonly tokens: Pick<CallerTokens, 'callers'>;
  readonly issued: Pick<IssuedLog, 'latest' | 'lastEndMs' | 'find'>;
  readonly state: () => Pick<MeshState, 'identities'>;
  readonly revocations: Revocations;
  /** Longest life of a certificate that is issued now. */
  readonly svidTtlMs: number;
  /** Another authority signs: what it signed for servers is to be had anew. */
  readonly onSigner: () => void;
  readonly logger: Logger;
}

/** A certificate that is on its way while the authority changes has been dated a moment before. */
const MARGIN_MS = 1000;

/** Serves the roots to everyone, and carries rotations through. Disposing of it stops between two steps. */
export function openMeshAuthority(options: MeshAuthorityOptions): MeshAuthority {
  const { authority, discovery, issued, revocations, svidTtlMs, logger } = options;
  const { trustDomain } = authority;
  const publish = (): void =>
    discovery.publishSecrets(
      new Map([
        [ROOTS_SECRET, encodeRoots(authority.bundlePem())],
        [REVOKED_SECRET, encodeRevoked(revocations.list())],
      ]),
    );
  publish();
  const rotation = followRotation({
    authority,
    clients: () => rootsClients(options),
    lastLeafEndsMs: () => Math.max(issued.lastEndMs(), Date.now() + svidTtlMs) + MARGIN_MS,
    onRoots: publish,
    onSigner: options.onSigner,
    logger,
  });
  const report = (): AuthorityReport =>
    authorityReport({
      trustDomain,
      signing: authority.signing(),
      bundlePem: authority.bundlePem(),
      rotation: authority.rotation(),
      clients: rotation.progress(),
      revocations: revocations.current(),
      issued: issued.latest(),
      nowMs: Date.now(),
    });
  const revoke = (what: string, undo: boolean): AuthorityReport => {
    if (undo) {
      if (!revocations.remove(what))
        throw new AuthorityError(`${what} is not revoked`, { code: 'BAD_REQUEST' });
      logger.info({ what }, 'revocation taken back');
    } else {
      const decision = decideRevocation(what, { trustDomain, nowMs: Date.now(), find: issued.find });
      if (decision.kind === 'refused') throw new AuthorityError(decision.reason, { code: 'BAD_REQUEST' });
      revocations.add(decision.revocation);
      logger.warn(decision.revocation, 'revoked');
    }
    publish();
    return report();
  };
  return {
    report,
    rotation: () => reportRotation(authority.rotation(), rotation.progress()),
    rotate: async () => {
      rotation.begin(await makeSigningFiles(trustDomain, Date.now()));
      return report();
    },
    import: async (texts) => {
      const decision = decideImport(texts, { trustDomain, nowMs: Date.now() });
      if (decision.kind === 'refused') throw new AuthorityError(decision.reason, { code: 'BAD_REQUEST' });
      const { files } = decision;
      if (files.issuingPem === authority.signing().issuingPem)
        throw new AuthorityError('that authority signs already', { code: 'BAD_REQUEST' });
      rotation.begin(files);
      return report();
    },
    revoke,
    [Symbol.dispose]: () => rotation[Symbol.dispose](),
  };
}

/** Everyone with a credential, and the certificates that they hold of the identities that they need. */
function rootsClients({
  authority: { trustDomain },
  discovery,
  tokens,
  issued,
  state,
}: MeshAuthorityOptions): readonly RootsClient[] {
  const byHolder = Map.groupBy(issued.latest(), ({ node }) => node);
  const { identities } = state();
  return tokens.callers().map((caller) => {
    const needed = neededBy(caller, trustDomain, identities);
    const held: readonly IssuedRecord[] = byHolder.get(holderOf(caller)) ?? [];
    return {
      name: formatCaller(caller),
      subscription: discovery.secretState(caller, ROOTS_SECRET),
      leaves: held.filter(({ identity }) => needed.has(identity)),
    };
  });
}

/** As the log of issued certificates has it. */
function holderOf(caller: Caller): string {
  return caller.kind === 'node' ? caller.node : formatCaller(caller);
}

function neededBy(
  caller: Caller,
  trustDomain: string,
  identities: MeshState['identities'],
): ReadonlySet<string> {
  if (caller.kind === 'node') return identities.get(caller.node) ?? new Set();
  const { namespace, name } = caller;
  return new Set([formatIdentity({ trustDomain, namespace, serviceAccount: name })]);
}
