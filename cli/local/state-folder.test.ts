import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  createStateFolder,
  deletedStateFolder,
  ensureToken,
  findStateFolder,
  writeAtomic,
} from './state-folder.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-state-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test('a new folder is readable for its owner only', () => {
  const state = createStateFolder(join(folder, 'a', 'state'));
  expect(statSync(state.path).mode & 0o777).toBe(0o700);
});

test('a folder that holds something else is refused and left as it is', () => {
  const other = join(folder, 'other');
  mkdirSync(other, { mode: 0o755 });
  writeFileSync(join(other, 'thesis.txt'), 'x');
  expect(() => createStateFolder(other)).toThrow(/is not a state folder: it holds thesis.txt/);
  expect(statSync(other).mode & 0o777).toBe(0o755);
});

test('a mesh has the same name through a link to its folder', () => {
  const state = createStateFolder(join(folder, 'state'));
  symlinkSync(state.path, join(folder, 'link'));
  expect(findStateFolder(join(folder, 'link'))).toEqual(state);
});

test('a folder that is not there is not found', () => {
  expect(findStateFolder(join(folder, 'nowhere'))).toBeUndefined();
});

test('a folder that tulle did not make is neither taken nor taken down, whatever its folders are called', () => {
  mkdirSync(join(folder, 'run'));
  mkdirSync(join(folder, 'pods'));
  expect(() => createStateFolder(folder)).toThrow(/is not a state folder: it holds pods/);
  expect(findStateFolder(folder)).toBeUndefined();
});

test('a folder with nothing but an authority may become the state', () => {
  mkdirSync(join(folder, 'ca'));
  writeFileSync(join(folder, 'ca', 'root.pem'), 'x');
  expect(findStateFolder(createStateFolder(folder).path)).toBeDefined();
});

test('a file is replaced whole', () => {
  const file = join(folder, 'x.json');
  writeAtomic(file, 'one');
  writeAtomic(file, 'two');
  expect(readFileSync(file, 'utf8')).toBe('two');
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

test('a credential is made once, and again when half of it was lost', () => {
  const file = join(folder, 'n1');
  ensureToken(file);
  const made = readFileSync(file, 'utf8');
  expect(made.length).toBeGreaterThan(32);
  ensureToken(file);
  expect(readFileSync(file, 'utf8')).toBe(made);
  for (const lost of ['', made.slice(0, 20), '\0'.repeat(43)]) {
    writeFileSync(file, lost);
    ensureToken(file);
    expect(readFileSync(file, 'utf8')).toMatch(/^[A-Za-z0-9_-]{43}$/);
  }
});

test('a mesh keeps its name when its folder is deleted', () => {
  const state = createStateFolder(join(folder, 'state'));
  symlinkSync(folder, join(folder, 'link'));
  rmSync(state.path, { recursive: true });
  expect(deletedStateFolder(join(folder, 'link', 'state'))).toEqual(state);
});
