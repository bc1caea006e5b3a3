/** One element of DER (X.690): what it is, what is in it, and the whole of it as it was encoded. */
export interface DerElement {
  readonly tag: number;
  readonly content: Uint8Array;
  readonly encoded: Uint8Array;
}

/** Tags of X.680 that certificates and signing requests use. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  sequence: 0x30,
  set: 0x31,
  /** Context-specific and constructed, `[n]`. */
  context: (number: number): number => 0xa0 | number,
  /** Context-specific and primitive, `[n] IMPLICIT`. */
  contextPrimitive: (number: number): number => 0x80 | number,
} as const;

/** Thrown for bytes that are not the DER that was expected; bounded input gives bounded work. */
export class DerError extends Error {
  override readonly name = 'DerError';
  readonly code = 'MALFORMED_DER';
}

/**
 * Reads exactly one element, without going into it.
 * @throws DerError when it is cut short, followed by anything, of indefinite length, or not in shortest form.
 */
export function readDer(bytes: Uint8Array, tag: number): DerElement {
  const [element, ...more] = readDerSequence(bytes);
  if (element === undefined || more.length > 0) throw new DerError('expected exactly one element');
  return expectTag(element, tag);
}

/**
 * Reads elements one after another to the end of the bytes, without going into them.
 * @throws DerError
 */
export function readDerSequence(bytes: Uint8Array): readonly DerElement[] {
  const elements: DerElement[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const element = readAt(bytes, offset);
    elements.push(element);
    offset += element.encoded.length;
  }
  return elements;
}

/**
 * The element, if it is there and has that tag.
 * @throws DerError
 */
export function expectTag(element: DerElement | undefined, tag: number): DerElement {
  if (element?.tag !== tag) {
    throw new DerError(`expected tag 0x${tag.toString(16)}, found ${element?.tag.toString(16) ?? 'nothing'}`);
  }
  return element;
}

/** An element around its contents, laid end to end. */
export function writeDer(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  const length = contents.reduce((sum, content) => sum + content.length, 0);
  const lengthBytes = length < 0x80 ? [length] : longLength(length);
  return Buffer.concat([Uint8Array.of(tag, ...lengthBytes), ...contents]);
}

/** Whether two byte strings are the same. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

function readAt(bytes: Uint8Array, start: number): DerElement {
  const tag = bytes[start];
  const first = bytes[start + 1];
  if (tag === undefined || first === undefined) throw new DerError('cut short');
  if ((tag & 0x1f) === 0x1f) throw new DerError('a tag number above 30 has no place in a certificate');
  const extra = first < 0x80 ? 0 : first & 0x7f;
  if (first === 0x80 || extra > 4) throw new DerError('a length of no definite or sensible size');
  const length = first < 0x80 ? first : readLength(bytes.subarray(start + 2, start + 2 + extra), extra);
  const contentStart = start + 2 + extra;
  const end = contentStart + length;
  if (end > bytes.length) throw new DerError('cut short');
  return { tag, content: bytes.subarray(contentStart, end), encoded: bytes.subarray(start, end) };
}

function readLength(digits: Uint8Array, count: number): number {
  const length = digits.reduce((sum, digit) => sum * 256 + digit, 0);
  if (digits.length < count) throw new DerError('cut short');
  if (digits[0] === 0 || length < 0x80) throw new DerError('a length that is not in its shortest form');
  return length;
}

function longLength(length: number): readonly number[] {
  const digits: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return [0x80 | digits.length, ...digits];
}
