import forge from 'node-forge';
import { toPem } from './pem.ts';

/** A key and certificates, PEM. */
export interface Pkcs12Contents {
  /** The certificate of the key first, as far as that is known. */
  readonly certificatesPem: string;
  readonly keyPem: string;
}

/** Thrown for a file that is none, or cannot be opened; the message is for whoever has it. */
export class Pkcs12Error extends Error {
  override readonly name = 'Pkcs12Error';
  readonly code = 'UNREADABLE_PKCS12';
}

const LARGEST_BYTES = 256 * 1024;

/**
 * Takes a PKCS#12 file apart (RFC 7292), no more: what is in it is checked by whoever takes it, as if it had been PEM.
 * @throws Pkcs12Error
 */
export function readPkcs12(der: Uint8Array, password: string): Pkcs12Contents {
  if (der.length > LARGEST_BYTES) throw new Pkcs12Error('it is larger than 256 KiB');
  const bags = open(der, password);
  const keys = [
    ...bagsOf(bags, forge.pki.oids['pkcs8ShroudedKeyBag']),
    ...bagsOf(bags, forge.pki.oids['keyBag']),
  ];
  const [key] = keys;
  if (key === undefined) throw new Pkcs12Error('there is no key in it');
  if (keys.length > 1) throw new Pkcs12Error('there are several keys in it');
  const certificates = bagsOf(bags, forge.pki.oids['certBag']);
  if (certificates.length === 0) throw new Pkcs12Error('there is no certificate in it');
  const own = certificates.filter((bag) => keyIdOf(bag) !== undefined && keyIdOf(bag) === keyIdOf(key));
  const ordered = [...own, ...certificates.filter((bag) => !own.includes(bag))];
  return {
    certificatesPem: ordered.map((bag) => toPem('CERTIFICATE', certificateDer(bag))).join(''),
    keyPem: toPem('PRIVATE KEY', keyDer(key)),
  };
}

function open(der: Uint8Array, password: string): forge.pkcs12.Pkcs12Pfx {
  try {
    const asn1 = forge.asn1.fromDer(forge.util.createBuffer(Buffer.from(der).toString('latin1')));
    return forge.pkcs12.pkcs12FromAsn1(asn1, password);
  } catch (cause) {
    throw new Pkcs12Error('it cannot be opened: not PKCS#12, or another password', { cause });
  }
}

function bagsOf(pfx: forge.pkcs12.Pkcs12Pfx, bagType: string | undefined): readonly forge.pkcs12.Bag[] {
  return bagType === undefined ? [] : (pfx.getBags({ bagType })[bagType] ?? []);
}

function keyIdOf(bag: forge.pkcs12.Bag): string | undefined {
  const [id] = (bag.attributes as { readonly localKeyId?: readonly string[] }).localKeyId ?? [];
  return id;
}

/** An elliptic curve's is not parsed by the library, and is left as it is. */
function certificateDer(bag: forge.pkcs12.Bag): Uint8Array {
  return derOf(bag.cert ? forge.pki.certificateToAsn1(bag.cert) : bag.asn1);
}

function keyDer(bag: forge.pkcs12.Bag): Uint8Array {
  return derOf(bag.key ? forge.pki.wrapRsaPrivateKey(forge.pki.privateKeyToAsn1(bag.key)) : bag.asn1);
}

function derOf(asn1: forge.asn1.Asn1): Uint8Array {
  return Buffer.from(forge.asn1.toDer(asn1).getBytes(), 'latin1');
}
