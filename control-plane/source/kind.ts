import { z } from 'zod';
import type { Fault } from './faults.ts';
import type { MeshObject, ObjectMeta } from './objects.ts';
import { annotations, dnsLabel, dnsSubdomain, fields, filledText, labels } from './schema-parts.ts';

/** What an object has besides that which all have. */
type Body<Kind extends MeshObject['kind']> = Omit<
  Extract<MeshObject, { readonly kind: Kind }>,
  'kind' | 'metadata' | 'position' | 'positionOf'
>;

/** How one kind is read. */
export interface KindDefinition {
  readonly kind: MeshObject['kind'];
  /** API group; empty for the core. */
  readonly group: string;
  readonly versions: readonly string[];
  readonly isNamespaced: boolean;
  /**
   * Whether an unknown field is an error. It is one in kinds that restrict, where it may be a restriction that is
   * misspelt; elsewhere a warning.
   */
  readonly isStrict: boolean;
  /** Schema of the whole object; its output is the object, but for its kind and position. */
  readonly schema: z.ZodType;
  /** What is wrong with an object whose fields are well formed each by itself; also gets it as it is written. */
  readonly review: (object: MeshObject, written: unknown) => readonly Fault[];
}

/** @see defineKind */
export interface KindOptions<Kind extends MeshObject['kind']> {
  readonly kind: Kind;
  readonly group: string;
  readonly versions: readonly string[];
  /** Schemas of the fields beside `apiVersion`, `kind` and `metadata`; their outputs become the object. */
  readonly body: { readonly [Field in keyof Body<Kind>]: z.ZodType<Body<Kind>[Field]> };
  /** Further fields that are neither checked nor kept. */
  readonly unused?: readonly string[];
  /** Grammar of the object's name. Default: a DNS subdomain. */
  readonly name?: z.ZodType<string>;
  /** Default true. */
  readonly isNamespaced?: boolean;
  /** Default false. */
  readonly isStrict?: boolean;
  readonly review?: (
    object: Extract<MeshObject, { readonly kind: Kind }>,
    written: unknown,
  ) => readonly Fault[];
}

/** Defines how a kind is read. */
export function defineKind<Kind extends MeshObject['kind']>(options: KindOptions<Kind>): KindDefinition {
  const { kind, group, versions, body, unused = [], isNamespaced = true, isStrict = false } = options;
  const metadata = metadataSchema(options.name ?? dnsSubdomain, isNamespaced);
  const { review } = options;
  return {
    kind,
    group,
    versions,
    isNamespaced,
    isStrict,
    schema: fields({ metadata, ...body }, ['apiVersion', 'kind', ...unused]),
    // The schema of this very kind has made the object.
    review: (object, written) =>
      review?.(object as Extract<MeshObject, { readonly kind: Kind }>, written) ?? [],
  };
}

/** @see defineConvertedKind */
export interface ConvertedKindOptions<Kind extends MeshObject['kind'], Written>
  extends Omit<KindOptions<Kind>, 'body' | 'unused'> {
  /** Schema of the spec as it is written. */
  readonly spec: z.ZodType<Written>;
  /** Makes the object's spec of it: with what depends on the object's own namespace, or on where a part stands. */
  readonly convert: (
    written: Written,
    metadata: ObjectMeta,
  ) => Body<Kind> extends { readonly spec: infer Spec } ? Spec : never;
}

/** Defines how a kind is read whose spec is not what its schema gives. */
export function defineConvertedKind<Kind extends MeshObject['kind'], Written>(
  options: ConvertedKindOptions<Kind, Written>,
): KindDefinition {
  const { kind, group, versions, isNamespaced = true, isStrict = false, spec, convert, review } = options;
  const metadata = metadataSchema(options.name ?? dnsSubdomain, isNamespaced);
  const written = fields({ metadata, spec }, ['apiVersion', 'kind', 'status']);
  return {
    kind,
    group,
    versions,
    isNamespaced,
    isStrict,
    schema: written.transform((object) => ({ ...object, spec: convert(object.spec, object.metadata) })),
    // The schema of this very kind has made the object.
    review: (object, text) => review?.(object as Extract<MeshObject, { readonly kind: Kind }>, text) ?? [],
  };
}

const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

const timestamp = z.string().superRefine((text, context) => {
  if (!TIMESTAMP.test(text) || Number.isNaN(Date.parse(text)))
    context.addIssue(`${JSON.stringify(text)} is not a time such as 2026-01-31T12:00:00Z`);
});

const ownerReference = fields(
  { kind: filledText, name: filledText, controller: z.boolean().default(false) },
  ['apiVersion', 'uid', 'blockOwnerDeletion'],
);

function metadataSchema(name: z.ZodType<string>, isNamespaced: boolean): z.ZodType<ObjectMeta> {
  const written = fields(
    {
      name,
      namespace: dnsLabel.exactOptional(),
      labels: labels.default(new Map()),
      annotations: annotations.default(new Map()),
      creationTimestamp: timestamp.exactOptional(),
      deletionTimestamp: timestamp.exactOptional(),
      generateName: z.string().exactOptional(),
      uid: z.string().exactOptional(),
      generation: z.int().min(0, 'must not be negative').exactOptional(),
      ownerReferences: z.array(ownerReference).default([]),
    },
    [
      'managedFields',
      'resourceVersion',
      'selfLink',
      'finalizers',
      'deletionGracePeriodSeconds',
      'clusterName',
    ],
  );
  return written.transform(({ creationTimestamp, namespace, ...rest }) => ({
    ...rest,
    namespace: isNamespaced ? (namespace ?? 'default') : '',
    ...(creationTimestamp === undefined ? {} : { creationTimestampMs: Date.parse(creationTimestamp) }),
  }));
}
