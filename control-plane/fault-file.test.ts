import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FaultFileError, noLaterThan, openFaultFile, seeFaults } from './fault-file.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-faults-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

test('when a fault was first seen is the same after a restart', () => {
  openFaultFile(path()).save(new Map([['a', 1000]]));
  expect(openFaultFile(path()).current()).toEqual(new Map([['a', 1000]]));
});

test('without faults there is no file, and one that was there is emptied', () => {
  const file = openFaultFile(path());
  file.save(new Map());
  expect(() => readFileSync(path())).toThrow('ENOENT');
  file.save(new Map([['a', 1]]));
  file.save(new Map());
  expect(readFileSync(path(), 'utf8')).toBe('{}\n');
});

test.each(['', '[]', 'null', '{"a": "1"}', '{"a": -1}', '{"a": 1'])(
  'a file that says %j is an error, and not the beginning of all faults',
  (text) => {
    writeFileSync(path(), text);
    expect(() => openFaultFile(path())).toThrow(FaultFileError);
  },
);

test.each([
  { when: 'is new', before: {}, seen: 5000 },
  { when: 'was seen before', before: { a: 1000 }, seen: 1000 },
])('a fault that $when counts from $seen', ({ before, seen }) => {
  expect(seeFaults(['a'], new Map(Object.entries(before)), 5000)).toEqual(new Map([['a', seen]]));
});

test('a clock that was put back makes no fault last longer', () => {
  const times = new Map(Object.entries({ a: 9000, b: 1000 }));
  expect(noLaterThan(times, 5000)).toEqual(new Map(Object.entries({ a: 5000, b: 1000 })));
});

test('a fault that is gone is forgotten', () => {
  expect(seeFaults(['b'], new Map([['a', 1000]]), 5000)).toEqual(new Map([['b', 5000]]));
});

function path(): string {
  return join(directory, 'faults.json');
}
