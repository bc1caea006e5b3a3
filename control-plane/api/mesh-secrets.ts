import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { SecretSchema } from './envoy/gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.ts';

/** Name of the secret (SDS) that has the roots with which every peer is verified. */
export const ROOTS_SECRET = 'ROOTCA';

/** Name of the secret that says who may not be a peer any more. A stock client does not ask for it. */
export const REVOKED_SECRET = 'tulle.dev/revoked';

/** Who may not be a peer any more: SPIFFE IDs, and serial numbers in lower-case hexadecimal. */
export interface RevokedNames {
  readonly identities: readonly string[];
  readonly serials: readonly string[];
}

/** Secrets that are served to everyone who asks for them by name, and that nobody has to have. */
export const MESH_SECRETS: ReadonlySet<string> = new Set([ROOTS_SECRET, REVOKED_SECRET]);

/** Thrown for a secret that is not what its name promises. */
export class SecretError extends Error {
  override readonly name = 'SecretError';
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/;

/** The message of {@link ROOTS_SECRET}: an Envoy validation context with a PEM bundle. */
export function encodeRoots(rootsPem: string): Uint8Array {
  const secret = create(SecretSchema, {
    name: ROOTS_SECRET,
    type: {
      case: 'validationContext',
      value: { trustedCa: { specifier: { case: 'inlineBytes', value: Buffer.from(rootsPem) } } },
    },
  });
  return toBinary(SecretSchema, secret);
}

/**
 * The PEM bundle in it.
 * @throws SecretError when there is none
 */
export function decodeRoots(value: Uint8Array): string {
  const text = trustedText(value);
  if (text !== undefined && PEM_CERTIFICATE.test(text)) return text;
  throw new SecretError('has no certificates in validation_context.trusted_ca');
}

/** The message of {@link REVOKED_SECRET}: a generic secret with JSON. */
export function encodeRevoked({ identities, serials }: RevokedNames): Uint8Array {
  const text = JSON.stringify({ identities, serials });
  const secret = create(SecretSchema, {
    name: REVOKED_SECRET,
    type: {
      case: 'genericSecret',
      value: { secret: { specifier: { case: 'inlineBytes', value: Buffer.from(text) } } },
    },
  });
  return toBinary(SecretSchema, secret);
}

/**
 * The names in it.
 * @throws SecretError when it is something else
 */
export function decodeRevoked(value: Uint8Array): RevokedNames {
  const { type } = parse(value);
  const source = type.case === 'genericSecret' ? type.value.secret?.specifier : undefined;
  if (source?.case !== 'inlineBytes') throw new SecretError('has no bytes in generic_secret.secret');
  let names: unknown;
  try {
    names = JSON.parse(Buffer.from(source.value).toString());
  } catch (cause) {
    throw new SecretError('is not JSON', { cause });
  }
  const { identities, serials } = (names ?? {}) as Partial<Record<keyof RevokedNames, unknown>>;
  if (isTexts(identities) && isTexts(serials)) return { identities, serials };
  throw new SecretError('has no lists identities and serials');
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((each) => typeof each === 'string');
}

function trustedText(value: Uint8Array): string | undefined {
  const { type } = parse(value);
  const source = type.case === 'validationContext' ? type.value.trustedCa?.specifier : undefined;
  if (source?.case === 'inlineBytes') return Buffer.from(source.value).toString();
  return source?.case === 'inlineString' ? source.value : undefined;
}

function parse(value: Uint8Array): ReturnType<typeof fromBinary<typeof SecretSchema>> {
  try {
    return fromBinary(SecretSchema, value);
  } catch (cause) {
    throw new SecretError('is no Secret', { cause });
  }
}
