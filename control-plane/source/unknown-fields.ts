import type { z } from 'zod';
import type { Path } from './path.ts';
import { isRecord } from './plain-value.ts';
import { unusedFields } from './schema-parts.ts';

/** A field that the kind does not have. */
export interface UnknownField {
  readonly path: Path;
  /** The fields that exist in its place. */
  readonly known: readonly string[];
}

/** Fields of a plain value that its schema does not know, whatever else is wrong with it. */
export function* unknownFields(
  schema: z.core.$ZodType,
  value: unknown,
  path: Path = [],
): Generator<UnknownField> {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'object':
      if (isRecord(value) && !def.catchall) yield* unknownInMap(schema, def.shape, value, path);
      return;
    case 'array':
      if (!Array.isArray(value)) return;
      for (const [index, item] of value.entries()) yield* unknownFields(def.element, item, [...path, index]);
      return;
    case 'record':
      if (!isRecord(value)) return;
      for (const [key, item] of Object.entries(value)) {
        // This one a record passes over.
        if (key === '__proto__') yield { path: [...path, key], known: [] };
        else yield* unknownFields(def.valueType, item, [...path, key]);
      }
      return;
    case 'optional':
    case 'default':
    case 'prefault':
      yield* unknownFields(def.innerType, value, path);
      return;
    case 'pipe':
      yield* unknownFields(def.in, value, path);
      return;
    default:
  }
}

function* unknownInMap(
  schema: z.core.$ZodType,
  shape: Readonly<Record<string, z.core.$ZodType>>,
  value: Readonly<Record<string, unknown>>,
  path: Path,
): Generator<UnknownField> {
  const unused = unusedFields(schema);
  for (const [key, field] of Object.entries(value)) {
    const known = Object.hasOwn(shape, key) ? shape[key] : undefined;
    if (known) yield* unknownFields(known, field, [...path, key]);
    else if (!unused.has(key)) yield { path: [...path, key], known: [...Object.keys(shape), ...unused] };
  }
}
