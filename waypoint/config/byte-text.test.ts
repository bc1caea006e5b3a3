import { create } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { HeaderValueOptionSchema } from '#api/envoy/gen/envoy/config/core/v3/base_pb.ts';
import { bytesOfText } from './byte-text.ts';
import { compileMutations } from './header-mutations.ts';
import { compilePattern } from './pattern.ts';

test.each([
  ['plain', 'plain'],
  ['Zoë', 'Zo\xc3\xab'],
  ['€', '\xe2\x82\xac'],
])('%s is on the wire as the bytes of its UTF-8', (text, bytes) => {
  expect(bytesOfText(text)).toBe(bytes);
});

test('what a route sets is written as bytes', () => {
  const option = create(HeaderValueOptionSchema, { header: { key: 'x-name', value: 'Zoë' } });
  expect(compileMutations([option], []).add).toEqual([['x-name', 'Zo\xc3\xab']]);
});

test('a regular expression looks at bytes', () => {
  expect(compilePattern('Zoë').matches('Zo\xc3\xab')).toBe(true);
  expect(compilePattern('Zo..').matches('Zo\xc3\xab')).toBe(true);
  expect(compilePattern('Zo.').matches('Zo\xc3\xab')).toBe(false);
});
