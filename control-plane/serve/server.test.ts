import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Client, type ClientDuplexStream, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { openChannel, parseControlPlaneAddress } from '#api/channel.ts';
import { DELTA_METHOD, decodeResponse, encodeRequest } from '#api/discovery.ts';
import { CLUSTER_TYPE } from '#api/envoy/types.ts';
import type {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponse,
} from '#api/gen/envoy/service/discovery/v3/discovery_pb.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import { temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { policy, workload } from '#test/kit/resources.ts';
import { openTestServer, type TestServer, tokenOf, waypointInput } from './testing.ts';

const POD = 'Kubernetes//Pod/default/echo-1';

test('policies are answered first, although a stock client asks for workloads first', async () => {
  await using server = await openTestServer();
  server.publish(workload({ authorizationPolicies: ['default/p'] }), policy({}));
  using client = open(server);
  client.send({ typeUrl: ADDRESS_TYPE });
  client.send({ typeUrl: AUTHORIZATION_TYPE });
  await eventually('both are answered', () => client.responses.length === 2);
  expect(client.responses.map(({ typeUrl }) => typeUrl)).toEqual([AUTHORIZATION_TYPE, ADDRESS_TYPE]);
});

test('a client that never asks for policies is answered all the same', async () => {
  await using server = await openTestServer();
  server.publish(workload({}));
  using client = open(server);
  client.send({ typeUrl: ADDRESS_TYPE });
  await eventually('it is answered', () => client.responses.length === 1);
  expect(client.responses[0]?.resources.map(({ name }) => name)).toEqual([POD]);
});

test('clients wait for the first configuration', async () => {
  await using server = await openTestServer();
  using client = open(server);
  client.send({ typeUrl: AUTHORIZATION_TYPE });
  await eventually('it is connected', () => server.discovery.clients()[0]?.connected === true);
  expect(client.responses).toEqual([]);
  server.publish();
  await eventually('it is answered', () => client.responses.length === 1);
});

test('what a client took and what it rejected is known by node and object', async () => {
  await using server = await openTestServer();
  server.publish(workload({ name: 'a' }), workload({ name: 'b' }), policy({}));
  using client = open(server);
  client.send({ typeUrl: AUTHORIZATION_TYPE });
  client.send({ typeUrl: ADDRESS_TYPE });
  await eventually('both are answered', () => client.responses.length === 2);
  const [policies, addresses] = client.responses;
  client.send({ typeUrl: AUTHORIZATION_TYPE, responseNonce: policies?.nonce ?? '' });
  client.send({
    typeUrl: ADDRESS_TYPE,
    responseNonce: addresses?.nonce ?? '',
    errorDetail: { message: 'Kubernetes//Pod/default/b: invalid address' },
  });
  const rejected = [{ name: 'Kubernetes//Pod/default/b', message: 'invalid address' }];
  await eventually(
    'the rejection is known',
    () => server.discovery.clients()[0]?.xds[1]?.rejected.length === 1,
  );
  expect(server.discovery.clients()).toEqual([
    {
      node: 'n1',
      connected: true,
      xds: [
        { type: AUTHORIZATION_TYPE, sent: 1, acked: 1, rejected: [] },
        { type: ADDRESS_TYPE, sent: 2, acked: 1, rejected },
      ],
    },
    { node: 'n2', connected: false, xds: [] },
  ]);
  expect(server.discovery.hasAcked({ kind: 'node', node: 'n1' }, AUTHORIZATION_TYPE, 'default/p')).toBe(true);
  expect(
    server.discovery.hasAcked({ kind: 'node', node: 'n1' }, ADDRESS_TYPE, 'Kubernetes//Pod/default/b'),
  ).toBe(false);
  expect(server.log).toContainEqual(
    expect.objectContaining({ msg: 'client rejected resources', node: 'n1' }),
  );

  client.call.cancel();
  await eventually('it is gone', () => server.discovery.clients()[0]?.connected === false);
  expect(server.discovery.clients()[0]?.xds[1]).toMatchObject({ rejected });
});

