import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Metadata } from '@grpc/grpc-js';
import pino from 'pino';
import { expect, test } from 'vitest';
import type { DiscoveryCall } from '#control-plane/serve/stream.ts';
import { openTestServer, type TestServer, tokenOf } from '#control-plane/serve/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { policy, service, workload } from '#test/kit/resources.ts';
import { type SubscribeOptions, subscribeWorkloadApi } from './client.ts';
import { encodeResource } from './codec.ts';
import type { SubscriptionState } from './delta-client.ts';
import { DISCOVERY_SERVICE, decodeRequest, encodeResourceField, encodeResponse } from './discovery.ts';
import type { DeltaDiscoveryRequest } from './gen/envoy/service/discovery/v3/discovery_pb.ts';
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type Resource,
  type ResourceUpdate,
  resourceName,
} from './resource.ts';

const NODE = { ip: '10.99.0.1', podName: 'ztunnel-n1', podNamespace: 'istio-system', nodeName: 'n1' };

test('a client gets what the server has, and what changes', async () => {
  await using server = await openTestServer();
  server.publish(workload({ name: 'a' }), service({ name: 'a' }), policy({ name: 'a' }));
  await using client = subscribe(server);
  await eventually('everything is held', () => client.held.size === 3);

  server.publish(workload({ name: 'a', node: 'n2' }), workload({ name: 'b' }), policy({ name: 'a' }));
  await eventually('the change is held', () => !client.held.has('default/a.default.svc.cluster.local'));

  expect([...client.held.keys()].sort()).toEqual([
    'Kubernetes//Pod/default/a',
    'Kubernetes//Pod/default/b',
    'default/a',
  ]);
  expect(client.held.get('Kubernetes//Pod/default/a')).toEqual(workload({ name: 'a', node: 'n2' }));
  expect(client.updates.at(-1)?.updated.map(resourceName)).toEqual([
    'Kubernetes//Pod/default/a',
    'Kubernetes//Pod/default/b',
  ]);
});

test('a client of an empty mesh is told so, once for each type, policies first', async () => {
  await using server = await openTestServer();
  server.publish();
  await using client = subscribe(server);
  await eventually('both types are answered', () => client.updates.length === 2);
  expect(client.updates).toEqual([
    { type: AUTHORIZATION_TYPE, updated: [], removed: [] },
    { type: ADDRESS_TYPE, updated: [], removed: [] },
  ]);
  expect(client.states.map(({ kind }) => kind)).toEqual(['connecting', 'connected']);
});

test('the requests are those that a stock ztunnel was recorded to send, field by field', async () => {
  await using recorder = await openRecorder(() => [
    response('1', ADDRESS_TYPE, []),
    response('2', AUTHORIZATION_TYPE, []),
  ]);
  await using _client = subscribe(recorder.server);
  await eventually('both answers came', () => recorder.requests.length === 4);
  const recorded = recordedRequests();
  expect(recorder.requests.map(asRecorded)).toEqual(recorded.requests);
  expect(recorder.metadata?.getMap()).toMatchObject({
    ...recorded.metadata,
    authorization: `Bearer ${tokenOf('n1')}`,
  });
});

test('what is wrong is rejected by name, and the rest of the response is taken', async () => {
  const good = workload({ name: 'good' });
  const bad = encodeResource(workload({ name: 'bad', uid: '' }));
  await using recorder = await openRecorder(() => [
    response('1', ADDRESS_TYPE, [
      field(good),
      encodeResourceField({ name: 'bad', version: 'v', typeUrl: ADDRESS_TYPE, value: bad }),
      encodeResourceField({
        name: 'other',
        version: 'v',
        typeUrl: ADDRESS_TYPE,
        value: encodeResource(good),
      }),
    ]),
  ]);
  await using client = subscribe(recorder.server);
  await eventually('the response is answered', () => recorder.requests.length === 3);
  expect(client.held).toEqual(new Map([[good.uid, good]]));
  expect(recorder.requests[2]).toMatchObject({
    typeUrl: ADDRESS_TYPE,
    responseNonce: '1',
    errorDetail: {
      code: 0,
      message: 'bad: workload.uid: is missing; other: calls itself "Kubernetes//Pod/default/good"',
    },
  });
});

