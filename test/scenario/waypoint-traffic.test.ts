import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { callFrom } from '#test/kit/calls.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { type Call, type Reply, seenBy } from '#test/kit/programs/calls.ts';
import { echoCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml } from '#test/kit/yaml.ts';

/** What a team sets in routes and TrafficPolicies, and sees in answers, log, metrics and status. */
let mesh: Mesh;

beforeAll(async () => {
  mesh = await openMesh({ files: { 'mesh.yaml': MESH, 'routes.yaml': '', 'policy.yaml': '' } });
  const echo = { namespace: 'shop', serviceAccount: 'echo' };
  await Promise.all([
    ...['v1', 'v2'].map((version) => {
      const name = `echo-${version}`;
      const labels = { app: 'echo', version };
      return mesh.run({ ...echo, name, labels, command: echoCommand(name) }, true);
    }),
    ...['web', 'chaos'].map((name) => {
      const command = ['sleep', 'infinity'];
      return mesh.run({ namespace: 'shop', name, serviceAccount: name, command }, true);
    }),
  ]);
  await expectReplies([{ url: ECHO }], ([reply]) => expect(reply?.status).toBe(200));
});
afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

const ECHO = 'http://echo.shop/';

/** Sends the calls again and again until the check holds. */
async function expectReplies(
  calls: readonly Call[],
  check: (replies: readonly Reply[]) => void,
  from = 'shop/web',
): Promise<void> {
  await eventually(
    'the replies are as they should be',
    async () => {
      check(await callFrom(mesh, from, calls));
      return true;
    },
    20_000,
  );
}

type Line = Readonly<Record<string, unknown>>;

function accessLog(): readonly Line[] {
  const text = readFileSync(join(mesh.state, 'logs/waypoints/shop_waypoint/access.jsonl'), 'utf8');
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}

async function logLine(id: string): Promise<Line> {
  return eventually(`a line for ${id}`, () => accessLog().find((line) => line['request_id'] === id));
}

async function metrics(): Promise<string> {
  const { waypoints } = (await mesh.status()) as unknown as {
    readonly waypoints: readonly { readonly addresses: readonly string[] }[];
  };
  const { stdout } = await mesh.exec('shop/web', [
    'curl',
    '-s',
    '-m',
    '5',
    `http://${waypoints[0]?.addresses[0]}:15020/metrics`,
  ]);
  return stdout;
}

function route(rule: string, more = ''): void {
  mesh.write(
    'routes.yaml',
    routeYaml('echo', `{parentRefs: [{group: "", kind: Service, name: echo}], rules: [{${rule}}${more}]}`),
  );
}

function routeYaml(name: string, spec: string): string {
  return `apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: ${name}, namespace: shop}\nspec: ${spec}\n---\n`;
}

const TO_V1 = 'backendRefs: [{name: echo-v1, port: 80}]';

describe('timeouts and retries', () => {
  test('a request that takes too long is answered 504, and the log and the metrics say why', async () => {
    route(`timeouts: {request: 300ms}, ${TO_V1}`);
    await expectReplies([{ url: `${ECHO}slow/3000`, headers: { 'x-request-id': 'too-slow' } }], ([reply]) => {
      expect(reply?.status).toBe(504);
      expect(reply?.ms).toBeLessThan(2000);
    });
    expect(await logLine('too-slow')).toMatchObject({ response_code: 504, response_flags: 'UT' });
    expect(await metrics()).toMatch(/istio_requests_total\{[^}]*response_code="504"[^}]*\} \d/);
  });

  test('a try that takes too long is made again within the time of the request', async () => {
    route(`timeouts: {request: 5s, backendRequest: 200ms}, retry: {attempts: 2, codes: [500]}, ${TO_V1}`);
    await expectReplies([{ url: `${ECHO}slow/2000`, headers: { 'x-request-id': 'slow-tries' } }], ([reply]) =>
      expect(reply?.status).toBe(504),
    );
    expect(await logLine('slow-tries')).toMatchObject({ attempts: 3 });
  });

  test('a status that the route names is tried again, as often as it says, and the last one is returned', async () => {
    route(`retry: {codes: [503], attempts: 2, backoff: 10ms}, ${TO_V1}`);
    await expectReplies(
      [{ url: ECHO, headers: { 'x-answer-status': '503', 'x-request-id': 'tried' } }],
      ([reply]) => expect(reply?.status).toBe(503),
    );
    expect(await logLine('tried')).toMatchObject({ attempts: 3, response_code: 503 });
    await expectReplies(
      [{ url: ECHO, headers: { 'x-answer-status': '500', 'x-request-id': 'not-tried' } }],
      ([reply]) => expect(reply?.status).toBe(500),
    );
    expect(await logLine('not-tried')).toMatchObject({ attempts: 1 });
  });
});

