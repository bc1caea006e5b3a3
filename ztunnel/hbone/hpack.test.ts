import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Http2Error } from './error.ts';
import { encodeHeaders, HpackDecoder } from './hpack.ts';
import type { Field } from './hpack-tables.ts';

const decoder = (): HpackDecoder => new HpackDecoder(65_536);
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

test('requests of RFC 7541, C.4, are decoded: Huffman codes and the dynamic table', () => {
  const { decode } = bound(decoder());
  expect(decode(hex('8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff'))).toEqual([
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
  ]);
  expect(decode(hex('8286 84be 5886 a8eb 1064 9cbf')).slice(3)).toEqual([
    [':authority', 'www.example.com'],
    ['cache-control', 'no-cache'],
  ]);
  expect(decode(hex('8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf')).slice(3)).toEqual([
    [':authority', 'www.example.com'],
    ['custom-key', 'custom-value'],
  ]);
});

test('responses of RFC 7541, C.6, are decoded: a table of 256 bytes evicts', () => {
  const { decode } = bound(decoder());
  const location: Field = ['location', 'https://www.example.com'];
  const first = decode(
    hex(
      '3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
    ),
  );
  expect(first).toEqual([
    [':status', '302'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    location,
  ]);
  expect(decode(hex('4883 640e ffc1 c0bf'))).toEqual([[':status', '307'], ...first.slice(1)]);
  const third = decode(
    hex(
      '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
    ),
  );
  expect(third.slice(3)).toEqual([
    location,
    ['content-encoding', 'gzip'],
    ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
  ]);
});

test('what is encoded is decoded', () => {
  const text = fc.string({
    unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)),
  });
  const field = fc.tuple(
    fc.oneof(fc.constantFrom(':method', ':authority', ':status', 'baggage'), text),
    text,
  );
  fc.assert(
    fc.property(fc.array(field), (fields) => {
      expect(decoder().decode(encodeHeaders(fields))).toEqual(fields);
    }),
  );
});

test('bytes that are no header block end in an error of the protocol, never in another', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (blocks) => {
      const { decode } = bound(decoder());
      for (const block of blocks) {
        try {
          decode(Buffer.from(block));
        } catch (error) {
          expect(error).toBeInstanceOf(Http2Error);
        }
      }
    }),
    { numRuns: 500 },
  );
});

test.each([
  { when: 'an index is not in the tables', block: 'ff' + '00', code: 'COMPRESSION_ERROR' },
  { when: 'index 0 is used', block: '80', code: 'COMPRESSION_ERROR' },
  { when: 'an integer does not end', block: 'ffffffffffff', code: 'COMPRESSION_ERROR' },
  { when: 'a text is cut short', block: '00 05 61', code: 'COMPRESSION_ERROR' },
  { when: 'padding is longer than seven bits', block: '00 82 1fff 00', code: 'COMPRESSION_ERROR' },
  { when: 'padding is not of ones', block: '00 81 18 00', code: 'COMPRESSION_ERROR' },
  { when: 'the table is made larger than agreed', block: '3fe2ff03', code: 'COMPRESSION_ERROR' },
  { when: 'the table changes after a field', block: '82 20', code: 'COMPRESSION_ERROR' },
])('a block is refused when $when', ({ block, code }) => {
  expect(() => decoder().decode(hex(block))).toThrow(expect.objectContaining({ code }));
});

test('a small block that stands for a large list is refused: the decoded size counts', () => {
  const small = new HpackDecoder(1000);
  const value = 'x'.repeat(400);
  const entry = Buffer.concat([hex('40 01 61 7f 91 02'), Buffer.from(value)]);
  expect(small.decode(entry)).toEqual([['a', value]]);
  expect(() => small.decode(hex('be be be be'))).toThrow(
    expect.objectContaining({ code: 'ENHANCE_YOUR_CALM' }),
  );
});

function bound(of: HpackDecoder): { readonly decode: (block: Buffer) => readonly Field[] } {
  return { decode: (block) => of.decode(block) };
}