test("a node agent is served, and its answers are not taken for the ztunnel's", async () => {
  await using server = await openTestServer();
  server.publish(policy({}));
  using agent = open(server);
  agent.send({ typeUrl: AUTHORIZATION_TYPE, node: { id: 'node-agent~1.1.1.1~a.b~b.svc.cluster.local' } });
  await eventually('it is answered', () => agent.responses.length === 1);
  agent.send({ typeUrl: AUTHORIZATION_TYPE, responseNonce: agent.responses[0]?.nonce ?? '' });
  agent.call.end();
  await eventually('it has gone', () => server.log.some(({ msg }) => msg === 'client disconnected'));
  expect(server.discovery.clients()[0]).toEqual({ node: 'n1', connected: false, xds: [] });
  expect(server.discovery.hasAcked({ kind: 'node', node: 'n1' }, AUTHORIZATION_TYPE, 'default/p')).toBe(
    false,
  );
});

test.each([
  { when: 'there is none', headers: {}, details: /no authorization header/ },
  {
    when: 'it is of nobody',
    headers: { authorization: 'Bearer nonsense' },
    details: /the token is of no node/,
  },
])(
  'a call is refused before its messages are read when its token is wrong: $when',
  async ({ headers, details }) => {
    await using server = await openTestServer();
    server.publish(workload({}));
    using client = open(server, headers);
    client.send({ typeUrl: ADDRESS_TYPE });
    expect(await client.ended).toMatchObject({
      code: status.UNAUTHENTICATED,
      details: expect.stringMatching(details),
    });
    expect(server.log).toContainEqual(
      expect.objectContaining({
        msg: 'client not authenticated',
        reason: expect.stringMatching(details),
        level: 40,
      }),
    );
  },
);

test('a client that says it is of another node than its token is refused, and both are named', async () => {
  await using server = await openTestServer();
  server.publish(workload({}));
  using client = open(server);
  client.send({ typeUrl: ADDRESS_TYPE, node: { metadata: { NODE_NAME: 'n2' } } });
  expect(await client.ended).toMatchObject({
    code: status.PERMISSION_DENIED,
    details: 'the token is of node "n1", the client says NODE_NAME "n2"',
  });
});

test('a type that is not served is refused by name', async () => {
  await using server = await openTestServer();
  server.publish();
  using client = open(server);
  client.send({ typeUrl: 'type.googleapis.com/envoy.service.runtime.v3.Runtime' });
  expect(await client.ended).toMatchObject({
    code: status.INVALID_ARGUMENT,
    details: expect.stringMatching(
      /^type "type.googleapis.com\/envoy.service.runtime.v3.Runtime" is not served here/,
    ),
  });
});