describe('faults', () => {
  const policy = (faults: string): string =>
    `apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: chaos, namespace: shop}\nspec: {targetRefs: [{group: "", kind: Service, name: echo}], faults: [${faults}]}\n`;
  const OF_CHAOS = 'match: {from: {serviceAccounts: [shop/chaos]}}';

  test('an abort hits the callers that it is for, says so, and ends by itself', async () => {
    route(TO_V1);
    mesh.write(
      'policy.yaml',
      policy(
        `{name: broken, ${OF_CHAOS}, abort: {httpStatus: 418}, percent: 100, where: downstream, expiresAfter: 8s}`,
      ),
    );
    await expectReplies(
      [{ url: ECHO, headers: { 'x-request-id': 'hit' } }],
      ([reply]) => {
        expect(reply?.status).toBe(418);
        expect(reply?.headers['x-tulle-fault']).toBe('broken');
      },
      'shop/chaos',
    );
    await expectReplies([{ url: ECHO }], ([reply]) => expect(reply?.status).toBe(200));
    expect(await logLine('hit')).toMatchObject({ response_flags: 'FI' });
    // A restart of the control plane does not arm it again.
    expect((await mesh.tulle('restart', 'control-plane')).code).toBe(0);
    await expectReplies([{ url: ECHO }], ([reply]) => expect(reply?.status).toBe(200), 'shop/chaos');
    expect((await mesh.tulle('restart', 'control-plane')).code).toBe(0);
    await expectReplies(
      [{ url: ECHO, count: 5 }],
      (replies) => expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]),
      'shop/chaos',
    );
  });

  test('a delay takes its share of the requests', async () => {
    mesh.write(
      'policy.yaml',
      policy('{name: slow, delay: {fixed: 300ms}, percent: 30, where: downstream, expiresAfter: 10m}'),
    );
    await expectReplies([{ url: ECHO, count: 60 }], (replies) => {
      const delayed = replies.filter(({ ms }) => ms >= 290).length;
      // Thirty in a hundred, give or take five standard deviations.
      expect(delayed).toBeGreaterThan(1);
      expect(delayed).toBeLessThan(40);
      expect(replies.every(({ status }) => status === 200)).toBe(true);
    });
    expect(accessLog().some((line) => line['response_flags'] === 'DI')).toBe(true);
  });

  test('a fault of each try is seen by retries, which get round it', async () => {
    route(`retry: {codes: [503], attempts: 5}, ${TO_V1}`);
    mesh.write(
      'policy.yaml',
      policy('{name: flaky, abort: {httpStatus: 503}, percent: 50, where: upstream, expiresAfter: 10m}'),
    );
    await expectReplies([{ url: ECHO, count: 30 }], (replies) => {
      expect(replies.filter(({ status }) => status === 200).length).toBeGreaterThan(25);
    });
    await eventually('a request was tried more than once', () =>
      accessLog().some((line) => line['attempts'] === 2),
    );
  });

  test('one setting turns all faults off', async () => {
    mesh.write(
      'policy.yaml',
      policy(`{name: broken, abort: {httpStatus: 418}, percent: 100, where: downstream, expiresAfter: 10m}`),
    );
    await expectReplies([{ url: ECHO }], ([reply]) => expect(reply?.status).toBe(418));
    const settings =
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: "tulle: {faults: \'off\'}"}\n';
    mesh.write('settings.yaml', settings);
    await expectReplies([{ url: ECHO }], ([reply]) => expect(reply?.status).toBe(200));
    mesh.remove('settings.yaml');
    mesh.write('policy.yaml', '');
    await expectReplies([{ url: ECHO, count: 5 }], (replies) =>
      expect(replies.every(({ status }) => status === 200)).toBe(true),
    );
  });
});

