import { AuthorityError } from '#certs/authority-files.ts';
import { formatIdentity, type Identity, IdentityError, parseIdentity } from '#certs/identity.ts';
import type { IssuedRecord } from '#certs/issued.ts';
import type { RevocationList } from '#certs/revoked.ts';
import { readIfThere, replaceFile } from './replace-file.ts';

/** Something that is revoked. */
export type Revocation =
  | { readonly kind: 'identity'; readonly identity: string; readonly sinceMs: number }
  | {
      readonly kind: 'serial';
      readonly serial: string;
      /** Whose it is. */
      readonly identity: string;
      /** When it would have ended: then it is forgotten. */
      readonly notAfterMs: number;
      readonly sinceMs: number;
    };

/** What to revoke, or why it cannot be. */
export type RevocationDecision =
  | { readonly kind: 'accepted'; readonly revocation: Revocation }
  | { readonly kind: 'refused'; readonly reason: string };

/** Who may not be a peer any more, kept over restarts. */
export interface Revocations {
  /** Without what has ended by itself. */
  readonly current: () => readonly Revocation[];
  readonly list: () => RevocationList;
  readonly isRevoked: (identity: Identity) => boolean;
  /** What is revoked already stays as it is. */
  readonly add: (revocation: Revocation) => void;
  /** Takes back what was revoked by that name; whether it was. */
  readonly remove: (what: string) => boolean;
}

const MOST = 10_000;
const SERIAL = /^[0-9a-f]{2,40}$/;

/** Decides about `spiffe://…` or a serial number in hexadecimal, as an operator has written it. */
export function decideRevocation(
  what: string,
  context: {
    readonly trustDomain: string;
    /** Milliseconds since the epoch. */
    readonly nowMs: number;
    readonly find: (serial: string) => IssuedRecord | undefined;
  },
): RevocationDecision {
  const { trustDomain, nowMs, find } = context;
  if (what.includes('://')) return decideIdentity(what, trustDomain, nowMs);
  const serial = normalSerial(what);
  if (!SERIAL.test(serial))
    return refused(`${JSON.stringify(what.slice(0, 200))} is neither a SPIFFE ID nor a serial number`);
  const issued = find(serial);
  if (issued === undefined)
    return refused(
      `no certificate with the serial number ${serial} was issued; an authority is changed with rotate`,
    );
  if (issued.notAfterMs <= nowMs) return refused(`the certificate ${serial} has ended already`);
  const { identity, notAfterMs } = issued;
  return { kind: 'accepted', revocation: { kind: 'serial', serial, identity, notAfterMs, sinceMs: nowMs } };
}

function decideIdentity(what: string, trustDomain: string, nowMs: number): RevocationDecision {
  try {
    const identity = parseIdentity(what);
    if (identity.trustDomain !== trustDomain) return refused(`${what} is not of trust domain ${trustDomain}`);
    return {
      kind: 'accepted',
      revocation: { kind: 'identity', identity: formatIdentity(identity), sinceMs: nowMs },
    };
  } catch (error) {
    if (error instanceof IdentityError) return refused(error.message);
    throw error;
  }
}

/** `4A:0B` and `0x4a0b` mean `4a0b`. */
function normalSerial(text: string): string {
  return text
    .trim()
    .toLowerCase()
    .replace(/^0x/, '')
    .replaceAll(':', '')
    .replace(/^(00)+(?=.)/, '');
}

/**
 * Opens the file that keeps them.
 * @throws AuthorityError when it is not what was written to it: who was revoked is not forgotten in silence.
 */
export function openRevocations(path: string, now: () => number = Date.now): Revocations {
  let all = read(path);
  const current = (): readonly Revocation[] =>
    all.filter((each) => each.kind === 'identity' || each.notAfterMs > now());
  const save = (next: readonly Revocation[]): void => {
    replaceFile(path, `${JSON.stringify(next, undefined, 2)}\n`);
    all = next;
  };
  return {
    current,
    list: () => ({
      identities: current().flatMap((each) => (each.kind === 'identity' ? [each.identity] : [])),
      serials: current().flatMap((each) => (each.kind === 'serial' ? [each.serial] : [])),
    }),
    isRevoked: (identity) => {
      const name = formatIdentity(identity);
      return all.some((each) => each.kind === 'identity' && each.identity === name);
    },
    add: (revocation) => {
      const others = current();
      if (others.some((each) => nameOf(each) === nameOf(revocation))) return;
      if (others.length >= MOST)
        throw new AuthorityError(`${MOST} are revoked already; rotate the authority instead`, {
          code: 'BAD_REQUEST',
        });
      save([...others, revocation].sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1)));
    },
    remove: (what) => {
      const names = new Set([what, normalSerial(what)]);
      const others = current().filter((each) => !names.has(nameOf(each)));
      if (others.length === current().length) return false;
      save(others);
      return true;
    },
  };
}

function nameOf(revocation: Revocation): string {
  return revocation.kind === 'identity' ? revocation.identity : revocation.serial;
}

function read(path: string): readonly Revocation[] {
  const text = readIfThere(path);
  if (text === undefined) return [];
  try {
    const all = JSON.parse(text) as unknown;
    // Written by us, from this very type.
    if (Array.isArray(all)) return all as readonly Revocation[];
  } catch (cause) {
    throw unreadable(path, cause);
  }
  throw unreadable(path, undefined);
}

function unreadable(path: string, cause: unknown): AuthorityError {
  const message = `${path} is not what was written to it; restore it from a backup. Without it nobody is revoked any more`;
  return new AuthorityError(message, { code: 'UNREADABLE', cause });
}

function refused(reason: string): RevocationDecision {
  return { kind: 'refused', reason };
}
