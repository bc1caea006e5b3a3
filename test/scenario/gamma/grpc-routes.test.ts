import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Reply } from '#test/kit/programs/calls.ts';
import { type GammaMesh, openGammaMesh, parent, routeYaml } from './mesh.ts';

/** The gRPC part of the Gateway API's mesh conformance tests. */
let gamma: GammaMesh;

beforeAll(async () => {
  gamma = await openGammaMesh();
});
afterAll(async () => {
  await gamma[Symbol.asyncDispose]();
});

interface EchoReply {
  readonly name: string;
  readonly metadata: Readonly<Record<string, readonly string[]>>;
}

function seen(reply: Reply | undefined): EchoReply {
  if (reply?.grpcStatus !== 0) throw new Error(`no answer of echo: ${JSON.stringify(reply)}`);
  return JSON.parse(reply.body) as EchoReply;
}

test('MeshGRPCRouteWeight: 70 to 30, and a backend without weight that does not exist', async () => {
  const backends =
    'backendRefs: [{name: echo-v1, port: 7070, weight: 70}, {name: echo-v2, port: 7070, weight: 30}, {name: echo-v3, port: 7070, weight: 0}]';
  gamma.routes(routeYaml('weight', `{${parent('echo', 7070)}, rules: [{${backends}}]}`, 'GRPCRoute'));
  const call = { url: 'echo:7070', grpc: 'echo.Echo/Unary', count: 500, atOnce: 10 };
  await gamma.expectReplies([call], (replies) => {
    const hits = replies.filter((reply) => seen(reply).name === 'echo-v1').length;
    expect(Math.abs(hits - 350)).toBeLessThanOrEqual(1);
  });
});

test('MeshGRPCRouteRequestHeaderModifier: metadata is set, added to and removed', async () => {
  const edit =
    'filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: set}], add: [{name: x-add, value: added}], remove: [x-remove]}}]';
  gamma.routes(
    routeYaml(
      'modify',
      `{${parent('echo', 7070)}, rules: [{${edit}, backendRefs: [{name: echo-v1, port: 7070}]}]}`,
      'GRPCRoute',
    ),
  );
  const headers = { 'x-set': 'before', 'x-add': 'before', 'x-remove': 'before', 'x-kept': 'kept' };
  await gamma.expectReplies([{ url: 'echo:7070', grpc: 'echo.Echo/Unary', headers }], ([reply]) => {
    const { metadata } = seen(reply);
    expect(metadata['x-set']).toEqual(['set']);
    expect(metadata['x-add']?.join(', ')).toBe('before, added');
    expect(metadata['x-remove']).toBeUndefined();
    expect(metadata['x-kept']).toEqual(['kept']);
  });
});

test('a method is matched by service and name, what matches nothing is UNIMPLEMENTED, and statuses pass', async () => {
  const match =
    'matches: [{method: {service: echo.Echo, method: Unary}}, {method: {service: echo.Echo, method: Fail}}]';
  gamma.routes(
    routeYaml(
      'method',
      `{${parent('echo', 7070)}, rules: [{${match}, backendRefs: [{name: echo-v2, port: 7070}]}]}`,
      'GRPCRoute',
    ),
  );
  const url = 'echo:7070';
  await gamma.expectReplies(
    [
      { url, grpc: 'echo.Echo/Unary' },
      { url, grpc: 'echo.Echo/Other' },
      { url, grpc: 'echo.Echo/Fail', headers: { 'x-status': '9' } },
    ],
    ([unary, other, fail]) => {
      expect(seen(unary).name).toBe('echo-v2');
      expect(other?.grpcStatus).toBe(12);
      expect(fail?.grpcStatus).toBe(9);
    },
  );
});
