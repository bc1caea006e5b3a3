import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseIdentity } from '#certs/identity.ts';
import { decideRevocation, openRevocations, type Revocation } from './revocations.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const NOW = 1_000_000;
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-revoked-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

const ISSUED = new Map([
  ['4a0b', { serial: '4a0b', identity: WEB, node: 'n1', issuedMs: 0, notBeforeMs: 0, notAfterMs: NOW + 1 }],
  ['4a0c', { serial: '4a0c', identity: WEB, node: 'n1', issuedMs: 0, notBeforeMs: 0, notAfterMs: NOW }],
]);
const decide = (what: string): ReturnType<typeof decideRevocation> =>
  decideRevocation(what, {
    trustDomain: 'cluster.local',
    nowMs: NOW,
    find: (serial) => ISSUED.get(serial),
  });

test.each([
  { what: WEB, revocation: { kind: 'identity', identity: WEB, sinceMs: NOW } },
  ...['4a0b', '4A:0B', '0x4a0b', '004a0b', ' 4a0b '].map((what) => ({
    what,
    revocation: { kind: 'serial', serial: '4a0b', identity: WEB, notAfterMs: NOW + 1, sinceMs: NOW },
  })),
])('$what can be revoked', ({ what, revocation }) => {
  expect(decide(what)).toEqual({ kind: 'accepted', revocation });
});

test.each([
  { what: '', reason: /neither a SPIFFE ID nor a serial number/ },
  { what: 'web', reason: /neither/ },
  { what: 'ffff', reason: /no certificate with the serial number ffff was issued/ },
  { what: '4a0c', reason: /has ended already/ },
  { what: 'spiffe://other.example/ns/shop/sa/web', reason: /not of trust domain cluster.local/ },
  { what: 'spiffe://cluster.local/ns/shop', reason: /./ },
])('$what cannot be revoked', ({ what, reason }) => {
  expect(decide(what)).toMatchObject({ kind: 'refused', reason: expect.stringMatching(reason) });
});

const BY_NAME: Revocation = { kind: 'identity', identity: WEB, sinceMs: NOW };
const BY_SERIAL: Revocation = {
  kind: 'serial',
  serial: '4a0b',
  identity: WEB,
  notAfterMs: NOW + 10,
  sinceMs: NOW,
};

test('what is revoked is kept, for its owner only, until it is taken back or has ended', () => {
  const path = join(folder, 'revoked.json');
  let nowMs = NOW;
  const first = openRevocations(path, () => nowMs);
  first.add(BY_NAME);
  first.add(BY_SERIAL);
  first.add({ ...BY_NAME, sinceMs: NOW + 5 });
  expect(first.current()).toContainEqual(BY_NAME);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const second = openRevocations(path, () => nowMs);
  expect(second.list()).toEqual({ identities: [WEB], serials: ['4a0b'] });
  expect(second.isRevoked(parseIdentity(WEB))).toBe(true);
  nowMs += 10;
  expect(second.list()).toEqual({ identities: [WEB], serials: [] });
  expect(second.remove('spiffe://cluster.local/ns/shop/sa/other')).toBe(false);
  expect(second.remove(WEB)).toBe(true);
  expect(second.isRevoked(parseIdentity(WEB))).toBe(false);
  expect(openRevocations(path, () => nowMs).current()).toEqual([]);
});

test.each(['{', '{}', ''])('a file that holds %j is not taken for an empty list', (text) => {
  const path = join(folder, 'revoked.json');
  writeFileSync(path, text);
  expect(() => openRevocations(path)).toThrow(expect.objectContaining({ code: 'UNREADABLE' }));
});
