import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Metadata } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openNodeTokens } from './node-tokens.ts';

const TOKEN = 'x'.repeat(43);
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-tokens-'));
  write('n1', TOKEN);
  write('n2', 'y'.repeat(43));
});

afterEach(() => rmSync(directory, { recursive: true }));

test('a token says which node it is of', () => {
  const tokens = openNodeTokens(directory);
  expect(tokens.authenticate(bearer(TOKEN))).toEqual({ kind: 'node', node: 'n1' });
  expect(tokens.authenticate(bearer('y'.repeat(43)))).toEqual({ kind: 'node', node: 'n2' });
  expect(tokens.nodes()).toEqual(['n1', 'n2']);
});

test('a line break at the end of a token file is not part of the token', () => {
  write('n1', `${TOKEN}\n`);
  expect(openNodeTokens(directory).authenticate(bearer(TOKEN))).toEqual({ kind: 'node', node: 'n1' });
});

test.each([
  { when: 'there is none', headers: [], reason: /^no authorization header/ },
  { when: 'there are two', headers: [`Bearer ${TOKEN}`, `Bearer ${TOKEN}`], reason: /or several$/ },
  { when: 'it is not a bearer token', headers: [`bearer ${TOKEN}`], reason: /not a bearer token/ },
  { when: 'it is empty', headers: ['Bearer '], reason: /of no node/ },
  { when: 'it is a part of one', headers: [`Bearer ${TOKEN.slice(1)}`], reason: /of no node/ },
  { when: 'it is longer than one', headers: [`Bearer ${TOKEN}x`], reason: /of no node/ },
  { when: 'it is endless', headers: [`Bearer ${'x'.repeat(5000)}`], reason: /too long/ },
])('a credential is refused when $when', ({ headers, reason }) => {
  const metadata = new Metadata();
  for (const header of headers) metadata.add('authorization', header);
  expect(openNodeTokens(directory).authenticate(metadata)).toEqual({
    kind: 'refused',
    reason: expect.stringMatching(reason),
  });
});

test('a token that is replaced or removed is refused from then on', () => {
  const tokens = openNodeTokens(directory);
  expect(tokens.authenticate(bearer(TOKEN)).kind).toBe('node');
  write('n1', 'z'.repeat(43));
  expect(tokens.authenticate(bearer(TOKEN)).kind).toBe('refused');
  expect(tokens.authenticate(bearer('z'.repeat(43)))).toEqual({ kind: 'node', node: 'n1' });
  rmSync(join(directory, 'n1'));
  expect(tokens.authenticate(bearer('z'.repeat(43))).kind).toBe('refused');
});

test('an empty or short file is no credential, and neither is one that is being written', () => {
  write('n3', '');
  write('n4', 'short');
  write('.n5.tmp', 'w'.repeat(43));
  const tokens = openNodeTokens(directory);
  expect(['', 'short', 'w'.repeat(43)].map((token) => tokens.authenticate(bearer(token)).kind)).toEqual([
    'refused',
    'refused',
    'refused',
  ]);
});

test('without the folder everyone is refused, with the reason', () => {
  const tokens = openNodeTokens(join(directory, 'nothing'));
  expect(tokens.authenticate(bearer(TOKEN))).toMatchObject({
    reason: expect.stringMatching(/cannot read the tokens/),
  });
  expect(tokens.nodes()).toEqual([]);
});

function write(node: string, token: string): void {
  writeFileSync(join(directory, '.new'), token);
  renameSync(join(directory, '.new'), join(directory, node));
}

function bearer(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}
