import pino from 'pino';
import { expect, test } from 'vitest';
import { createRefusalLog } from './refusal-log.ts';

test('ten refusals a second are written, and the next line counts the others', () => {
  const lines: Record<string, unknown>[] = [];
  let nowMs = 5_000;
  const logger = pino({}, { write: (line) => void lines.push(JSON.parse(line)) });
  const log = createRefusalLog(logger, undefined, () => nowMs);
  for (let i = 0; i < 25; i += 1) log.write({ peer: i });
  expect(lines.map(({ peer }) => peer)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  nowMs = 6_000;
  log.write({ peer: 'later' });
  log.write({ peer: 'last' });
  expect(lines.slice(10)).toEqual([
    expect.objectContaining({ peer: 'later', omitted: 15, msg: 'client not authenticated' }),
    expect.not.objectContaining({ omitted: expect.anything() }),
  ]);
});
