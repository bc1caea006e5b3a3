import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Bed, openBed } from './bed.ts';
import { type Case, get } from './case.ts';
import { ANSWERS } from './cases/answers.ts';
import { FAULTS } from './cases/faults.ts';
import { HEADERS } from './cases/header-filters.ts';
import { MATCHING, ORDER, REGEX } from './cases/matching.ts';
import { FORGED, MESSAGES } from './cases/messages.ts';
import { CORS, MIRRORS } from './cases/mirrors-and-cors.ts';
import { PATHS } from './cases/paths.ts';
import { GRPC, PROTOCOLS } from './cases/protocols.ts';
import { REDIRECTS, REWRITES } from './cases/redirects.ts';
import { REFERENCES } from './cases/references.ts';
import { RETRIES } from './cases/retries.ts';
import { SELDOM } from './cases/seldom.ts';
import { SPLITS } from './cases/splits.ts';
import { STREAMS } from './cases/streams.ts';
import { TIMEOUTS } from './cases/timeouts.ts';
import { differencesOf, type Side, unmetOf } from './compare.ts';
import { inParallel } from './in-parallel.ts';
import { cookieOf, hostOf, hostsOf } from './sessions.ts';
import { missed } from './splits.ts';

const GROUPS: readonly (readonly [string, readonly Case[]])[] = [
  ['matching', MATCHING],
  ['order of rules', ORDER],
  ['regular expressions', REGEX],
  ['header filters', HEADERS],
  ['redirects', REDIRECTS],
  ['rewrites', REWRITES],
  ['mirrors', MIRRORS],
  ['CORS', CORS],
  ['references', REFERENCES],
  ['timeouts', TIMEOUTS],
  ['retries', RETRIES],
  ['faults', FAULTS],
  ['gRPC', GRPC],
  ['versions of HTTP', PROTOCOLS],
  ['hostile paths', PATHS],
  ['hostile messages', MESSAGES],
  ['hostile streams of HTTP/2', STREAMS],
  ['forged headers', FORGED],
  ['answers of all kinds', ANSWERS],
  ['what is seldom', SELDOM],
];

const SIDES: readonly Side[] = ['envoy', 'ours'];
/** Requests under way at a time, on each side. */
const WIDTH = 6;

describe('the same configuration in Envoy and in the waypoint', () => {
  let bed: Bed;
  let compared = 0;

  beforeAll(async () => {
    bed = await openBed();
  });

  afterAll(async () => {
    await bed?.[Symbol.asyncDispose]();
  });

  test.each(GROUPS)('%s', async (_name, cases) => {
    const lines = await inParallel(cases, WIDTH, (each) => compare(bed, each));
    compared += cases.length;
    expect(lines.flat()).toEqual([]);
  });

  test.each(SPLITS)('a split: $name', async (split) => {
    expect(await missed(bed, split)).toEqual([]);
  });

  describe.each(SIDES)('sessions of %s', (side) => {
    test.each(['/cookie', '/permanent'])('a cookie keeps its client at one host: %s', async (path) => {
      const name = path === '/cookie' ? 'sticky' : 'long';
      const { first, strangers, faithful } = await hostsOf(bed, side, {
        name: path,
        to: 'session',
        path,
        remember: (answer) => ['cookie', `${name}=${cookieOf(answer, name)?.value}`],
      });
      expect(strangers.size).toBeGreaterThan(1);
      expect(faithful.size).toBe(1);
      const lasting = path === '/permanent' ? ['max-age=3600'] : [];
      expect(cookieOf(first, name)?.attributes).toEqual(['httponly', ...lasting, 'path=/']);
    });

    test('a header keeps its client at one host', async () => {
      const { strangers, faithful } = await hostsOf(bed, side, {
        name: 'header',
        to: 'session',
        path: '/header',
        remember: ({ headers }) => headers.find(([name]) => name === 'x-session'),
      });
      expect(strangers.size).toBeGreaterThan(1);
      expect(faithful.size).toBe(1);
    });

    test('a cookie that nobody gave is replaced', async () => {
      const one: Case = {
        name: 'forged',
        to: 'session',
        send: get('/cookie', { cookie: 'sticky=forged' }),
        expect: {},
      };
      const answer = await bed.ask(side, one);
      expect(answer.status).toBe(200);
      expect(cookieOf(answer, 'sticky')).toBeDefined();
    });

    test('a hash keeps equal keys at one host, and spreads others', async () => {
      const ask = async (user: string): Promise<string> => {
        const one: Case = { name: user, to: 'hash', send: get('/', { 'x-user': user }), expect: {} };
        return hostOf(await bed.ask(side, one));
      };
      const users = Array.from({ length: 24 }, (_, index) => `user-${index}`);
      const [first, again] = [await inParallel(users, WIDTH, ask), await inParallel(users, WIDTH, ask)];
      expect(again).toEqual(first);
      expect(new Set(first).size).toBeGreaterThan(1);
    });
  });

  test('at least 300 different requests were compared', () => {
    const onPurpose = GROUPS.flatMap(([, cases]) => cases).filter(({ differs }) => differs !== undefined);
    process.stdout.write(`${compared} cases compared, ${onPurpose.length} of them differ on purpose\n`);
    expect(compared).toBeGreaterThanOrEqual(300);
  });
});

/** What differs, or does not hold, a line each. */
async function compare(bed: Bed, each: Case): Promise<readonly string[]> {
  try {
    const [envoy, ours] = await Promise.all([bed.ask('envoy', each), bed.ask('ours', each)]);
    const unmet = [...unmetOf('envoy', each, envoy), ...unmetOf('ours', each, ours)];
    return [...unmet, ...differencesOf(each, envoy, ours)];
  } catch (error) {
    return [`${each.name}: ${String(error)}`];
  }
}
