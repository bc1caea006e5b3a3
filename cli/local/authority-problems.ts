import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { splitPem } from '#certs/pem.ts';
import type { StatusProblem } from '#control-plane/status.ts';
import type { StateFolder } from './state-folder.ts';

/** A certificate that the mesh's own certificates end with. */
export interface AuthorityCertificate {
  readonly role: 'root' | 'issuing certificate';
  readonly subject: string;
  /** Lower-case hexadecimal. */
  readonly serial: string;
  /** Milliseconds since the epoch. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

const LONGEST_WARNING_MS = 30 * 24 * 3_600_000;
/** Share of its life that an authority has left when it is time to think of the next. */
const WARNING_SHARE = 1 / 10;

/** Who signs, by the files, as a control plane does not start with an authority that has ended; nobody where they cannot be read. */
export function readSigningAuthority({ path }: StateFolder): readonly AuthorityCertificate[] {
  try {
    const read = (name: string): readonly X509Certificate[] =>
      splitPem(readFileSync(join(path, 'ca', name), 'utf8')).map((pem) => new X509Certificate(pem));
    const roots = read('root.pem');
    const issuing = read('issuing.pem').filter((one) => !roots.some(({ raw }) => raw.equals(one.raw)));
    return [
      ...roots.map((one) => describe(one, 'root')),
      ...issuing.map((one) => describe(one, 'issuing certificate')),
    ];
  } catch {
    return []; // Not made yet, or damaged, which the control plane says.
  }
}

/** That the authority ends soon, or has ended: of the certificate that does first. */
export function authorityProblems(
  authority: readonly AuthorityCertificate[],
  nowMs: number,
): readonly StatusProblem[] {
  const [first] = authority
    .filter(({ notBeforeMs, notAfterMs }) => {
      const warningMs = Math.min(LONGEST_WARNING_MS, (notAfterMs - notBeforeMs) * WARNING_SHARE);
      return notAfterMs - nowMs < warningMs;
    })
    .toSorted((a, b) => a.notAfterMs - b.notAfterMs);
  return first === undefined ? [] : [problemOf(first, nowMs)];
}

function problemOf(
  { role, subject, serial, notAfterMs }: AuthorityCertificate,
  nowMs: number,
): StatusProblem {
  const hasEnded = notAfterMs <= nowMs;
  const end = new Date(notAfterMs).toISOString().replace(/\.\d+Z$/, 'Z');
  return {
    object: 'authority',
    position: '',
    path: '',
    message: hasEnded
      ? `its ${role} ${serial} (${subject}) ended at ${end}: tulle ca rotate while the control plane runs; else move ca/ away, tulle up, and restart every ztunnel`
      : `its ${role} ${serial} (${subject}) ends at ${end}: tulle ca rotate, or tulle ca import of a new one, before that`,
    severity: hasEnded ? 'error' : 'warning',
    effect: hasEnded
      ? 'no certificate is issued, and all have ended with it'
      : 'every certificate ends with it',
  };
}

function describe(certificate: X509Certificate, role: AuthorityCertificate['role']): AuthorityCertificate {
  return {
    role,
    subject: (certificate.subject ?? '').replaceAll('\n', ', '),
    serial: certificate.serialNumber.toLowerCase(),
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
  };
}
