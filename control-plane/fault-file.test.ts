import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FaultFileError, faultClock, openFaultFile, type SeenFault, seeFaults } from './fault-file.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-faults-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

test('when a fault was first seen, and that it is over, is the same after a restart', () => {
  const faults = { a: at(1000), b: { seenMs: 500, isOver: true } };
  openFaultFile(path()).save(seen(faults));
  expect(openFaultFile(path()).current()).toEqual(seen(faults));
});

test('without faults there is no file, and one that was there is emptied', () => {
  const file = openFaultFile(path());
  file.save(new Map());
  expect(() => readFileSync(path())).toThrow('ENOENT');
  file.save(seen({ a: at(1) }));
  file.save(new Map());
  expect(readFileSync(path(), 'utf8')).toBe('{}\n');
});

test.each([
  '',
  '[]',
  'null',
  '{"a": "1"}',
  '{"a": {"seenMs": -1, "isOver": false}}',
  '{"a": {"seenMs": 1}}',
  '{"a": 1',
])('a file that says %j is an error, and not the beginning of all faults', (text) => {
  writeFileSync(path(), text);
  expect(() => openFaultFile(path())).toThrow(FaultFileError);
});

test.each([
  { when: 'is new', before: {}, seenMs: 5000 },
  { when: 'was seen before', before: { a: at(1000) }, seenMs: 1000 },
])('a fault that $when counts from $seenMs', ({ before, seenMs }) => {
  const clock = faultClock(seen(before), 5000);
  expect(seeFaults({ keys: ['a'], over: new Set() }, clock)).toEqual(seen({ a: at(seenMs) }));
});

test('a clock that was put back makes no fault last longer, and begins none anew', () => {
  const clock = faultClock(seen({ a: at(9000), b: at(1000), c: { seenMs: 8000, isOver: true } }), 5000);
  expect(clock.firstSeen).toEqual(new Map(Object.entries({ a: 5000, b: 1000, c: 8000 })));
  expect(clock.over).toEqual(new Set(['c']));
});

test('a fault that is gone is forgotten', () => {
  const clock = faultClock(seen({ a: at(1000) }), 5000);
  expect(seeFaults({ keys: ['b'], over: new Set() }, clock)).toEqual(seen({ b: at(5000) }));
});

function at(seenMs: number): SeenFault {
  return { seenMs, isOver: false };
}

function seen(faults: Readonly<Record<string, SeenFault>>): ReadonlyMap<string, SeenFault> {
  return new Map(Object.entries(faults));
}

function path(): string {
  return join(directory, 'faults.json');
}
