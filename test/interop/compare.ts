import type { Aspect, Case, Expectation, Field, Observation, Seen } from './case.ts';
import { isMirror } from './stage/journal.ts';

/** Who was asked. */
export type Side = 'envoy' | 'ours';

/**
 * Headers of answers that are not compared: they say when, how long, by whom and over which connection, which of several
 * equal hosts it was, and which fault (`x-tulle-fault`, which the cases of faults look at).
 */
const OWN_ANSWER_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'date',
  'keep-alive',
  'server',
  'transfer-encoding',
  'x-endpoint',
  'x-tulle-fault',
  'x-envoy-upstream-service-time',
]);

/**
 * Headers of requests that are not compared: names of the case, of the request and of the trace, framing, and what only ours
 * knows, as only ours has a caller with an identity (`x-forwarded-client-cert`).
 */
const OWN_REQUEST_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'traceparent',
  'tracestate',
  'transfer-encoding',
  'x-case',
  'x-envoy-expected-rq-timeout-ms',
  'x-forwarded-client-cert',
  'x-request-id',
]);

/** Further ones of copies: Envoy sends them as requests of its own, and so as if it was their caller. */
const OWN_MIRROR_HEADERS: ReadonlySet<string> = new Set([
  ...OWN_REQUEST_HEADERS,
  'x-envoy-attempt-count',
  'x-envoy-internal',
  'x-forwarded-for',
]);

/** Answers with which a proxy refuses what it was sent: ours says what was wrong, Envoy repeats the name of the status. */
const REFUSALS: ReadonlySet<number> = new Set([400, 403, 413, 417, 426, 431, 501]);
const WORDS: ReadonlySet<string> = new Set([...OWN_ANSWER_HEADERS, 'content-length', 'content-type']);

/** Everything that is compared of an observation, as text. */
export function aspectsOf(observation: Observation): ReadonlyMap<Aspect, string> {
  const { seen, status, end, earlier } = observation;
  const attempts = seen.filter(({ app }) => !isMirror(app));
  const last = attempts.at(-1);
  const mirrored = seen.filter(({ app }) => isMirror(app)).toSorted((a, b) => (a.app < b.app ? -1 : 1));
  const isRefusal = upstreamOf(observation) === undefined && REFUSALS.has(status);
  return new Map<Aspect, string>([
    ['status', `${status}`],
    ['headers', fieldsText(observation.headers, isRefusal ? WORDS : OWN_ANSWER_HEADERS)],
    ['body', isRefusal ? '' : observation.body],
    ['trailers', fieldsText(observation.trailers, new Set())],
    ['end', end],
    ['earlier', earlier.join(' ')],
    ['upstream', upstreamOf(observation) ?? 'none'],
    ['attempts', `${attempts.length}`],
    ['mirrors', mirrorsOf(seen).join(' ')],
    ['seen request', last === undefined ? 'none' : seenText(last, OWN_REQUEST_HEADERS)],
    [
      'mirrored requests',
      mirrored.map((each) => `${each.app} ${seenText(each, OWN_MIRROR_HEADERS)}`).join('\n'),
    ],
  ]);
}

/** What differs between the two, a line each; what differs on purpose is left out. */
export function differencesOf(
  { name, differs, chance }: Case,
  envoy: Observation,
  ours: Observation,
): readonly string[] {
  const other = aspectsOf(ours);
  const all = [...aspectsOf(envoy)].filter(
    ([aspect, text]) => text !== other.get(aspect) && chance?.includes(aspect) !== true,
  );
  const isMeant = ([aspect]: readonly [Aspect, string]): boolean =>
    differs?.aspects.includes(aspect) === true;
  if (differs !== undefined && differs.aspects.length > 0 && !all.some(isMeant))
    return [`${name}: the two agree, though they are said to differ because ${differs.because}`];
  const different = all.filter((each) => !isMeant(each));
  // With another status everything else is another answer's.
  const isOther = different.some(([aspect]) => aspect === 'status');
  return different
    .filter(([aspect]) => !isOther || BRIEF.has(aspect))
    .flatMap(([aspect, text]) =>
      differentLines(aspect, text, other.get(aspect) ?? '').map(
        ([theirs, own]) => `${name}: ${aspect}: envoy=${theirs} ours=${own}`,
      ),
    );
}

const BRIEF: ReadonlySet<Aspect> = new Set<Aspect>(['status', 'upstream', 'attempts', 'end']);
const LISTS: ReadonlySet<Aspect> = new Set<Aspect>([
  'headers',
  'trailers',
  'seen request',
  'mirrored requests',
]);

/** What does not hold on one side, a line each. */
export function unmetOf(
  side: Side,
  { name, expect, differs }: Case,
  observation: Observation,
): readonly string[] {
  const { hosts, ...expectation }: Expectation = { ...expect, ...differs?.[side] };
  return claimsOf(
    side === 'ours' && hosts !== undefined ? { ...expectation, hosts } : expectation,
    observation,
  )
    .filter(({ wanted, got }) => wanted !== got)
    .map(({ what, wanted, got }) => `${name}: ${side}: ${what}: wanted ${show(wanted)}, got ${show(got)}`);
}

