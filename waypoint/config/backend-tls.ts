import type { DataSource, TransportSocket } from '#api/envoy/gen/envoy/config/core/v3/base_pb.ts';
import {
  type CertificateValidationContext,
  type SubjectAltNameMatcher,
  SubjectAltNameMatcher_SanType,
} from '#api/envoy/gen/envoy/extensions/transport_sockets/tls/v3/common_pb.ts';
import { SecretSchema } from '#api/envoy/gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.ts';
import {
  type CommonTlsContext,
  UpstreamTlsContextSchema,
} from '#api/envoy/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts';
import type { BackendTls } from '../model.ts';
import { refuse } from './config-error.ts';
import { decodeAny, decodeMessage, holds, typeOf } from './decode.ts';

/** TLS to an application, before what a Secret says is joined to it. */
export interface CompiledTls {
  readonly serverName: string;
  readonly validation: Validation;
  /** Name of the Secret that has the rest. */
  readonly secret?: string;
}

/** Whom to trust: of a Cluster, a Secret, or both. */
export interface Validation {
  readonly subjectAltNames: BackendTls['subjectAltNames'];
  /** PEM; empty: not said. */
  readonly roots: string;
}

/** Nothing without TLS. @throws ConfigError */
export function compileTransportSocket(socket: TransportSocket | undefined): CompiledTls | undefined {
  if (socket === undefined) return undefined;
  const any = socket.configType.case === 'typedConfig' ? socket.configType.value : undefined;
  if (!holds(any, UpstreamTlsContextSchema))
    return refuse(`transport socket ${socket.name} (${typeOf(any)}) is not known`);
  const { sni, commonTlsContext } = decodeAny(UpstreamTlsContextSchema, any);
  const { validation, secret } = validationOf(commonTlsContext);
  if (validation.roots === '' && secret === undefined) refuse('TLS without a trusted_ca is not supported');
  return { serverName: sni, validation, ...(secret === undefined ? {} : { secret }) };
}

/** A Secret that says whom to trust; others are not asked for. @throws ConfigError */
export function compileSecret(bytes: Uint8Array): Validation {
  const { type } = decodeMessage(SecretSchema, bytes);
  if (type.case !== 'validationContext')
    return refuse(`a secret of kind ${type.case ?? 'none'} is not supported`);
  const validation = compileValidation(type.value);
  return validation.roots === '' ? refuse('it has no trusted_ca') : validation;
}

/** What a cluster does when its secret is there; nothing before. */
export function joinTls(tls: CompiledTls, secret: Validation | undefined): BackendTls | undefined {
  if (tls.secret !== undefined && secret === undefined) return undefined;
  return {
    serverName: tls.serverName,
    subjectAltNames: [...tls.validation.subjectAltNames, ...(secret?.subjectAltNames ?? [])],
    roots: secret?.roots ?? tls.validation.roots,
  };
}

function validationOf(context: CommonTlsContext | undefined): {
  readonly validation: Validation;
  readonly secret?: string;
} {
  const nothing: Validation = { subjectAltNames: [], roots: '' };
  const by = context?.validationContextType;
  switch (by?.case) {
    case 'validationContext':
      return { validation: compileValidation(by.value) };
    case 'validationContextSdsSecretConfig':
      return { validation: nothing, secret: by.value.name };
    case 'combinedValidationContext': {
      const { defaultValidationContext: inline, validationContextSdsSecretConfig: sds } = by.value;
      return {
        validation: inline === undefined ? nothing : compileValidation(inline),
        ...(sds === undefined ? {} : { secret: sds.name }),
      };
    }
    default:
      return { validation: nothing };
  }
}

function compileValidation(context: CertificateValidationContext): Validation {
  return {
    subjectAltNames: context.matchTypedSubjectAltNames.map(compileName),
    roots: textOf(context.trustedCa),
  };
}

function compileName({ sanType, matcher }: SubjectAltNameMatcher): BackendTls['subjectAltNames'][number] {
  const by = matcher?.matchPattern;
  if (by?.case !== 'exact')
    return refuse(`match type ${by?.case ?? 'none'} of a certificate's name is not supported`);
  if (sanType === SubjectAltNameMatcher_SanType.DNS) return { kind: 'dns', value: by.value };
  if (sanType === SubjectAltNameMatcher_SanType.URI) return { kind: 'uri', value: by.value };
  return refuse(`san_type ${sanType} is not supported`);
}

function textOf(source: DataSource | undefined): string {
  const specifier = source?.specifier;
  if (specifier?.case === undefined) return '';
  if (specifier.case === 'inlineString') return specifier.value;
  if (specifier.case === 'inlineBytes') return new TextDecoder().decode(specifier.value);
  return refuse(`certificates from ${specifier.case} are not supported`);
}
