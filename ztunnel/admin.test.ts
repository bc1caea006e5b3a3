import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { policy, rule, service, tablesOf, workload } from '#test/kit/resources.ts';
import { type AdminOrders, type AdminView, adminRoutes, orderRoutes, readinessRoutes } from './admin.ts';
import { parseZtunnelConfig } from './config.ts';
import { dumpConfig } from './config-dump.ts';
import { type HttpRoute, listenHttp } from './http-listener.ts';
import { metricsRoutes } from './operator-routes.ts';
import { pendingTasks, type ReadinessFacts } from './readiness.ts';

const READY: ReadinessFacts = {
  tablesSynced: true,
  revocationsKnown: true,
  workersReady: true,
  podsKnown: true,
  podsPending: 0,
  draining: false,
};

function view(fields: Partial<AdminView> = {}): AdminView {
  return {
    configDump: async () => ({ workloads: [] }),
    resources: () => [],
    logLevel: () => 'info',
    shortages: () => [],
    readiness: () => READY,
    metrics: { text: async () => '# EOF\n', contentType: 'application/openmetrics-text' },
    ...fields,
  };
}

const noError = (error: Error): void => {
  throw error;
};

interface Answer {
  readonly status: number | undefined;
  readonly type: string | undefined;
  readonly body: string;
}

async function ask(
  where: { readonly host: string; readonly port: number } | { readonly socketPath: string },
  method: string,
  path: string,
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const call = request({ ...where, method, path, agent: false }, (response) => {
    text(response).then(
      (body) => resolve({ status: response.statusCode, type: response.headers['content-type'], body }),
      reject,
    );
  });
  call.on('error', reject).end();
  return promise;
}

async function askOnce(routes: readonly HttpRoute[], method: string, path: string): Promise<Answer> {
  await using listener = await listenHttp({ host: '127.0.0.1', port: 0 }, routes, noError);
  if (listener.address === undefined) throw new TypeError('no address');
  return await ask({ host: listener.address.ip, port: listener.address.port }, method, path);
}

test.each([
  { facts: {}, missing: [] },
  { facts: { tablesSynced: false }, missing: ['state manager'] },
  { facts: { revocationsKnown: false }, missing: ['revocation list'] },
  { facts: { workersReady: false }, missing: ['proxy'] },
  { facts: { podsKnown: false }, missing: ['workload proxy manager'] },
  { facts: { podsPending: 1 }, missing: ['workload proxy manager'] },
  { facts: { draining: true }, missing: ['draining'] },
])('with $facts it waits for $missing', ({ facts, missing }) => {
  expect(pendingTasks({ ...READY, ...facts })).toEqual(missing);
});

test('readiness is 200 when ready, else 500 with what is missing', async () => {
  expect(await askOnce(readinessRoutes(view()), 'GET', '/healthz/ready')).toMatchObject({
    status: 200,
    body: 'ready\n',
  });
  const readiness = (): ReadinessFacts => ({ ...READY, tablesSynced: false, podsKnown: false });
  expect(await askOnce(readinessRoutes(view({ readiness })), 'GET', '/healthz/ready')).toMatchObject({
    status: 500,
    body: 'not ready, pending: state manager, workload proxy manager\n',
  });
});

test.each(['/metrics', '/stats/prometheus'])('metrics are at %s', async (path) => {
  expect(await askOnce(metricsRoutes(view().metrics), 'GET', path)).toEqual({
    status: 200,
    type: 'application/openmetrics-text',
    body: '# EOF\n',
  });
});

test.each([
  { method: 'GET', path: '/', status: 200 },
  { method: 'GET', path: '/config_dump?x=y', status: 200 },
  { method: 'GET', path: '/logging', status: 200 },
  { method: 'POST', path: '/logging?level=debug', status: 405 },
  { method: 'POST', path: '/quitquitquit', status: 404 },
  { method: 'POST', path: '/drain', status: 404 },
  { method: 'GET', path: '/nowhere', status: 404 },
])('$method $path on the open port is $status', async ({ method, path, status }) => {
  expect((await askOnce(adminRoutes(view()), method, path)).status).toBe(status);
});

function orderSocket() {
  const folder = mkdtempSync(join(tmpdir(), 'admin-'));
  const given: string[] = [];
  const orders: AdminOrders = {
    drain: () => {
      given.push('drain');
      return 5000;
    },
    setLogLevel: (level) => {
      given.push(`level ${level}`);
      return level === 'debug';
    },
    reopenLogs: () => given.push('reopen'),
  };
  return {
    path: join(folder, 'ztunnel.sock'),
    given,
    routes: orderRoutes(view(), orders),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  };
}

test('orders are taken on a socket that only its owner can open', async () => {
  using socket = orderSocket();
  await using _listener = await listenHttp({ path: socket.path }, socket.routes, noError);
  expect(statSync(socket.path).mode & 0o777).toBe(0o600);
  const statuses: (number | undefined)[] = [];
  for (const path of [
    '/drain',
    '/quitquitquit',
    '/logging?level=debug',
    '/logging?level=loud',
    '/reopen-logs',
  ]) {
    statuses.push((await ask({ socketPath: socket.path }, 'POST', path)).status);
  }
  expect(statuses).toEqual([202, 202, 200, 400, 200]);
  expect(socket.given).toEqual(['drain', 'drain', 'level debug', 'level loud', 'reopen']);
});

test('a successor takes the socket’s path over, and its predecessor’s end leaves it there', async () => {
  using socket = orderSocket();
  const old = await listenHttp({ path: socket.path }, [], noError);
  const next = await listenHttp({ path: socket.path }, socket.routes, noError);
  await old[Symbol.asyncDispose]();
  expect((await ask({ socketPath: socket.path }, 'GET', '/healthz/ready')).status).toBe(200);
  await next[Symbol.asyncDispose]();
  expect(statSync(socket.path, { throwIfNoEntry: false })).toBe(undefined);
});