test('a resource that is twice in a response is rejected', async () => {
  const good = workload({ name: 'good' });
  await using recorder = await openRecorder(() => [response('1', ADDRESS_TYPE, [field(good), field(good)])]);
  await using _client = subscribe(recorder.server);
  await eventually('the response is answered', () => recorder.requests.length === 3);
  expect(recorder.requests[2]?.errorDetail?.message).toBe(`${good.uid}: is twice in one response`);
});

test('a client that reconnects says what it holds, and is sent nothing of it again', async () => {
  const resources = [workload({ name: 'a' }), workload({ name: 'b' }), policy({ name: 'p' })];
  const first = await openTestServer();
  first.publish(...resources);
  await using client = subscribe(first);
  await eventually('everything is held', () => client.held.size === 3);
  await first[Symbol.asyncDispose]();
  await eventually('the loss is noticed', () => client.states.at(-1)?.kind === 'disconnected');
  client.updates.length = 0;

  await using second = await openTestServer({ port: Number(new URL(first.address).port) });
  client.rootsPem = second.rootsPem;
  second.publish(workload({ name: 'a' }), workload({ name: 'b', node: 'n2' }), policy({ name: 'q' }));
  await eventually('it is answered', () => client.updates.length === 3);

  expect(client.updates).toEqual([
    { type: AUTHORIZATION_TYPE, updated: [policy({ name: 'q' })], removed: [] },
    { type: ADDRESS_TYPE, updated: [workload({ name: 'b', node: 'n2' })], removed: [] },
    { type: AUTHORIZATION_TYPE, updated: [], removed: ['default/p'] },
  ]);
  expect(client.terminations.length).toBeGreaterThan(0);
});

test('a server that other roots vouch for is not talked to', async () => {
  await using server = await openTestServer();
  await using other = await openTestServer();
  server.publish(workload({}));
  await using client = subscribe(server, { rootsPem: () => other.rootsPem });
  const state = await eventually('it gives up', () =>
    client.states.find(({ kind }) => kind === 'disconnected'),
  );
  expect(state).toMatchObject({ reason: 'ConnectionError', message: expect.stringContaining('certificate') });
  expect(server.discovery.clients().filter(({ connected }) => connected)).toEqual([]);
});

test('a server of another name is not talked to, unless that name is given', async () => {
  await using server = await openTestServer({ host: '127.0.0.2' });
  server.publish(workload({}));
  await using client = subscribe(server);
  const state = await eventually('it gives up', () =>
    client.states.find(({ kind }) => kind === 'disconnected'),
  );
  expect(state).toMatchObject({ message: expect.stringContaining('127.0.0.2') });

  await using named = subscribe(server, { alternativeName: 'localhost' });
  await eventually('it is answered', () => named.held.size === 1);
});

test('the wait before connecting again doubles from 10 ms', async () => {
  const server = await openTestServer();
  await server[Symbol.asyncDispose]();
  await using client = subscribe(server);
  const waits = await eventually('five attempts failed', () => {
    const found = client.states.flatMap((state) => (state.kind === 'disconnected' ? [state.retryInMs] : []));
    return found.length >= 5 && found;
  });
  expect(waits.slice(0, 5)).toEqual([10, 20, 40, 80, 160]);
});

test('roots that cannot be read are a failed connection, not the end', async () => {
  await using server = await openTestServer();
  server.publish(workload({}));
  let isThere = false;
  await using client = subscribe(server, {
    rootsPem: () => {
      if (!isThere) throw new Error('ENOENT: roots.pem');
      return server.rootsPem;
    },
  });
  const state = await eventually('it fails', () => client.states.find(({ kind }) => kind === 'disconnected'));
  isThere = true;
  await eventually('it is answered', () => client.held.size === 1);
  expect(state).toMatchObject({ reason: 'ConnectionError', message: 'ENOENT: roots.pem' });
});

test('an address without TLS is refused', async () => {
  const options = { ...defaults(), address: 'http://127.0.0.1:15012', signal: new AbortController().signal };
  await expect(subscribeWorkloadApi(options)).rejects.toThrow(
    'not the address of a control plane: "http://127.0.0.1:15012"; expected https://HOST:PORT',
  );
});

