import { X509Certificate } from 'node:crypto';
import type { IssuedRecord } from '#certs/issued.ts';
import { splitPem } from '#certs/pem.ts';
import { type ClientProgress, isDone, type Rotation, type SigningFiles } from '#certs/rotation.ts';
import type { Revocation } from './revocations.ts';

/** `GET /ca`: who signs, who is trusted, and how far a rotation is. */
export interface AuthorityReport {
  readonly trustDomain: string;
  /** Those that sign, are about to, or have just stopped, each issuing certificate before its root. */
  readonly authorities: readonly ReportedAuthority[];
  /** Serial numbers of the roots that peers are verified with. */
  readonly trusted: readonly string[];
  readonly rotation: ReportedRotation | null;
  readonly revoked: readonly ReportedRevocation[];
  /** The newest of each identity on each node, without what has ended: what can be revoked by its serial number. */
  readonly certificates: readonly ReportedCertificate[];
}

/** A certificate that was issued for a workload or a waypoint. */
export interface ReportedCertificate {
  readonly identity: string;
  /** `NODE`, `waypoint/NAMESPACE/NAME` */
  readonly holder: string;
  /** Lower-case hexadecimal. */
  readonly serial: string;
  /** RFC 3339. */
  readonly notAfter: string;
}

/** Who is no peer any more. */
export interface ReportedRevocation {
  readonly identity: string;
  /** Of the one certificate that is revoked; null: whatever certificate. */
  readonly serial: string | null;
  readonly since: string;
  /** When that certificate would have ended. */
  readonly until: string | null;
}

/** A certificate that signs others. */
export interface ReportedAuthority {
  readonly role: 'root' | 'issuing';
  /** `signing`: now; `next`: once everyone has its root; `retiring`: until what it signed has ended. */
  readonly phase: 'signing' | 'next' | 'retiring';
  readonly subject: string;
  /** Lower-case hexadecimal. */
  readonly serial: string;
  /** RFC 3339. */
  readonly notBefore: string;
  readonly notAfter: string;
  /** `ECDSA P-256`, `RSA 2048` */
  readonly keyType: string;
}

/** How far a rotation is. */
export interface ReportedRotation {
  readonly phase: 'distributing' | 'retiring';
  readonly started: string;
  /** When the last certificate of the old authority ends; null before the new one signs. */
  readonly until: string | null;
  readonly clients: readonly ReportedClient[];
}

/** Whether a client has the new root. */
export interface ReportedClient {
  /** `node/NODE`, `waypoint/NAMESPACE/NAME` */
  readonly name: string;
  readonly done: boolean;
  readonly state: ClientProgress['kind'];
  /** Identities of which it holds certificates from before. */
  readonly waitsFor: readonly string[];
}

/** Puts it together. */
export function authorityReport(sources: {
  readonly trustDomain: string;
  readonly signing: SigningFiles;
  readonly bundlePem: string;
  readonly rotation: Rotation;
  readonly clients: readonly ClientProgress[];
  readonly revocations: readonly Revocation[];
  readonly issued: readonly IssuedRecord[];
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
}): AuthorityReport {
  const { trustDomain, signing, bundlePem, rotation, clients, issued, nowMs } = sources;
  return {
    trustDomain,
    authorities: [
      ...describeAuthority(signing, 'signing'),
      ...(rotation.kind === 'distributing' ? describeAuthority(rotation.next, 'next') : []),
      ...(rotation.kind === 'retiring' ? describeAuthority(rotation.previous, 'retiring') : []),
    ],
    trusted: splitPem(bundlePem).map((pem) => new X509Certificate(pem).serialNumber.toLowerCase()),
    rotation: reportRotation(rotation, clients),
    revoked: sources.revocations.map(describeRevocation),
    certificates: issued
      .filter(({ notAfterMs }) => notAfterMs > nowMs)
      .map(({ identity, node, serial, notAfterMs }) => ({
        ...{ identity, holder: node, serial },
        notAfter: new Date(notAfterMs).toISOString(),
      })),
  };
}

function describeRevocation(revocation: Revocation): ReportedRevocation {
  const isSerial = revocation.kind === 'serial';
  return {
    identity: revocation.identity,
    serial: isSerial ? revocation.serial : null,
    since: new Date(revocation.sinceMs).toISOString(),
    until: isSerial ? new Date(revocation.notAfterMs).toISOString() : null,
  };
}

function describeAuthority(
  { rootPem, issuingPem }: Pick<SigningFiles, 'rootPem' | 'issuingPem'>,
  phase: ReportedAuthority['phase'],
): readonly ReportedAuthority[] {
  const root = new X509Certificate(rootPem);
  const issuing = splitPem(issuingPem)
    .map((pem) => new X509Certificate(pem))
    .filter((certificate) => !certificate.raw.equals(root.raw));
  return [
    ...issuing.map((certificate) => describeCertificate(certificate, 'issuing', phase)),
    describeCertificate(root, 'root', phase),
  ];
}

function describeCertificate(
  certificate: X509Certificate,
  role: ReportedAuthority['role'],
  phase: ReportedAuthority['phase'],
): ReportedAuthority {
  return {
    role,
    phase,
    subject: (certificate.subject ?? '').replaceAll('\n', ', '),
    serial: certificate.serialNumber.toLowerCase(),
    notBefore: certificate.validFromDate.toISOString(),
    notAfter: certificate.validToDate.toISOString(),
    keyType: keyTypeOf(certificate),
  };
}

const CURVES = new Map([
  ['prime256v1', 'P-256'],
  ['secp384r1', 'P-384'],
]);

function keyTypeOf({ publicKey }: X509Certificate): string {
  const { namedCurve, modulusLength } = publicKey.asymmetricKeyDetails ?? {};
  if (publicKey.asymmetricKeyType === 'rsa') return `RSA ${modulusLength}`;
  return `ECDSA ${CURVES.get(namedCurve ?? '') ?? namedCurve}`;
}

/** How far it is; null: there is none. */
export function reportRotation(
  rotation: Rotation,
  clients: readonly ClientProgress[],
): ReportedRotation | null {
  if (rotation.kind === 'none') return null;
  return {
    phase: rotation.kind,
    started: new Date(rotation.startedMs).toISOString(),
    until: rotation.kind === 'retiring' ? new Date(rotation.untilMs).toISOString() : null,
    clients: clients.map((client) => ({
      name: client.name,
      done: isDone(client),
      state: client.kind,
      waitsFor: client.kind === 'holds-older' ? client.identities : [],
    })),
  };
}
