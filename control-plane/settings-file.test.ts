import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DEFAULT_SETTINGS } from './derive/settings.ts';
import { openSettingsFile, SettingsFileError } from './settings-file.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-settings-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test('settings are there again after a restart', () => {
  const path = join(folder, 'config', 'settings.json');
  expect(openSettingsFile(path).current()).toBeUndefined();
  const settings = { ...DEFAULT_SETTINGS, rootNamespace: 'mesh-root' };
  openSettingsFile(path).save(settings);
  expect(openSettingsFile(path).current()).toEqual(settings);
});

test('a file that is no JSON is named, and not taken for the defaults', () => {
  const path = join(folder, 'settings.json');
  writeFileSync(path, '{');
  expect(() => openSettingsFile(path)).toThrow(SettingsFileError);
});
