import { afterAll, beforeAll, expect, test } from 'vitest';
import { BpfError } from '#bpf/errors.ts';
import { MAPS, podKey, SIZES } from '#bpf/layout.ts';
import { BpfMap } from '#bpf/maps.ts';
import { mapPath } from '#bpf/pins.ts';
import { installMesh, type MeshPrograms } from '#bpf/programs.ts';
import { type BpfBed, createBpfBed } from '#test/kit/bpf-bed.ts';

let bed: BpfBed;
let mesh: MeshPrograms;

beforeAll(async () => {
  bed = await createBpfBed('maps');
  mesh = installMesh(bed);
});

afterAll(async () => {
  mesh?.close();
  await bed?.[Symbol.asyncDispose]();
});

const key = podKey(1n);
const value = Buffer.alloc(SIZES.counters, 7);

test('entries are made, changed, found, listed and deleted, also by another who opens the map', () => {
  const { counters } = mesh.maps;
  const other = BpfMap.openPinned(mapPath(bed.directory, 'counters'), MAPS.counters);
  const found = Buffer.alloc(SIZES.counters);
  expect(counters.lookup(key, found)).toBe(false);
  counters.update(key, value);
  expect(other.lookup(key, found)).toBe(true);
  expect(found).toEqual(value);
  expect(() => other.update(key, value, 1)).toThrow('EEXIST');
  expect(() => other.update(podKey(2n), value, 2)).toThrow('ENOENT');
  other.update(podKey(2n), value);
  expect(new Set(counters.keys().map((entry) => entry.readBigUInt64LE()))).toEqual(new Set([1n, 2n]));
  expect(counters.delete(key)).toBe(true);
  expect(other.delete(key)).toBe(false);
  other.delete(podKey(2n));
  expect(counters.keys()).toEqual([]);
  other.close();
});

test('too few bytes never reach the kernel', () => {
  const { counters } = mesh.maps;
  expect(() => counters.lookup(key, Buffer.alloc(127))).toThrow('has 128 bytes, not 127');
  expect(() => counters.update(key, Buffer.alloc(0))).toThrow(RangeError);
  expect(() => counters.delete(Buffer.alloc(7))).toThrow('has 8 bytes, not 7');
});

test('a closed map takes nothing any more, whoever has its descriptor by now', () => {
  const path = mapPath(bed.directory, 'counters');
  const map = BpfMap.openPinned(path, MAPS.counters);
  map.close();
  map.close();
  expect(() => map.update(key, value)).toThrow(`map ${path} is closed`);
  expect(() => map.keys()).toThrow(BpfError);
  expect(() => map.fd).toThrow('is closed');
});

test('a map that is not there says who would make it', () => {
  const path = mapPath(`${bed.directory}-none`, 'pods');
  expect(() => BpfMap.openPinned(path, MAPS.pods)).toThrow(
    `open map ${path}: ENOENT: no such file or directory (no node agent of this version has made it)`,
  );
});

test('a map of another shape is refused', () => {
  expect(() => BpfMap.openPinned(mapPath(bed.directory, 'pods'), { ...MAPS.pods, value: 44 })).toThrow(
    'is another one (value 40 instead of 44)',
  );
});

test('a full map says which, and what helps', () => {
  const fill = (): void => {
    for (let entry = 0; ; entry++)
      mesh.maps.counters.update(podKey(BigInt(entry)), Buffer.alloc(SIZES.counters));
  };
  expect(fill).toThrow(BpfError);
  expect(fill).toThrow(
    `write to map ${mapPath(bed.directory, 'counters')}: E2BIG: argument list too long (it is full with its 4096 entries: run fewer pods on this machine)`,
  );
  expect(mesh.maps.counters.keys()).toHaveLength(4096);
  for (const entry of mesh.maps.counters.keys()) mesh.maps.counters.delete(entry);
});
