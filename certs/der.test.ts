import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DerError, readDer, readDerSequence, TAG, writeDer } from './der.ts';

test('what is written is read back, short or long', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70_000, size: 'max' }), (content) => {
      expect(Buffer.from(readDer(writeDer(TAG.octetString, content), TAG.octetString).content)).toEqual(
        Buffer.from(content),
      );
    }),
    { numRuns: 30 },
  );
});

test('any bytes are read or refused, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        const total = readDerSequence(bytes).reduce((sum, { encoded }) => sum + encoded.length, 0);
        expect(total).toBe(bytes.length);
      } catch (error) {
        expect(error).toBeInstanceOf(DerError);
      }
    }),
  );
});

test.each([
  { when: 'it is cut short', bytes: [0x04, 0x02, 0x00] },
  { when: 'its length is cut short', bytes: [0x04, 0x82, 0x01] },
  { when: 'its length is indefinite', bytes: [0x30, 0x80, 0x00, 0x00] },
  { when: 'its length could be shorter', bytes: [0x04, 0x81, 0x01, 0x00] },
  { when: 'its length starts with zero', bytes: [0x04, 0x82, 0x00, 0x80, ...new Array(128).fill(0)] },
  { when: 'its length is absurd', bytes: [0x04, 0x85, 0x01, 0x00, 0x00, 0x00, 0x00] },
  { when: 'its tag takes several bytes', bytes: [0x1f, 0x81, 0x00, 0x00] },
  { when: 'something follows', bytes: [0x04, 0x00, 0x05, 0x00] },
  { when: 'it has another tag', bytes: [0x05, 0x00] },
  { when: 'there is nothing', bytes: [] },
])('an element is refused when $when', ({ bytes }) => {
  expect(() => readDer(Uint8Array.from(bytes), TAG.octetString)).toThrow(DerError);
});