test.each([
  {
    who: 'a node',
    caller: 'n1',
    type: CLUSTER_TYPE,
    details: /Cluster" is not for a node, whose token this is/,
  },
  { who: 'a waypoint', caller: 'alpha/gate', type: ADDRESS_TYPE, details: /Address" is not for a waypoint/ },
])('$who does not get what is for others', async ({ caller, type, details }) => {
  await using server = await openTestServer();
  server.publish(workload({}));
  server.publishWaypoints(new Map([['alpha/gate', waypointInput({ [CLUSTER_TYPE]: { c: 1 } })]]));
  using client = open(server, bearer(caller));
  client.send({ typeUrl: type });
  expect(await client.ended).toMatchObject({
    code: status.PERMISSION_DENIED,
    details: expect.stringMatching(details),
  });
  expect(client.responses).toEqual([]);
});

test('a waypoint may call itself whatever a stock Envoy does, and each sees its own', async () => {
  await using server = await openTestServer();
  server.publish(policy({}), policy({ name: 'other' }));
  server.publishWaypoints(
    new Map([
      ['alpha/gate', waypointInput({ [CLUSTER_TYPE]: { a: 1 } }, ['default/p'])],
      ['beta/gate', waypointInput({ [CLUSTER_TYPE]: { b: 1 } })],
    ]),
  );
  using alpha = open(server, bearer('alpha/gate'));
  using beta = open(server, bearer('beta/gate'));
  const node = { id: 'sidecar~10.0.0.1~x.y~z', metadata: { NODE_NAME: 'elsewhere' } };
  for (const client of [alpha, beta]) {
    client.send({ typeUrl: CLUSTER_TYPE, node });
    client.send({ typeUrl: AUTHORIZATION_TYPE, resourceNamesSubscribe: ['*', 'default/p', 'default/other'] });
  }
  await eventually('both are answered', () => alpha.responses.length + beta.responses.length === 4);
  const seen = ({ responses }: RawClient): unknown =>
    responses.map(({ resources, removedResources }) => [
      resources.map(({ name }) => name),
      removedResources.toSorted(),
    ]);
  expect(seen(alpha)).toEqual([
    [['a'], []],
    [['default/p'], ['default/other']],
  ]);
  expect(seen(beta)).toEqual([
    [['b'], []],
    [[], ['default/other', 'default/p']],
  ]);
});

test('a million names, endless nonces and garbage end one client, and no other', async () => {
  await using server = await openTestServer({ limits: { maxNames: 100_000 } });
  server.publish(workload({}));
  using good = open(server, bearer('n2'));
  good.send({ typeUrl: AUTHORIZATION_TYPE });
  good.send({ typeUrl: ADDRESS_TYPE });

  using greedy = open(server);
  const million = Array.from({ length: 1_000_000 }, (_, i) => `n${i}`);
  greedy.send({ typeUrl: ADDRESS_TYPE, resourceNamesSubscribe: million });
  expect(await greedy.ended).toMatchObject({
    code: status.RESOURCE_EXHAUSTED,
    details: 'more than 100000 resource names',
  });

  using huge = open(server);
  huge.send({ typeUrl: ADDRESS_TYPE, resourceNamesSubscribe: ['x'.repeat(40_000_000)] });
  expect(await huge.ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED });

  using confused = open(server);
  confused.send({ typeUrl: AUTHORIZATION_TYPE });
  for (let i = 0; i < 2000; i += 1) {
    confused.send({
      typeUrl: AUTHORIZATION_TYPE,
      responseNonce: `nonce-${i}`,
      errorDetail: { message: 'no' },
    });
  }
  await eventually('it is answered once', () => confused.responses.length === 1);

  using garbage = open(server);
  garbage.call.write(Buffer.from([0xff, 0xff, 0xff]));
  expect(await garbage.ended).toMatchObject({ code: status.INVALID_ARGUMENT });

  server.publish(workload({}), workload({ name: 'later' }));
  await eventually('the good one goes on', () => good.responses.length === 3);
  expect(good.responses[2]?.resources.map(({ name }) => name)).toEqual(['Kubernetes//Pod/default/later']);
});

test('a client that reads nothing is sent the latest when it does, and holds nothing up', async () => {
  await using server = await openTestServer();
  server.publish(workload({ canonicalRevision: 'r0' }));
  using slow = open(server);
  slow.call.pause();
  slow.send({ typeUrl: AUTHORIZATION_TYPE });
  slow.send({ typeUrl: ADDRESS_TYPE });
  await eventually('it is answered', () => server.discovery.clients()[0]?.xds[1]?.sent === 1);
  for (let revision = 1; revision <= 500; revision += 1) {
    server.publish(workload({ canonicalRevision: `r${revision}` }));
  }
  slow.call.resume();
  const acknowledge = (): boolean => {
    const last = slow.responses.findLast(({ typeUrl }) => typeUrl === ADDRESS_TYPE);
    slow.send({ typeUrl: ADDRESS_TYPE, responseNonce: last?.nonce ?? '' });
    return Buffer.from(last?.resources[0]?.resource?.value ?? []).includes('r500');
  };
  await eventually('it has the latest', acknowledge);
  expect(slow.responses.length).toBeLessThan(40);
});

