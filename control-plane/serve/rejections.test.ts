import { expect, test } from 'vitest';
import { readRejections } from './rejections.ts';
import type { ServedResource } from './served-view.ts';

test.each([
  {
    when: 'a ztunnel names them',
    error: 'a: is odd; b: has two; faults',
    rejected: { a: 'is odd', b: 'has two; faults' },
  },
  {
    when: 'an Envoy names one of them',
    error: 'Error adding/updating cluster(s) b: no such policy',
    rejected: { b: 'Error adding/updating cluster(s) b: no such policy' },
  },
  {
    when: 'an Envoy names several, one of which ends like another',
    error: 'Error adding/updating listener(s) x|a: bad address, b: bad port',
    rejected: {
      b: 'Error adding/updating listener(s) x|a: bad address, b: bad port',
      'x|a': 'Error adding/updating listener(s) x|a: bad address, b: bad port',
    },
  },
  {
    when: 'it names none',
    error: 'Invalid duration',
    rejected: { a: 'Invalid duration', b: 'Invalid duration', 'x|a': 'Invalid duration' },
  },
])('what a NACK rejects is known when $when', ({ error, rejected }) => {
  const found = readRejections(['a', 'b', 'x|a'].map(resource), error);
  expect(Object.fromEntries([...found].map(([{ name }, reason]) => [name, reason]))).toEqual(rejected);
});

function resource(name: string): ServedResource {
  return { name, version: '1', value: new Uint8Array(), field: new Uint8Array() };
}
