import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Metadata } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { formatCaller, openCallerTokens } from './caller-tokens.ts';

const TOKEN = 'x'.repeat(43);
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-tokens-'));
  mkdirSync(join(directory, 'waypoints'));
  write('n1', TOKEN);
  write('n2', 'y'.repeat(43));
});

afterEach(() => rmSync(directory, { recursive: true }));

test('a token says which node it is of', () => {
  const tokens = openCallerTokens(directory);
  expect(tokens.authenticate(bearer(TOKEN))).toEqual({ kind: 'node', node: 'n1' });
  expect(tokens.authenticate(bearer('y'.repeat(43)))).toEqual({ kind: 'node', node: 'n2' });
  expect(tokens.callers()).toEqual([
    { kind: 'node', node: 'n1' },
    { kind: 'node', node: 'n2' },
  ]);
});

test('a line break at the end of a token file is not part of the token', () => {
  write('n1', `${TOKEN}\n`);
  expect(openCallerTokens(directory).authenticate(bearer(TOKEN))).toEqual({ kind: 'node', node: 'n1' });
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
  expect(openCallerTokens(directory).authenticate(metadata)).toEqual({
    kind: 'refused',
    reason: expect.stringMatching(reason),
  });
});

test('a token that is replaced or removed is refused from then on', () => {
  const tokens = openCallerTokens(directory);
  expect(tokens.authenticate(bearer(TOKEN)).kind).toBe('node');
  write('n1', 'z'.repeat(43));
  expect(tokens.authenticate(bearer(TOKEN)).kind).toBe('refused');
  expect(tokens.authenticate(bearer('z'.repeat(43)))).toEqual({ kind: 'node', node: 'n1' });
  rmSync(join(directory, 'n1'));
  expect(tokens.authenticate(bearer('z'.repeat(43))).kind).toBe('refused');
});

test('a waypoint is known by a file of its own folder, and is never taken for a node of that name', () => {
  write('waypoints/shop_gate', 'g'.repeat(43));
  write('waypoints/shop_gate.v2', 'h'.repeat(43));
  write('gate', 'i'.repeat(43));
  const tokens = openCallerTokens(directory);
  const gate = { kind: 'waypoint', namespace: 'shop', name: 'gate' };
  expect(tokens.authenticate(bearer('g'.repeat(43)))).toEqual(gate);
  expect(tokens.authenticate(bearer('h'.repeat(43)))).toEqual({ ...gate, name: 'gate.v2' });
  expect(tokens.authenticate(bearer('i'.repeat(43)))).toEqual({ kind: 'node', node: 'gate' });
  expect(tokens.callers().map(formatCaller)).toEqual([
    'node/gate',
    'node/n1',
    'node/n2',
    'waypoint/shop/gate',
    'waypoint/shop/gate.v2',
  ]);
  rmSync(join(directory, 'waypoints/shop_gate'));
  expect(tokens.authenticate(bearer('g'.repeat(43))).kind).toBe('refused');
});

test.each(['gate', 'Shop_gate', 'shop_', '_gate', 'a_b_c', '.shop_gate.1', 'shop.x_gate'])(
  'a file %s is of no waypoint',
  (file) => {
    write(`waypoints/${file}`, 'g'.repeat(43));
    expect(openCallerTokens(directory).authenticate(bearer('g'.repeat(43))).kind).toBe('refused');
  },
);

test('a token that two have is of neither, and both are named', () => {
  write('waypoints/shop_gate', TOKEN);
  expect(openCallerTokens(directory).authenticate(bearer(TOKEN))).toEqual({
    kind: 'refused',
    reason: 'the token is of several: node/n1, waypoint/shop/gate; each has to have its own',
  });
});

test('an empty or short file is no credential, and neither is one that is being written', () => {
  write('n3', '');
  write('n4', 'short');
  write('.n5.tmp', 'w'.repeat(43));
  const tokens = openCallerTokens(directory);
  expect(['', 'short', 'w'.repeat(43)].map((token) => tokens.authenticate(bearer(token)).kind)).toEqual([
    'refused',
    'refused',
    'refused',
  ]);
});

test('without the folder everyone is refused, with the reason', () => {
  const tokens = openCallerTokens(join(directory, 'nothing'));
  expect(tokens.authenticate(bearer(TOKEN))).toMatchObject({
    reason: expect.stringMatching(/cannot read the tokens/),
  });
  expect(tokens.callers()).toEqual([]);
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
