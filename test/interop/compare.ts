import type { Aspect, Case, Expectation, Field, Observation, Seen } from './case.ts';
import { isMirror } from './stage/journal.ts';

/** Who was asked. */
export type Side = 'envoy' | 'ours';

/**
 * Headers of answers that are not compared: they say when, how long, by whom and over which connection, and which of several
 * equal hosts it was.
 */
const OWN_ANSWER_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'date',
  'keep-alive',
  'server',
  'transfer-encoding',
  'x-endpoint',
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

/** Everything that is compared of an observation, as text. */
export function aspectsOf(observation: Observation): ReadonlyMap<Aspect, string> {
  const { seen, status, end, earlier } = observation;
  const attempts = seen.filter(({ app }) => !isMirror(app));
  const last = attempts.at(-1);
  return new Map<Aspect, string>([
    ['status', `${status}`],
    ['headers', fieldsText(observation.headers, OWN_ANSWER_HEADERS)],
    ['body', observation.body],
    ['trailers', fieldsText(observation.trailers, new Set())],
    ['end', end],
    ['earlier', earlier.join(' ')],
    ['upstream', upstreamOf(observation) ?? 'none'],
    ['attempts', `${attempts.length}`],
    ['mirrors', mirrorsOf(seen).join(' ')],
    ['seen request', last === undefined ? 'none' : seenText(last)],
  ]);
}

/** What differs between the two, a line each; what differs on purpose is left out. */
export function differencesOf(
  { name, differs }: Case,
  envoy: Observation,
  ours: Observation,
): readonly string[] {
  const other = aspectsOf(ours);
  return [...aspectsOf(envoy)].flatMap(([aspect, text]) => {
    const own = other.get(aspect) ?? '';
    if (text === own || differs?.aspects.includes(aspect) === true) return [];
    return differentLines(text, own).map(
      ([theirs, ourLine]) => `${name}: ${aspect}: envoy=${theirs} ours=${ourLine}`,
    );
  });
}

/** What does not hold on one side, a line each. */
export function unmetOf(
  side: Side,
  { name, expect, differs }: Case,
  observation: Observation,
): readonly string[] {
  const expectation = { ...expect, ...differs?.[side] };
  return claimsOf(expectation, observation)
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
    if (!ignored.has(name)) byName.set(name, [...(byName.get(name) ?? []), value]);
  }
  return [...byName]
    .map(
      ([name, values]) =>
        `${name}: ${values.join(name === 'set-cookie' ? ' ; ' : ',').replaceAll(/\s*,\s*/g, ',')}`,
    )
    .sort()
    .join('\n');
}

function seenText({ method, path, httpVersion, headers, body, trailers }: Seen): string {
  const trailing = trailers.length === 0 ? '' : `\ntrailers ${fieldsText(trailers, new Set())}`;
  return `${method} ${path} HTTP/${httpVersion}\n${fieldsText(headers, OWN_REQUEST_HEADERS)}\nbody ${body}${trailing}`;
}

/** Lines that only one has, paired where the part before the colon is the same. */
function differentLines(envoy: string, ours: string): readonly (readonly [string, string])[] {
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
