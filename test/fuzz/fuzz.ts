import fc, { type Arbitrary } from 'fast-check';
import { fuzzConfig } from './config.ts';

/** Cases of each property in `npm test`. */
const CASES = 300;

/** Processor time that one case may take at most, in ms: a parser's work is bounded by what it is given, and that is short. */
const LONGEST_CASE_MS = 1500;

/** An error of these kinds is an answer; any other is a defect. */
type ErrorKind = abstract new (...args: never[]) => Error;

/** Checks that something holds for whatever is made; for how many cases, `npm run fuzz -- --seconds N` says. */
export function always<T>(made: Arbitrary<T>, holds: (value: T) => void, cases: number = CASES): void {
  const { seconds, seed } = fuzzConfig();
  const property = fc.property(made, (value) => {
    const began = process.threadCpuUsage().user;
    holds(value);
    const ms = (process.threadCpuUsage().user - began) / 1000;
    if (ms > LONGEST_CASE_MS) throw new Error(`took ${ms} ms of the processor`);
  });
  fc.assert(property, parameters(seconds, seed, cases));
}

/** {@link always} for what takes time. */
export async function alwaysAsync<T>(
  made: Arbitrary<T>,
  holds: (value: T) => Promise<void>,
  cases: number = CASES,
): Promise<void> {
  const { seconds, seed } = fuzzConfig();
  await fc.assert(fc.asyncProperty(made, holds), parameters(seconds, seed, cases));
}

function parameters(seconds: number | undefined, seed: number, cases: number): fc.Parameters<unknown> {
  return seconds === undefined
    ? { seed, numRuns: cases, endOnFailure: false }
    : { seed, numRuns: 1_000_000_000, interruptAfterTimeLimit: seconds * 1000 };
}

/** What a parser makes of something: a value, or undefined for an error that it is entitled to. */
export function outcomeOf<T>(parse: () => T, ...kinds: readonly ErrorKind[]): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (kinds.some((kind) => error instanceof kind)) return undefined;
    throw error;
  }
}

type Edit =
  | { readonly kind: 'set'; readonly at: number; readonly byte: number }
  | { readonly kind: 'insert'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'remove'; readonly at: number; readonly length: number }
  | { readonly kind: 'repeat'; readonly at: number; readonly length: number; readonly times: number }
  | { readonly kind: 'cut'; readonly at: number };

/** Bytes that decide something: ends of ranges, of lengths, of lines, of strings. */
const TELLING = [
  0x00, 0x01, 0x0a, 0x0d, 0x20, 0x2c, 0x3b, 0x30, 0x31, 0x7f, 0x80, 0x82, 0x84, 0xa0, 0xbf, 0xff,
];

const place = fc.nat(1_000_000);
const byte = fc.oneof(fc.nat(255), fc.constantFrom(...TELLING));
const edit: Arbitrary<Edit> = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), at: place, byte }),
  fc.record({ kind: fc.constant('insert' as const), at: place, bytes: fc.uint8Array({ maxLength: 12 }) }),
  fc.record({ kind: fc.constant('remove' as const), at: place, length: fc.integer({ min: 1, max: 24 }) }),
  fc.record({
    kind: fc.constant('repeat' as const),
    at: place,
    length: fc.integer({ min: 1, max: 40 }),
    times: fc.constantFrom(1, 2, 20, 1000),
  }),
  fc.record({ kind: fc.constant('cut' as const), at: place }),
);

/** Bytes like those, changed in one to six places; or any. */
export function bytesNear(...samples: readonly Uint8Array[]): Arbitrary<Buffer> {
  const changed = fc
    .tuple(fc.constantFrom(...samples), fc.array(edit, { minLength: 1, maxLength: 6 }))
    .map(([sample, edits]) => edits.reduce(apply, Buffer.from(sample)));
  const anything = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
  return fc.oneof({ weight: 5, arbitrary: changed }, { weight: 1, arbitrary: anything });
}

/** Text like that, by its bytes as Latin-1. */
export function textNear(...samples: readonly string[]): Arbitrary<string> {
  return bytesNear(...samples.map((sample) => Buffer.from(sample, 'latin1'))).map((bytes) =>
    bytes.toString('latin1'),
  );
}

/** Bytes cut into pieces anywhere. */
export function inPieces(
  bytes: Arbitrary<Buffer>,
): Arbitrary<{ readonly whole: Buffer; readonly pieces: readonly Buffer[] }> {
  return fc.tuple(bytes, fc.array(place, { maxLength: 8 })).map(([whole, cuts]) => {
    const ends = [...cuts.map((cut) => cut % (whole.length + 1)), whole.length].sort((a, b) => a - b);
    return { whole, pieces: ends.map((end, i) => Buffer.from(whole.subarray(ends[i - 1] ?? 0, end))) };
  });
}

function apply(bytes: Buffer, change: Edit): Buffer {
  const at = change.at % (bytes.length + 1);
  const head = bytes.subarray(0, at);
  switch (change.kind) {
    case 'set':
      return at < bytes.length
        ? Buffer.concat([head, Uint8Array.of(change.byte), bytes.subarray(at + 1)])
        : bytes;
    case 'insert':
      return Buffer.concat([head, change.bytes, bytes.subarray(at)]);
    case 'remove':
      return Buffer.concat([head, bytes.subarray(at + change.length)]);
    case 'repeat': {
      const piece = bytes.subarray(at, at + change.length);
      const copies = Array.from({ length: change.times }, () => piece);
      return Buffer.concat([head, ...copies, bytes.subarray(at)]);
    }
    case 'cut':
      return Buffer.from(head);
  }
}
