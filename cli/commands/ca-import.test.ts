import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { splitPem } from '#certs/pem.ts';
import { describeError } from '../cli-error.ts';
import { readImport } from './ca-import.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-ca-import-'));
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-subj',
    '/CN=a',
  );
  openssl(
    'pkcs12',
    '-export',
    '-in',
    'ca.pem',
    '-inkey',
    'ca.key',
    '-out',
    'ca.p12',
    '-passout',
    'pass:secret',
  );
  writeFileSync(at('both.pem'), read('ca.pem') + read('ca.key'));
  writeFileSync(at('password'), 'secret\n');
  writeFileSync(at('other'), 'other\n');
});

afterAll(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => resolve(folder, name);
const pathsOf = (flags: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(flags).map(([flag, name]) => [flag, at(name)]));
const read = (name: string): string => readFileSync(at(name), 'utf8');

function openssl(...args: readonly string[]): void {
  execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
}

test.each([
  { what: 'two files', flags: { cert: 'ca.pem', key: 'ca.key' } },
  { what: 'one file', flags: { cert: 'both.pem' } },
  { what: 'PKCS#12', flags: { cert: 'ca.p12', passwordFile: 'password' } },
])('a certificate and its key are read from $what', ({ flags }) => {
  const paths = pathsOf(flags);
  const { certificatePem, keyPem } = readImport({ cert: '', ...paths });
  expect(splitPem(certificatePem)[0]?.replaceAll(/\s/g, '')).toBe(read('ca.pem').replaceAll(/\s/g, ''));
  expect(keyPem).toContain('PRIVATE KEY');
});

test('what is wrong with a PKCS#12 file is said once', () => {
  let shown = '';
  try {
    readImport({ cert: at('ca.p12'), passwordFile: at('other') });
  } catch (error) {
    shown = describeError(error);
  }
  expect(shown).toMatch(/--password-file: it cannot be opened/);
  expect(shown.match(/cannot be opened|MAC could not be verified/g)).toHaveLength(2);
});

test.each([
  { what: 'the key is missing', flags: { cert: 'ca.pem' }, exitCode: 2, message: /--key is missing/ },
  {
    what: 'the password is another',
    flags: { cert: 'ca.p12', passwordFile: 'other' },
    exitCode: 1,
    message: /--cert .*ca\.p12.*--password-file/,
  },
  {
    what: 'PKCS#12 comes with a key beside it',
    flags: { cert: 'ca.p12', key: 'ca.key' },
    exitCode: 2,
    message: /leave --key out/,
  },
  {
    what: 'a file is not there',
    flags: { cert: 'none' },
    exitCode: 1,
    message: /--cert .*none cannot be read/,
  },
  {
    what: 'a file never ends',
    flags: { cert: '/dev/zero' },
    exitCode: 1,
    message: /--cert \/dev\/zero has more than 1 MiB/,
  },
  {
    what: 'a password never ends',
    flags: { cert: 'ca.p12', passwordFile: '/dev/zero' },
    exitCode: 1,
    message: /--password-file \/dev\/zero has more than 1 MiB/,
  },
])('it is said when $what', ({ flags, exitCode, message }) => {
  const paths = pathsOf(flags);
  expect(() => readImport({ cert: '', ...paths })).toThrow(
    expect.objectContaining({ exitCode, message: expect.stringMatching(message) }),
  );
});
