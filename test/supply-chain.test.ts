import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

/** What may be in the lock file: it is what every installation gets. */

interface LockedPackage {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly license?: string;
  readonly hasInstallScript?: boolean;
  readonly dev?: boolean;
}

const LOCK = JSON.parse(readFileSync(join(import.meta.dirname, '../package-lock.json'), 'utf8')) as {
  readonly packages: Readonly<Record<string, LockedPackage>>;
};
const MANIFEST = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as Readonly<
  Record<'dependencies' | 'devDependencies' | 'optionalDependencies', Readonly<Record<string, string>>>
>;
const PACKAGES = Object.entries(LOCK.packages).filter(([path]) => path !== '');

const LICENSES = new Set([
  'MIT',
  'ISC',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  '0BSD',
  'BlueOak-1.0.0',
  'Unlicense',
]);

/** Terms for what only our tests run, unchanged: of a part of vitest's. */
const OF_TOOLS: ReadonlySet<string> = new Set(['MPL-2.0']);

/** With a script that npm would run when it installs. npm asks before it does, and none of them has to run. */
const SCRIPTS: ReadonlySet<string> = new Set([
  'node_modules/@bufbuild/buf',
  'node_modules/koffi',
  'node_modules/protobufjs',
]);

test('every package is under terms that allow what we do with it', () => {
  const others = PACKAGES.filter(
    ([, { license = '', dev }]) => !isAllowed(license) && !(dev === true && OF_TOOLS.has(license)),
  );
  expect(others.map(([path, { license }]) => `${path}: ${license}`)).toEqual([]);
});

test('no package but those known runs a script when it is installed', () => {
  const scripted = PACKAGES.filter(
    ([path, { hasInstallScript }]) => hasInstallScript === true && !SCRIPTS.has(path),
  );
  expect(scripted.map(([path]) => path)).toEqual([]);
});

test('every package is pinned by its contents, and by no address', () => {
  expect(
    PACKAGES.filter(([, { integrity }]) => !/^sha512-/.test(integrity ?? '')).map(([path]) => path),
  ).toEqual([]);
  expect(PACKAGES.filter(([, { resolved }]) => resolved !== undefined).map(([path]) => path)).toEqual([]);
});

test('what we depend on is named by exact version', () => {
  const { dependencies, devDependencies, optionalDependencies } = MANIFEST;
  for (const [name, version] of Object.entries({
    ...dependencies,
    ...devDependencies,
    ...optionalDependencies,
  }))
    expect([name, version]).toEqual([name, expect.stringMatching(/^\d+\.\d+\.\d+$/)]);
});

/** `(MIT OR GPL-3.0)` allows what MIT allows; `A AND B` wants both. */
function isAllowed(license: string | undefined): boolean {
  const terms = (license ?? '').replace(/[()]/g, '');
  return terms
    .split(' OR ')
    .some((choice) => choice.split(' AND ').every((term) => LICENSES.has(term.trim())));
}
