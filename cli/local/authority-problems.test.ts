import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { makeSigningFiles } from '#certs/make-authority.ts';
import { type AuthorityCertificate, authorityProblems, readSigningAuthority } from './authority-problems.ts';

const DAY_MS = 24 * 3_600_000;
const NOON = Date.parse('2026-01-01T12:00:00Z');

function certificate(
  role: AuthorityCertificate['role'],
  lifeDays: number,
  leftDays: number,
): AuthorityCertificate {
  const notAfterMs = NOON + leftDays * DAY_MS;
  return { role, subject: 'CN=it', serial: '4a', notBeforeMs: notAfterMs - lifeDays * DAY_MS, notAfterMs };
}

test.each([
  { of: 'ten years says so 30 days before', lifeDays: 3650, left: [30, 29.9] },
  { of: 'a hundred days says so ten days before', lifeDays: 100, left: [10, 9.9] },
])('an authority of $of', ({ lifeDays, left: [early = 0, late = 0] }) => {
  expect(authorityProblems([certificate('root', lifeDays, early)], NOON)).toEqual([]);
  expect(authorityProblems([certificate('root', lifeDays, late)], NOON)).toMatchObject([
    { object: 'authority', severity: 'warning', effect: 'every certificate ends with it' },
  ]);
});

test('of a root and an intermediate the one that ends first is told', () => {
  const both = [certificate('root', 3650, 20), certificate('issuing certificate', 365, 5)];
  expect(authorityProblems(both, NOON).map(({ message }) => message)).toEqual([
    'its issuing certificate 4a (CN=it) ends at 2026-01-06T12:00:00Z: tulle ca rotate, or tulle ca import of a new one, before that',
  ]);
});

test('one that has ended is an error', () => {
  expect(authorityProblems([certificate('root', 3650, 0)], NOON)).toMatchObject([
    {
      severity: 'error',
      message: expect.stringMatching(/ root 4a \(CN=it\) ended at 2026-01-01T12:00:00Z: /),
    },
  ]);
});

test('it is read from the files, also where no control plane runs', async () => {
  const path = mkdtempSync(join(tmpdir(), 'authority-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  const state = { path, mesh: 'tulle-123456' };
  expect(readSigningAuthority(state)).toEqual([]);
  const { rootPem, issuingPem } = await makeSigningFiles('cluster.local', NOON);
  mkdirSync(join(path, 'ca'));
  writeFileSync(join(path, 'ca', 'root.pem'), rootPem);
  // As of an imported root that signs itself.
  writeFileSync(join(path, 'ca', 'issuing.pem'), `${issuingPem}${rootPem}`);
  const authority = readSigningAuthority(state);
  expect(authority.map(({ role }) => role)).toEqual(['root', 'issuing certificate']);
  const end = authority[0]?.notAfterMs ?? 0;
  expect(authorityProblems(authority, end - 31 * DAY_MS)).toEqual([]);
  expect(authorityProblems(authority, end)).toMatchObject([{ severity: 'error' }]);
});
