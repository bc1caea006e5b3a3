/**
 * How many requests a second a waypoint can decide about, for tables of some sizes: what `decideRequest` costs alone, without any
 * bytes. Run with `node test/bench/waypoint-route.ts [seconds for each row]`.
 */
import type { Route } from '#waypoint/model.ts';
import { decideRequest, type RequestInput } from '#waypoint/route/decide-request.ts';
import {
  backend,
  cluster,
  configOf,
  endpoint,
  forwardTo,
  match,
  pathOf,
  requestTo,
  route,
  textOf,
} from '#waypoint/route/testing.ts';
import { SmoothWeights } from '#waypoint/route/weights.ts';

interface Row {
  readonly what: string;
  readonly config: ReturnType<typeof configOf>;
  readonly heads: readonly Partial<RequestInput['head']>[];
}

const HEADERS = [
  ...['user-agent', 'curl/8.5.0', 'accept', '*/*', 'x-request-id', '5149e9f1-b8ad-42d2-b28b-833a402d91eb'],
  ...['traceparent', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', 'content-type', 'text/plain'],
];
const BACKENDS = [backend('v1', 90), backend('v2', 10)];
const CLUSTERS = ['v1', 'v2'].map((name) => cluster(name, [endpoint('10.1.0.1'), endpoint('10.1.0.2')]));

/** `count` routes by exact paths and prefixes in turn, and one for the rest. */
function tableOf(count: number): readonly Route[] {
  const shapes = Array.from({ length: count - 1 }, (_, place) =>
    place % 2 === 0 ? `=/api/v1/item-${place}` : `/api/v2/folder-${place}`,
  );
  return [...shapes, '/'].map((path, place) =>
    route({
      name: `match ${place}`,
      match: match({ path: pathOf(path) }),
      action: forwardTo(BACKENDS),
    }),
  );
}

function headsOf(count: number): readonly Partial<RequestInput['head']>[] {
  return Array.from({ length: count }, (_, place) => ({
    target: place % 2 === 0 ? `/api/v1/item-${place}?page=2` : `/api/v2/folder-${place}/leaf`,
    headers: HEADERS,
  }));
}

function rows(): readonly Row[] {
  const canary = route({
    name: 'canary',
    match: match({ headers: [{ name: 'x-version', match: textOf('v2') }] }),
    action: forwardTo([backend('v2')]),
  });
  const pattern = route({ match: match({ path: pathOf('~/users/[0-9]+/orders') }) });
  const escaped = [{ target: '/caf%c3%a9/%61//b/../c', headers: HEADERS }];
  return [
    { what: 'one route', config: configOf([route()], CLUSTERS), heads: headsOf(8) },
    {
      what: 'weights and a header rule',
      config: configOf([canary, ...tableOf(2)], CLUSTERS),
      heads: headsOf(8),
    },
    { what: '50 routes', config: configOf(tableOf(50), CLUSTERS), heads: headsOf(50) },
    { what: '1000 routes', config: configOf(tableOf(1000), CLUSTERS), heads: headsOf(1000) },
    { what: 'a regular expression', config: configOf([pattern, route()], CLUSTERS), heads: headsOf(8) },
    { what: 'a path to clean up', config: configOf([route()], CLUSTERS), heads: escaped },
  ];
}

function measure(row: Row, seconds: number): number {
  const weights = new SmoothWeights(() => 0.5);
  const inputs = row.heads.map((head) => requestTo(row.config, head, { weights }));
  let forwarded = 0;
  let asked = 0;
  const run = (untilMs: number): number => {
    const started = performance.now();
    while (performance.now() < untilMs)
      for (let round = 0; round < 1000; round += 1) {
        const input = inputs[round % inputs.length];
        if (input !== undefined && decideRequest(input).kind === 'forward') forwarded += 1;
        asked += 1;
      }
    return performance.now() - started;
  };
  run(performance.now() + 200);
  forwarded = 0;
  asked = 0;
  const tookMs = run(performance.now() + seconds * 1000);
  if (forwarded !== asked) throw new Error(`${row.what}: ${asked - forwarded} requests were not forwarded`);
  return asked / (tookMs / 1000);
}

const seconds = Number(process.argv[2] ?? 1);
for (const row of rows()) {
  const rate = measure(row, seconds);
  console.log(
    `${row.what.padEnd(28)} ${Math.round(rate).toLocaleString('en').padStart(12)} decisions/s ${(1e6 / rate).toFixed(2).padStart(8)} µs`,
  );
}
