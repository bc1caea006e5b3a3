import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readObject } from './objects.ts';
import { SPLICE_MAPS, SPLICE_OFFSETS, SPLICE_QUEUE, SPLICE_SIZES, senderKey } from './splice-layout.ts';
import { Btf } from './testing-btf.ts';

const object = new Btf(readObject('splice'));

test.each([
  ['splice', SPLICE_SIZES.splice],
  ['splice_counts', SPLICE_SIZES.spliceCounts],
] as const)('struct %s is as the compiled programs have it', (name, size) => {
  expect(object.struct(name)).toEqual({ size, offsets: SPLICE_OFFSETS[name] });
});

test.each(Object.entries(SPLICE_MAPS))('map %s is as the compiled programs have it', (name, expected) => {
  const map = object.maps().get(name);
  expect({
    type: map?.['type'],
    key: map?.['key'],
    value: map?.['value'],
    maxEntries: map?.['max_entries'] ?? 0,
    flags: map?.['map_flags'] ?? 0,
  }).toEqual(expected);
});

test('the queue is as splice-layout.h has it', () => {
  const header = readFileSync(join(import.meta.dirname, 'splice-layout.h'), 'utf8');
  const [, factor, bits] = /#define SPLICE_QUEUE \((\d+) << (\d+)\)/.exec(header) ?? [];
  expect(Number(factor) * 2 ** Number(bits)).toBe(SPLICE_QUEUE);
});

test('a sender is known by its pod and both ends', () => {
  const key = senderKey(7n, { ip: '10.0.0.1', port: 258 }, { ip: '::1', port: 15064 });
  expect(key.toString('hex')).toBe(
    '0700000000000000' + `${'0'.repeat(20)}ffff0a00000102010000` + `${'0'.repeat(30)}01d83a0000`,
  );
});
