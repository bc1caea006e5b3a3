import { describe, expect, test } from 'vitest';
import { grpcStatusOf, isGrpc } from './grpc.ts';
import { hashKey } from './hash-key.ts';
import { cookieValue, mutateHeaders } from './headers.ts';

const NONE = { set: [], add: [], remove: [] };

test.each([
  ['sets', { ...NONE, set: [['x-a', '9']] }, ['x-b', '2', 'x-a', '9']],
  [
    'sets what is not there',
    { ...NONE, set: [['x-c', '9']] },
    ['x-a', '1', 'x-b', '2', 'x-a', '3', 'x-c', '9'],
  ],
  ['adds a line', { ...NONE, add: [['x-a', '9']] }, ['x-a', '1', 'x-b', '2', 'x-a', '3', 'x-a', '9']],
  ['removes', { ...NONE, remove: ['x-a', 'x-z'] }, ['x-b', '2']],
  ['removes before it adds', { ...NONE, remove: ['x-a'], add: [['x-a', '9']] }, ['x-b', '2', 'x-a', '9']],
] as const)('a mutation %s', (_, mutation, wanted) => {
  expect(mutateHeaders(['x-a', '1', 'x-b', '2', 'x-a', '3'], [mutation])).toEqual(wanted);
});

test('of two mutations of a name the last counts, and none leaves the list as it is', () => {
  const headers = ['x-a', '1'];
  const mutations = ['2', '3'].map((value) => ({ ...NONE, set: [['x-a', value]] as const }));
  expect(mutateHeaders(headers, mutations)).toEqual(['x-a', '3']);
  expect(mutateHeaders(headers, [NONE, NONE])).toBe(headers);
});

test.each([
  ['s=1', '1'],
  ['a=b; s=1; s=2', '1'],
  ['s="x=y"', 'x=y'],
  ['ss=1; as=2', undefined],
  ['s', undefined],
])('the cookie s of %s is %s', (text, wanted) => {
  expect(cookieValue(['cookie', text], 's')).toBe(wanted);
});

describe('gRPC', () => {
  test.each([
    ['application/grpc', true],
    ['application/grpc+proto', true],
    ['application/grpc;charset=utf-8', false],
    ['application/grpc-web', false],
    ['application/json', false],
  ])('has the content-type %s: %s', (type, wanted) => {
    expect(isGrpc(['content-type', type])).toBe(wanted);
  });

  test.each([
    [400, 13],
    [401, 16],
    [403, 7],
    [404, 12],
    [429, 14],
    [500, 2],
    [502, 14],
    [503, 14],
    [504, 14],
  ])('hears of %d as %d', (status, wanted) => {
    expect(grpcStatusOf(status)).toBe(wanted);
  });
});

test('the hash key is the first source that is there', () => {
  const request = { headers: ['x-user', 'ann', 'cookie', 'u=bob'], query: '?u=cid', callerIp: '10.1.0.9' };
  const header = { kind: 'header', name: 'x-user' } as const;
  const absent = { kind: 'header', name: 'x-none' } as const;
  expect(hashKey([absent, header], request)).toBe('ann');
  expect(hashKey([{ kind: 'cookie', name: 'u' }, header], request)).toBe('bob');
  expect(hashKey([{ kind: 'query', name: 'u' }], request)).toBe('cid');
  expect(hashKey([absent, { kind: 'source' }], request)).toBe('10.1.0.9');
  expect(hashKey([absent], request)).toBeUndefined();
});