/** What a stock ztunnel sent after it connected, and with what metadata. */
function recordedRequests(): { requests: unknown[]; metadata: Record<string, string> } {
  const file = join(import.meta.dirname, '../../test/fixtures/ztunnel/ads-and-ca-requests.jsonl');
  const events = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  return {
    requests: events.filter(({ event }) => event === 'request').map(({ r }) => r),
    metadata: events.find(({ event }) => event === 'stream').metadata,
  };
}

/** A request in the form of the recording. */
function asRecorded(request: DeltaDiscoveryRequest): unknown {
  const { node, errorDetail, typeUrl, responseNonce } = request;
  const fields = Object.entries(node?.metadata ?? {}).map(([name, stringValue]) => [name, { stringValue }]);
  return {
    resourceNamesSubscribe: request.resourceNamesSubscribe,
    resourceNamesUnsubscribe: request.resourceNamesUnsubscribe,
    initialResourceVersions: request.initialResourceVersions,
    node: node
      ? { id: node.id, cluster: node.cluster, metadata: { fields: Object.fromEntries(fields) } }
      : null,
    typeUrl,
    responseNonce,
    errorDetail: errorDetail ?? null,
  };
}

interface TestClient extends AsyncDisposable {
  readonly held: ReadonlyMap<string, Resource>;
  readonly updates: ResourceUpdate[];
  readonly states: readonly SubscriptionState[];
  readonly terminations: readonly string[];
  rootsPem: string;
}

function defaults(): Omit<SubscribeOptions, 'address' | 'signal'> {
  return {
    rootsPem: () => '',
    headers: () => ({ authorization: `Bearer ${tokenOf('n1')}`, clusterid: 'Kubernetes' }),
    node: NODE,
    onUpdate: () => undefined,
    logger: pino({ level: 'silent' }),
  };
}

function subscribe(
  server: Pick<TestServer, 'address' | 'rootsPem'>,
  overrides: Partial<SubscribeOptions> = {},
): TestClient {
  const held = new Map<string, Resource>();
  const states: SubscriptionState[] = [];
  const terminations: string[] = [];
  const abort = new AbortController();
  const client: TestClient = {
    held,
    updates: [],
    states,
    terminations,
    rootsPem: server.rootsPem,
    [Symbol.asyncDispose]: async () => {
      abort.abort();
      await running;
    },
  };
  const running = subscribeWorkloadApi({
    ...defaults(),
    address: server.address,
    rootsPem: () => client.rootsPem,
    onUpdate: (update) => {
      client.updates.push(update);
      for (const resource of update.updated) held.set(resourceName(resource), resource);
      for (const name of update.removed) held.delete(name);
    },
    onState: (state) => states.push(state),
    metrics: { onMessage: () => undefined, onTermination: (reason) => terminations.push(reason) },
    signal: abort.signal,
    ...overrides,
  });
  return client;
}

interface Recorder extends AsyncDisposable {
  readonly server: TestServer;
  readonly requests: readonly DeltaDiscoveryRequest[];
  readonly metadata: Metadata | undefined;
}

/** A server that writes what it is told once both types were asked for, and keeps what it is sent. */
async function openRecorder(responses: () => readonly Buffer[]): Promise<Recorder> {
  const requests: DeltaDiscoveryRequest[] = [];
  const recorder: { metadata: Metadata | undefined } = { metadata: undefined };
  const server = await openTestServer({
    services: [
      {
        definition: DISCOVERY_SERVICE,
        implementation: {
          deltaAggregatedResources: (call: DiscoveryCall) => {
            recorder.metadata = call.metadata;
            call.on('data', (bytes: Buffer) => {
              requests.push(decodeRequest(bytes));
              if (requests.length === 2) for (const bytes of responses()) call.write(bytes);
            });
          },
        },
      },
    ],
  });
  return {
    server,
    requests,
    get metadata() {
      return recorder.metadata;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

function response(nonce: string, typeUrl: string, resources: readonly Uint8Array[]): Buffer {
  return encodeResponse({ nonce, typeUrl, resources, removed: [] });
}

function field(resource: Resource): Uint8Array {
  const value = encodeResource(resource);
  return encodeResourceField({ name: resourceName(resource), version: 'v', typeUrl: ADDRESS_TYPE, value });
}