test('a session that lasts stays with its server, whatever the weights', async () => {
  const session = 'sessionPersistence: {sessionName: who, type: Cookie}';
  route(
    `${session}, backendRefs: [{name: echo-v1, port: 80, weight: 50}, {name: echo-v2, port: 80, weight: 50}]`,
  );
  await expectReplies([{ url: ECHO }], ([reply]) =>
    expect(String(reply?.headers['set-cookie'])).toContain('who='),
  );
  const [first] = await callFrom(mesh, 'shop/web', [{ url: ECHO }]);
  const [cookie = ''] = String(first?.headers['set-cookie']).split(';');
  const replies = await callFrom(mesh, 'shop/web', [{ url: ECHO, headers: { cookie }, count: 20 }]);
  expect(new Set(replies.map((reply) => seenBy(reply).name))).toEqual(new Set([seenBy(first).name]));
});

interface RouteStatus {
  readonly object: string;
  readonly parents: readonly {
    readonly conditions: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason: string;
    }[];
  }[];
  readonly split: readonly {
    readonly backend: string;
    readonly weight: number;
    readonly requests: number;
    readonly observed: number | null;
  }[];
}

async function routeStatus(): Promise<RouteStatus | undefined> {
  const { routes } = (await mesh.status()) as unknown as { readonly routes: readonly RouteStatus[] };
  return routes.find(({ object }) => object === 'HTTPRoute shop/echo');
}

test('status shows the wanted and the observed split', async () => {
  route('backendRefs: [{name: echo-v1, port: 80, weight: 70}, {name: echo-v2, port: 80, weight: 30}]');
  await expectReplies([{ url: ECHO, count: 100 }], (replies) => {
    expect(replies.filter((reply) => seenBy(reply).name === 'echo-v1')).toHaveLength(70);
  });
  await eventually('status says so', async () => {
    const split = (await routeStatus())?.split ?? [];
    expect(split.map(({ backend, weight }) => [backend, weight])).toEqual([
      ['shop/echo-v1:80', 70],
      ['shop/echo-v2:80', 30],
    ]);
    return split[0]?.observed !== null && Math.abs((split[0]?.observed ?? 0) - 0.7) < 0.1;
  });
});

test('a filter that nobody knows refuses the route with a condition, and its requests are answered 500', async () => {
  route(
    `matches: [{path: {type: PathPrefix, value: /known}}], ${TO_V1}`,
    `, {matches: [{path: {type: PathPrefix, value: /strange}}], filters: [{type: Teleport}], ${TO_V1}}`,
  );
  await expectReplies([{ url: `${ECHO}strange` }], ([reply]) => expect(reply?.status).toBe(500));
  const status = await eventually('a condition', async () => {
    const found = await routeStatus();
    return found?.parents[0]?.conditions.some(
      ({ type, status: value }) => type === 'Accepted' && value === 'False',
    )
      ? found
      : undefined;
  });
  expect(status.parents[0]?.conditions).toContainEqual(
    expect.objectContaining({
      type: 'Accepted',
      status: 'False',
      reason: 'UnsupportedValue',
      lastTransitionTime: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:]{8}Z$/),
    }),
  );
});

const service = (name: string, selector: string): string => `apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: shop}
spec: {selector: {${selector}}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
`;

const MESH = `${namespaceYaml('shop', true, 'istio.io/use-waypoint: waypoint')}${namespaceYaml('istio-system', false)}${service('echo', 'app: echo')}${service('echo-v1', 'version: v1')}${service('echo-v2', 'version: v2')}apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`;