test('a node may have two streams, and not any number', async () => {
  await using server = await openTestServer({ limits: { maxStreams: 2 } });
  server.publish();
  using first = open(server);
  using second = open(server);
  for (const client of [first, second]) client.send({ typeUrl: AUTHORIZATION_TYPE });
  await eventually('both are answered', () => first.responses.length + second.responses.length === 2);
  using third = open(server);
  third.send({ typeUrl: AUTHORIZATION_TYPE });
  expect(await third.ended).toMatchObject({
    code: status.RESOURCE_EXHAUSTED,
    details: 'node/n1 has 2 streams open',
  });
});

test('bytes that are no TLS, and old TLS, get nowhere, and the server goes on', async () => {
  await using server = await openTestServer();
  server.publish();
  const { host, port } = parseControlPlaneAddress(server.address);
  const socket = connectTcp(port, host);
  socket.write('GET / HTTP/1.1\r\n\r\n'.repeat(100));
  socket.on('error', () => undefined);
  await once(socket, 'close');
  await expect(
    once(
      connectTls({ host, port, ca: server.rootsPem, maxVersion: 'TLSv1.2', servername: '' }),
      'secureConnect',
    ),
  ).rejects.toThrow(/protocol version|handshake/);

  using client = open(server);
  client.send({ typeUrl: AUTHORIZATION_TYPE });
  await eventually('it is answered', () => client.responses.length === 1);
});

test('a new certificate is used from the next connection on, and streams go on', async () => {
  await using server = await openTestServer();
  await using other = await temporaryAuthority();
  server.publish();
  using client = open(server);
  client.send({ typeUrl: AUTHORIZATION_TYPE });
  await eventually('it is answered', () => client.responses.length === 1);

  const { keyPem, chainPem } = await other.authority.issueServer({
    dnsNames: [],
    ips: ['127.0.0.1'],
    ttlMs: 60_000,
  });
  server.listener.setCertificate({ keyPem, chainPem: chainPem.join('') });
  const { host, port } = parseControlPlaneAddress(server.address);
  const socket: TLSSocket = connectTls({
    host,
    port,
    ca: other.authority.bundlePem(),
    ALPNProtocols: ['h2'],
  });
  await once(socket, 'secureConnect');
  expect([socket.authorized, socket.alpnProtocol, socket.getProtocol()]).toEqual([true, 'h2', 'TLSv1.3']);
  socket.destroy();

  server.publish(policy({}));
  await eventually('the stream goes on', () => client.responses.length === 2);
});

interface RawClient extends Disposable {
  readonly call: ClientDuplexStream<Buffer, Buffer>;
  readonly responses: readonly DeltaDiscoveryResponse[];
  readonly ended: Promise<ServiceError>;
  readonly send: (request: MessageInitShape<typeof DeltaDiscoveryRequestSchema>) => void;
}

function bearer(node: string): Record<string, string> {
  return { authorization: `Bearer ${tokenOf(node)}` };
}

/** A client that does nothing by itself. */
function open(server: TestServer, headers: Record<string, string> = bearer('n1')): RawClient {
  const client: Client = openChannel({
    address: parseControlPlaneAddress(server.address),
    rootsPem: server.rootsPem,
    alternativeName: undefined,
  });
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const asIs = (bytes: Buffer): Buffer => bytes;
  const call = client.makeBidiStreamRequest<Buffer, Buffer>(DELTA_METHOD, asIs, asIs, metadata);
  const responses: DeltaDiscoveryResponse[] = [];
  call.on('data', (bytes: Buffer) => responses.push(decodeResponse(bytes)));
  const ended = Promise.withResolvers<ServiceError>();
  call.on('error', (error: ServiceError) => ended.resolve(error));
  return {
    call,
    responses,
    ended: ended.promise,
    send: (request) => void call.write(encodeRequest(request)),
    [Symbol.dispose]: () => {
      call.cancel();
      client.close();
    },
  };
}
