import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { readDerSequence, TAG, writeDer } from './der.ts';
import { parseIdentity } from './identity.ts';
import { toPem } from './pem.ts';
import type { Svid } from './svid.ts';

/** Who signs: a private key and the certificate that goes with it. */
export interface ForgingSigner {
  readonly key: KeyObject;
  readonly certificatePem: string;
}

/** One extension as it goes into the certificate, whatever it says. */
export interface ForgedExtension {
  /** `2.5.29.17` */
  readonly oid: string;
  readonly isCritical?: boolean;
  readonly value: Uint8Array;
}

/** OIDs of what a leaf has. */
export const OID = {
  names: '2.5.29.17',
  constraints: '2.5.29.19',
  usage: '2.5.29.15',
  extendedUsage: '2.5.29.37',
} as const;

/** A name in a certificate, of that kind (RFC 5280, 4.2.1.6), byte for byte. */
export function generalName(kind: 'uri' | 'dns' | 'email', value: string): Uint8Array {
  const tags = { email: 1, dns: 2, uri: 6 };
  return writeDer(TAG.contextPrimitive(tags[kind]), Buffer.from(value, 'latin1'));
}

/** An `otherName` that carries text. */
export function otherName(oid: string, value: string): Uint8Array {
  const text = writeDer(TAG.context(0), writeDer(TAG.utf8String, Buffer.from(value)));
  return writeDer(TAG.context(0), writeDer(TAG.objectIdentifier, oidBytes(oid)), text);
}

/** The extension with these names. */
export function namesExtension(...names: readonly Uint8Array[]): ForgedExtension {
  return { oid: OID.names, isCritical: true, value: writeDer(TAG.sequence, ...names) };
}

/** What a leaf of ours has beside its names. */
export const LEAF_EXTENSIONS: Readonly<Record<'constraints' | 'usage' | 'extendedUsage', ForgedExtension>> = {
  constraints: { oid: OID.constraints, isCritical: true, value: writeDer(TAG.sequence) },
  usage: usageExtension(0xa0),
  extendedUsage: {
    oid: OID.extendedUsage,
    value: writeDer(
      TAG.sequence,
      writeDer(TAG.objectIdentifier, oidBytes('1.3.6.1.5.5.7.3.1')),
      writeDer(TAG.objectIdentifier, oidBytes('1.3.6.1.5.5.7.3.2')),
    ),
  },
};

/** Key usages by their bits, the first being the highest. */
export function usageExtension(bits: number): ForgedExtension {
  return { oid: OID.usage, isCritical: true, value: writeDer(TAG.bitString, Uint8Array.of(0, bits)) };
}

/** A certificate of whatever there is no way to ask an authority for, with its key; the signature is right. */
export function forgeCertificate(options: {
  readonly signer: ForgingSigner;
  readonly extensions: readonly ForgedExtension[];
  /** Seconds from now. Default a minute ago, and in an hour. */
  readonly from?: number;
  readonly until?: number;
}): { readonly der: Buffer; readonly keyPem: string } {
  const { signer, extensions, from = -60, until = 3600 } = options;
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const algorithm = writeDer(TAG.sequence, writeDer(TAG.objectIdentifier, oidBytes('1.2.840.10045.4.3.2')));
  const toBeSigned = writeDer(
    TAG.sequence,
    writeDer(TAG.context(0), writeDer(TAG.integer, Uint8Array.of(2))),
    writeDer(TAG.integer, Buffer.concat([Uint8Array.of(0x40), randomBytes(15)])),
    algorithm,
    subjectOf(signer.certificatePem),
    writeDer(TAG.sequence, time(from), time(until)),
    writeDer(TAG.sequence),
    publicKey.export({ type: 'spki', format: 'der' }),
    writeDer(TAG.context(3), writeDer(TAG.sequence, ...extensions.map(encodeExtension))),
  );
  const signature = writeDer(TAG.bitString, Uint8Array.of(0), sign('sha256', toBeSigned, signer.key));
  return {
    der: Buffer.from(writeDer(TAG.sequence, toBeSigned, algorithm, signature)),
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

/** An SVID object around a forged certificate, to shake hands with. Whatever is in it, it says that it is that identity. */
export function forgedSvid(
  forged: { readonly der: Buffer; readonly keyPem: string },
  options: { readonly identity: string; readonly chainPem: string; readonly rootsPem: string },
): Svid {
  return {
    identity: parseIdentity(options.identity),
    privateKeyPem: forged.keyPem,
    certificateChainPem: toPem('CERTIFICATE', forged.der) + options.chainPem,
    rootsPem: options.rootsPem,
    serial: createHash('sha256').update(forged.der).digest('hex').slice(0, 32),
    notBeforeMs: Date.now() - 60_000,
    notAfterMs: Date.now() + 3_600_000,
  };
}

function encodeExtension({ oid, isCritical = false, value }: ForgedExtension): Uint8Array {
  const critical = isCritical ? [writeDer(TAG.boolean, Uint8Array.of(0xff))] : [];
  const id = writeDer(TAG.objectIdentifier, oidBytes(oid));
  return writeDer(TAG.sequence, id, ...critical, writeDer(TAG.octetString, value));
}

/** GeneralizedTime. */
function time(seconds: number): Uint8Array {
  const text = new Date(Date.now() + seconds * 1000).toISOString().replace(/[-:T]|\.\d+/g, '');
  return writeDer(0x18, Buffer.from(text));
}

function subjectOf(pem: string): Uint8Array {
  const [toBeSigned] = readDerSequence(
    readDerSequence(new X509Certificate(pem).raw)[0]?.content ?? Buffer.alloc(0),
  );
  return readDerSequence(toBeSigned?.content ?? Buffer.alloc(0))[5]?.encoded ?? Buffer.alloc(0);
}

function oidBytes(oid: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = oid.split('.').map(Number);
  return Uint8Array.from([first * 40 + second, ...rest.flatMap(base128)]);
}

function base128(value: number): readonly number[] {
  const digits = [value % 128];
  for (let left = Math.floor(value / 128); left > 0; left = Math.floor(left / 128))
    digits.unshift((left % 128) | 0x80);
  return digits;
}
