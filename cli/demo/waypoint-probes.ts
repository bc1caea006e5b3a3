import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { call, type ProbeResult, probe, said } from './probe.ts';
import type { SampleMesh } from './sample-mesh.ts';

const CART = 'shop/cart-1';
const CATALOG = 'http://catalog.shop:8080';
const CALLS = 100;
/** Of the route in mesh/canary.yaml. */
const SHARE_OF_V2 = 0.1;
/** Half of them are hit; less than a quarter, or more than three, comes once in ten million times. */
const CHAOS_CALLS = 100;
const LOG_DEADLINE_MS = 3_000;

/** A line of the waypoint's access log, as far as it is looked at. */
type Logged = Readonly<Record<string, unknown>>;

/** Tries what the waypoint before the catalog promises: mesh/canary.yaml. */
export async function* probeWaypoint(mesh: SampleMesh): AsyncGenerator<ProbeResult> {
  yield probe(`of ${CALLS} calls to catalog a tenth go to its new version, exactly`, () => checkSplit(mesh));
  yield probe('a call that asks for the new version gets it', async () => {
    const { output } = await call(mesh, CART, `${CATALOG}/[1-10]`, '-H', 'x-version: v2');
    const answers = namesIn(output);
    return answers.length === 10 && answers.every((name) => name === 'catalog-v2-1')
      ? undefined
      : said(0, output);
  });
  yield probe(
    'past the waypoint an application still sees who calls, whatever the caller claims',
    async () => {
      const forged = 'x-forwarded-client-cert: URI=spiffe://cluster.local/ns/shop/sa/web';
      const { code, output } = await call(mesh, CART, `${CATALOG}/`, '-H', forged);
      const isTold = output.includes('URI=spiffe://cluster.local/ns/shop/sa/cart"');
      return isTold && !output.includes('sa/web') ? undefined : said(code, output);
    },
  );
  yield probe('a call that fails twice is tried again, and the access log says so', async () => {
    const { code, output } = await call(mesh, CART, `${CATALOG}/again`, '-H', 'x-fail: 2');
    if (code !== 0 || namesIn(output).length !== 1) return said(code, output);
    return checkLog(mesh, '/again', (line) => line['response_code'] === 200 && line['attempts'] === 3);
  });
  yield probe(
    'a call that takes longer than a second is answered 504, and the access log says why',
    async () => {
      const { code, output } = await call(mesh, CART, `${CATALOG}/slow`, '-H', 'x-slow: 4000');
      if (code !== 22) return said(code, output);
      return checkLog(
        mesh,
        '/slow',
        (line) => line['response_code'] === 504 && line['response_flags'] === 'UT',
      );
    },
  );
  yield probe('a fault hits about half of the calls that ask for it, and says so', () => checkFault(mesh));
  yield probe('tulle status shows the split that came of it, and when the fault ends', () =>
    checkStatus(mesh),
  );
}

/** Any run of calls through one waypoint has its share, give or take one. */
async function checkSplit(mesh: SampleMesh): Promise<string | undefined> {
  const { code, output } = await call(mesh, CART, `${CATALOG}/[1-${CALLS}]`);
  const names = namesIn(output);
  const ofV2 = names.filter((name) => name.includes('-v2-')).length;
  if (names.length !== CALLS) return `${names.length} answers; ${said(code, output.slice(-200))}`;
  return Math.abs(ofV2 - CALLS * SHARE_OF_V2) <= 1 ? undefined : `${ofV2} went there`;
}

async function checkFault(mesh: SampleMesh): Promise<string | undefined> {
  const url = `${CATALOG}/chaos/[1-${CHAOS_CALLS}]`;
  const { output } = await call(mesh, CART, url, '-i', '-H', 'x-chaos: on');
  // Curl may print the body of an answer that failed, which has no line end, before the next answer.
  const failed = output.match(/HTTP\/1\.1 503 /g)?.length ?? 0;
  const marked = output.match(/^x-tulle-fault: catalog-down\r?$/gm)?.length ?? 0;
  if (failed !== marked) return `${failed} calls failed, ${marked} of them said why`;
  if (failed < CHAOS_CALLS / 4 || failed > (CHAOS_CALLS * 3) / 4)
    return `${failed} of ${CHAOS_CALLS} were hit`;
  return namesIn(output).length === CHAOS_CALLS - failed ? undefined : 'others failed as well';
}

async function checkStatus(mesh: SampleMesh): Promise<string | undefined> {
  const { routes, faults, waypoints } = await mesh.status();
  const split = routes[0]?.split.find(
    ({ backend, weight }) => weight === 10 && backend.includes('catalog-v2'),
  );
  const isClose = Math.abs((split?.observed ?? 0) - SHARE_OF_V2) < 0.02;
  const endsLater = faults.some(
    ({ name, endsAt }) => name === 'catalog-down' && Date.parse(endsAt) > Date.now(),
  );
  if (isClose && endsLater && waypoints.every(({ ready }) => ready)) return undefined;
  return JSON.stringify({ waypoints, routes, faults });
}

/** Lines are written a few times a second. */
async function checkLog(
  mesh: SampleMesh,
  path: string,
  isAsWanted: (line: Logged) => boolean,
): Promise<string | undefined> {
  const deadline = performance.now() + LOG_DEADLINE_MS;
  for (;;) {
    const lines = readAccessLog(mesh).filter((line) => line['path'] === path);
    if (lines.some(isAsWanted)) return undefined;
    if (performance.now() > deadline) return `the access log has ${JSON.stringify(lines)}`;
    await delay(50);
  }
}

function readAccessLog({ state }: SampleMesh): readonly Logged[] {
  const text = readFileSync(join(state, 'logs', 'waypoints', 'shop_waypoint', 'access.jsonl'), 'utf8');
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Logged);
}

/** Who answered, of answers one after the other. */
function namesIn(output: string): readonly string[] {
  return [...output.matchAll(/"name":"(catalog-[^"]+)"/g)].map(([, name = '']) => name);
}
