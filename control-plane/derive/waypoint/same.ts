/** Whether two values that are made of plain objects, lists, bytes and scalars say the same. Of maps and sets it is never said. */
export function isSame(a: unknown, b: unknown): boolean {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return Object.is(a, b);
  if (a === b) return true;
  if (isList(a) || isList(b))
    return isList(a) && isList(b) && a.constructor === b.constructor && areSame(a, b);
  if (isCollection(a) || isCollection(b)) return false;
  return haveSameFields(a as Fields, b as Fields);
}

type Fields = Readonly<Record<string, unknown>>;

function isCollection(value: object): boolean {
  return value instanceof Map || value instanceof Set;
}

function isList(value: object): value is readonly unknown[] | Uint8Array {
  return Array.isArray(value) || value instanceof Uint8Array;
}

function areSame(a: ArrayLike<unknown>, b: ArrayLike<unknown>): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index += 1) if (!isSame(a[index], b[index])) return false;
  return true;
}

function haveSameFields(a: Fields, b: Fields): boolean {
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  for (const key of keys) if (!isSame(a[key], b[key]) || !Object.hasOwn(b, key)) return false;
  return true;
}
