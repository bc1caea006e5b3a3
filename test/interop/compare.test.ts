import { expect, test } from 'vitest';
import { type Case, get, type Observation } from './case.ts';
import { differencesOf, unmetOf } from './compare.ts';

const ANSWER: Observation = {
  status: 200,
  headers: [['x-upstream', 'a']],
  body: 'hello',
  trailers: [],
  earlier: [],
  end: 'complete',
  ms: 5,
  seen: [],
};
const CASE: Case = { name: 'a case', to: 'a', send: get('/'), expect: { status: 200 } };
const TEAPOT: Observation = { ...ANSWER, status: 418 };

test.each<{ when: string; ours: Partial<Observation>; lines: readonly string[] }>([
  { when: 'nothing differs', ours: {}, lines: [] },
  { when: 'the time differs', ours: { ms: 9, headers: [...ANSWER.headers, ['date', 'now']] }, lines: [] },
  { when: 'the body differs', ours: { body: 'bye' }, lines: ['a case: body: envoy="hello" ours="bye"'] },
  {
    when: 'a header is missing',
    ours: { headers: [...ANSWER.headers, ['x-more', '1']] },
    lines: ['a case: headers: envoy="" ours="x-more: 1"'],
  },
  {
    when: 'a list comes in lines',
    ours: {
      headers: [
        ['x-upstream', 'a'],
        ['date', 'now'],
      ],
    },
    lines: [],
  },
  {
    when: 'another answers, with a status that is its own',
    ours: { status: 418, body: 'bye', headers: [] },
    lines: ['a case: status: envoy="200" ours="418"', 'a case: upstream: envoy="a" ours="none"'],
  },
])('differences where $when', ({ ours, lines }) => {
  expect(differencesOf(CASE, ANSWER, { ...ANSWER, ...ours })).toEqual(lines);
});

const differs: Case = {
  ...CASE,
  differs: { because: 'of tea', aspects: ['status'], envoy: {}, ours: { status: 418 } },
};

test('a difference on purpose is none', () => {
  expect(differencesOf(differs, ANSWER, TEAPOT)).toEqual([]);
  expect(unmetOf('ours', differs, TEAPOT)).toEqual([]);
});

test('a difference on purpose that is gone is noticed from both sides', () => {
  expect(differencesOf(differs, ANSWER, ANSWER)).toEqual([
    'a case: the two agree, though they are said to differ because of tea',
  ]);
  expect(unmetOf('ours', differs, ANSWER)).toEqual(['a case: ours: status: wanted 418, got 200']);
});