test('a route that fails is told to the log and ends the request', async () => {
  const errors: string[] = [];
  const routes: HttpRoute[] = [
    {
      method: 'GET',
      path: '/',
      answer: () => {
        throw new Error('it broke');
      },
    },
  ];
  const onError = (error: Error): void => {
    errors.push(error.message);
  };
  await using listener = await listenHttp({ host: '127.0.0.1', port: 0 }, routes, onError);
  if (listener.address === undefined) throw new TypeError('no address');
  await expect(ask({ host: '127.0.0.1', port: listener.address.port }, 'GET', '/')).rejects.toThrow(
    'hang up',
  );
  expect(errors).toEqual(['it broke']);
});

const STOCK = JSON.parse(
  readFileSync(join(import.meta.dirname, '../test/fixtures/ztunnel/config_dump.json'), 'utf8'),
);

/** The state that the stock ztunnel of the recording was in. */
function recordedState(): Parameters<typeof dumpConfig>[0] {
  const common = { canonicalRevision: '', workloadName: '', workloadType: 'DEPLOYMENT' } as const;
  const s = workload({
    ...common,
    name: 's',
    addresses: ['10.98.2.5'],
    node: 'n2',
    serviceAccount: 's',
    canonicalName: '',
    services: { 'default/s.default.svc.cluster.local': { 80: 8080, 5201: 5201 } },
  });
  const c = workload({
    ...common,
    name: 'c',
    addresses: ['10.98.1.5'],
    serviceAccount: 'c',
    canonicalName: 'c',
  });
  const of = service({
    name: 's',
    addresses: [{ network: '', ip: '10.96.0.10' }],
    ports: [
      { servicePort: 80, targetPort: 8080, appProtocol: 'UNKNOWN' },
      { servicePort: 5201, targetPort: 5201, appProtocol: 'UNKNOWN' },
    ],
    canonical: false,
  });
  return {
    config: parseZtunnelConfig([], { NODE_NAME: 'n2', XDS_ADDRESS: 'https://10.99.0.10:15012' }),
    version: '0',
    tables: tablesOf(c, s, of),
    certificates: [],
    pods: [{ pod: { uid: 'u-s', name: 's', namespace: 'default', serviceAccount: 's' }, state: 'Up' }],
    connections: [],
    missingPolicies: [],
  };
}

test('workloads, services and pods are dumped as a stock ztunnel dumps them', () => {
  const dump = JSON.parse(JSON.stringify(dumpConfig(recordedState())));
  const named = (all: readonly { readonly name: string }[], name: string) =>
    all.find((each) => each.name === name);
  expect(named(dump.workloads, 'c')).toEqual(named(STOCK.workloads, 'c'));
  expect(named(dump.workloads, 's')).toEqual(named(STOCK.workloads, 's'));
  expect(dump.services).toEqual([named(STOCK.services, 's')]);
  expect(dump.workloadState).toEqual(STOCK.workloadState);
  expect(Object.keys(dump)).toEqual(expect.arrayContaining(Object.keys(STOCK)));
  expect(dump.config).toMatchObject({
    localNode: 'n2',
    xdsAddress: 'https://10.99.0.10:15012',
    windowSize: 4194304,
  });
});

test('a policy is dumped with its rules nested', () => {
  const tables = tablesOf(
    policy({
      action: 'DENY',
      rules: [
        rule({
          notPrincipals: [{ kind: 'presence' }],
          principals: [{ kind: 'prefix', value: 'a' }],
          sourceIps: [{ address: '10.0.0.0', length: 8 }],
          destinationPorts: [80],
        }),
      ],
    }),
  );
  expect(JSON.parse(JSON.stringify(dumpConfig({ ...recordedState(), tables }))).policies).toEqual([
    {
      name: 'p',
      namespace: 'default',
      scope: 'Namespace',
      action: 'Deny',
      dryRun: false,
      rules: [
        [
          [
            {
              principals: [{ Prefix: 'a' }],
              notPrincipals: [{ Presence: [] }],
              sourceIps: ['10.0.0.0/8'],
              destinationPorts: [80],
            },
          ],
        ],
      ],
    },
  ]);
});

test('connections are dumped under their pod', () => {
  const connections = [
    {
      podUid: 'u-s',
      direction: 'inbound',
      source: '10.0.0.1:2',
      destination: '10.98.2.5:80',
      protocol: 'HBONE',
    },
    {
      podUid: 'other',
      direction: 'inbound',
      source: '10.0.0.1:3',
      destination: '10.0.0.9:80',
      protocol: 'TCP',
    },
  ] as const;
  const dump = JSON.parse(JSON.stringify(dumpConfig({ ...recordedState(), connections })));
  expect(dump.workloadState['u-s'].connections).toEqual({
    inbound: [{ src: '10.0.0.1:2', originalDst: '10.98.2.5:80', protocol: 'HBONE' }],
    outbound: [],
  });
});

test('a connection between two pods of the node is dumped under both', () => {
  const connections = [
    {
      podUid: 'other',
      destinationPodUid: 'u-s',
      direction: 'outbound',
      source: '10.0.0.1:2',
      destination: '10.98.2.5:80',
      protocol: 'SAME_NODE',
    },
  ] as const;
  const dump = JSON.parse(JSON.stringify(dumpConfig({ ...recordedState(), connections })));
  expect(dump.workloadState['u-s'].connections).toEqual({
    inbound: [{ src: '10.0.0.1:2', originalDst: '10.98.2.5:80', protocol: 'SAME_NODE' }],
    outbound: [],
  });
});
