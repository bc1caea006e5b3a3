import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isSame } from './same.ts';

const value = fc.anything({ withBigInt: true, withTypedArray: false });

test('a copy is the same', () => {
  fc.assert(
    fc.property(value, (one) => {
      expect(isSame(one, structuredClone(one))).toBe(true);
    }),
  );
});

test.each([
  [1, 2],
  [1, '1'],
  [1n, 2n],
  [0, -0],
  [undefined, null],
  [{}, null],
  [{}, []],
  [[1], [1, 2]],
  [{ a: 1 }, { a: 1, b: undefined }],
  [{ a: undefined }, { b: undefined }],
  [{ a: [{ b: 1 }] }, { a: [{ b: 2 }] }],
  [new Uint8Array([1]), new Uint8Array([2])],
  [new Uint8Array([1]), [1]],
  [new Map(), new Map()],
  [{}, new Map()],
  [new Set([1]), new Set([2])],
])('what differs is not the same: %#', (a, b) => {
  expect([isSame(a, b), isSame(b, a)]).toEqual([false, false]);
});

test('bytes are compared', () => {
  expect(isSame({ a: new Uint8Array([1, 2]) }, { a: new Uint8Array([1, 2]) })).toBe(true);
});
