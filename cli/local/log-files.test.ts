import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { boundLogs } from './log-files.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-logs-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A log as a process has it open. */
function openLog(name: string): (text: string) => void {
  const fd = openSync(join(folder, name), 'a', 0o600);
  return (text) => void writeSync(fd, text);
}
const read = (name: string): string => readFileSync(join(folder, name), 'utf8');

test('a log that is too long is kept once, and whoever has it open writes on', () => {
  mkdirSync(join(folder, 'n1'));
  const write = openLog('n1/access.jsonl');
  for (const text of ['first', 'second', 'third']) {
    write(`${text} `.repeat(20));
    expect(boundLogs(folder, 100)).toBeUndefined();
  }
  write('last');
  expect(read('n1/access.jsonl.1')).toBe('third '.repeat(20));
  expect(read('n1/access.jsonl')).toBe('last');
});

test('one that is short enough stays as it is, and so does what is no log', () => {
  openLog('a.log')('short');
  openLog('notes.txt')('long '.repeat(50));
  expect(boundLogs(folder, 100)).toBeUndefined();
  expect([read('a.log'), existsSync(join(folder, 'a.log.1')), read('notes.txt').length]).toEqual([
    'short',
    false,
    250,
  ]);
});

test('where no copy can be made, the log is emptied all the same, and that is said', () => {
  openLog('a.log')('long '.repeat(50));
  mkdirSync(join(folder, 'a.log.1.new'));
  expect(boundLogs(folder, 100)).toMatch(/a\.log was emptied, and not kept: EISDIR/);
  expect(read('a.log')).toBe('');
});
