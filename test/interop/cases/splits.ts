import { type Case, get, grpc } from '../case.ts';

/** Many equal requests, and how they are shared out. */
export interface Split {
  readonly name: string;
  readonly to: string;
  readonly send: Case['send'];
  readonly count: number;
  /** What is counted: who answered, with which status, or what got a mirror. */
  readonly of: 'upstream' | 'status' | 'mirror';
  /** Shares, whose sum is 1 but for mirrors. */
  readonly shares: Readonly<Record<string, number>>;
  /** Ours is not random: each count is within one of its share. */
  readonly isExact: boolean;
}

const weights = (
  name: string,
  path: string,
  shares: Split['shares'],
  of: Split['of'] = 'upstream',
  count = 100,
): Split => ({
  name,
  to: 'weights',
  send: get(path),
  count,
  of,
  shares,
  isExact: true,
});

export const SPLITS: readonly Split[] = [
  weights('70, 30 and 0', '/seventy', { a: 0.7, b: 0.3, c: 0 }, 'upstream', 300),
  weights('equal thirds', '/thirds', { a: 1 / 3, b: 1 / 3, c: 1 / 3 }, 'upstream', 90),
  weights('nothing for the first', '/zero', { a: 0, b: 1 }, 'upstream', 30),
  weights('nothing for anybody', '/all-zero', { 500: 1 }, 'status', 10),
  weights('a missing service with weight 0', '/missing-zero', { 200: 1 }, 'status', 30),
  weights('a missing service with half of it', '/missing-half', { 200: 0.5, 500: 0.5 }, 'status'),
  weights('a service without endpoints with half of it', '/empty-half', { 200: 0.5, 503: 0.5 }, 'status'),
  weights('one of a thousand', '/tiny', { a: 0.999, b: 0.001 }),
  weights('the largest weights', '/large', { a: 0.5, b: 0.5 }),
  { ...weights('gRPC', '', { 'grpc-a': 0.7, 'grpc-b': 0.3 }), to: 'grpc', send: grpc('/echo.Weights/X') },
  {
    ...weights('half of the faults', '', { 200: 0.5, 418: 0.5 }, 'status', 200),
    to: 'faults',
    send: get('/abort-half'),
    isExact: false,
  },
  {
    ...weights('half of the mirrors', '', { 'mirror-1': 0.5 }, 'mirror', 200),
    to: 'mirror',
    send: get('/half'),
    isExact: false,
  },
  {
    ...weights('a quarter of the mirrors', '', { 'mirror-1': 0.25 }, 'mirror', 200),
    to: 'mirror',
    send: get('/fraction'),
    isExact: false,
  },
];