interface Claim {
  readonly what: string;
  readonly wanted: unknown;
  readonly got: unknown;
}

function claimsOf(expected: Expectation, observation: Observation): readonly Claim[] {
  const { seen, ms } = observation;
  const attempts = seen.filter(({ app }) => !isMirror(app));
  const last = attempts.at(-1);
  const claim = (what: string, wanted: unknown, got: unknown): readonly Claim[] =>
    wanted === undefined ? [] : [{ what, wanted: text(wanted), got: text(got) }];
  return [
    ...claim('status', expected.status, observation.status),
    ...claim('upstream', expected.upstream, upstreamOf(observation) ?? null),
    ...claim('attempts', expected.attempts, attempts.length),
    ...claim('hosts', expected.hosts, new Set(attempts.map(({ endpoint }) => endpoint)).size),
    ...claim('body', expected.body, observation.body),
    ...claim('end', expected.end, observation.end),
    ...claim('earlier', expected.earlier, observation.earlier),
    ...fieldClaims('header', expected.headers, observation.headers),
    ...fieldClaims('trailer', expected.trailers, observation.trailers),
    ...claim('method at the application', expected.seenMethod, last?.method),
    ...claim('path at the application', expected.seenPath, last?.path),
    ...claim('body at the application', expected.seenBody, last?.body),
    ...fieldClaims('header at the application', expected.seenHeaders, last?.headers ?? []),
    ...claim('mirrors', expected.mirrors, mirrorsOf(seen)),
    ...claim(
      `at least ${expected.atLeastMs} ms`,
      expected.atLeastMs && true,
      ms >= (expected.atLeastMs ?? 0),
    ),
    ...claim(`below ${expected.belowMs} ms (${ms})`, expected.belowMs && true, ms < (expected.belowMs ?? 0)),
  ];
}

function fieldClaims(
  what: string,
  wanted: Readonly<Record<string, string | null>> | undefined,
  fields: readonly Field[],
): readonly Claim[] {
  return Object.entries(wanted ?? {}).map(([name, value]) => {
    const values = fields.filter(([own]) => own === name).map(([, own]) => own);
    return { what: `${what} ${name}`, wanted: value, got: values.length === 0 ? null : values.join(', ') };
  });
}

function text(value: unknown): unknown {
  return Array.isArray(value) ? value.join(' ') : value;
}

function show(value: unknown): string {
  return typeof value === 'string'
    ? JSON.stringify(value.length > 300 ? `${value.slice(0, 300)}…` : value)
    : String(value);
}

function upstreamOf({ headers }: Observation): string | undefined {
  return headers.find(([name]) => name === 'x-upstream')?.[1];
}

function mirrorsOf(seen: readonly Seen[]): readonly string[] {
  return seen
    .map(({ app }) => app)
    .filter(isMirror)
    .sort();
}

/** A line each, sorted; several of a name are one list, as RFC 9110 has it (5.3), but for `set-cookie`. */
function fieldsText(fields: readonly Field[], ignored: ReadonlySet<string>): string {
  const byName = new Map<string, string[]>();
  for (const [name, value] of fields) {
    if (!ignored.has(name) && !isEmptyLength(name, value))
      byName.set(name, [...(byName.get(name) ?? []), value]);
  }
  return [...byName]
    .map(
      ([name, values]) =>
        `${name}: ${values.join(name === 'set-cookie' ? ' ; ' : ',').replaceAll(/\s*,\s*/g, ',')}`,
    )
    .sort()
    .join('\n');
}

/** The same as no length, where there is no body. */
function isEmptyLength(name: string, value: string): boolean {
  return name === 'content-length' && value === '0';
}

function seenText(
  { method, path, httpVersion, headers, body, trailers }: Seen,
  ignored: ReadonlySet<string>,
): string {
  const trailing = trailers.length === 0 ? '' : `\ntrailers ${fieldsText(trailers, new Set())}`;
  return `${method} ${path} HTTP/${httpVersion}\n${fieldsText(headers, ignored)}\nbody ${body}${trailing}`;
}

/** Of lists the lines that only one has, paired where the part before the colon is the same. */
function differentLines(aspect: Aspect, envoy: string, ours: string): readonly (readonly [string, string])[] {
  if (!LISTS.has(aspect)) return [[show(envoy), show(ours)]];
  const [theirs, own] = [envoy.split('\n'), ours.split('\n')];
  const [only, onlyOwn] = [
    theirs.filter((line) => !own.includes(line)),
    own.filter((line) => !theirs.includes(line)),
  ];
  const keyOf = (line: string): string => line.slice(0, line.indexOf(':'));
  const pairs = only.map((line): readonly [string, string] => [
    show(line),
    show(onlyOwn.find((candidate) => keyOf(candidate) === keyOf(line)) ?? ''),
  ]);
  const paired = new Set(only.map(keyOf));
  const rest = onlyOwn
    .filter((line) => !paired.has(keyOf(line)))
    .map((line): readonly [string, string] => ['""', show(line)]);
  return [...pairs, ...rest];
}
