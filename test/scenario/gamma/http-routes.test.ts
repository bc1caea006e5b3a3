import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Call, type Reply, seenBy } from '#test/kit/programs/calls.ts';
import {
  CLIENT,
  CONSUMER,
  CONSUMER_CLIENT,
  type GammaMesh,
  MESH,
  openGammaMesh,
  parent,
  routeYaml,
} from './mesh.ts';

/**
 * Every behaviour of the Gateway API's mesh conformance tests (v1.6) that is about HTTP: kubernetes-sigs/gateway-api,
 * `conformance/tests/mesh`.
 */
let gamma: GammaMesh;

beforeAll(async () => {
  gamma = await openGammaMesh();
});
afterAll(async () => {
  await gamma[Symbol.asyncDispose]();
});

/** Sends the calls under the routes and compares what each reply is reduced to. */
async function expectUnder(
  routes: string,
  rows: readonly (readonly [call: Call, expected: unknown])[],
  reduce: (reply: Reply) => unknown,
  client: string = CLIENT,
): Promise<void> {
  gamma.routes(routes);
  await gamma.expectReplies(
    rows.map(([call]) => call),
    (replies) => expect(replies.map(reduce)).toEqual(rows.map(([, expected]) => expected)),
    client,
  );
}

/** Who answered, or the status of those that nobody did. */
function backend(reply: Reply): unknown {
  return reply.status === 200 ? seenBy(reply).name : reply.status;
}

function location({ status, headers }: Reply): unknown {
  return [status, headers['location']];
}

const to = (name: string, more = ''): string => `backendRefs: [{name: ${name}, port: 80${more}}]`;

test('MeshBasic: without routes a service answers', async () => {
  await expectUnder('', [[{ url: 'http://echo/' }, 200]], ({ status }) => status);
});

test('MeshTrafficSplit: paths go to different backends', async () => {
  const split = routeYaml(
    'split',
    `{${parent('echo')}, rules: [{matches: [{path: {type: Exact, value: /v1}}], ${to('echo-v1')}}, {matches: [{path: {type: Exact, value: /v2}}], ${to('echo-v2')}}]}`,
  );
  await expectUnder(
    split,
    [
      [{ url: 'http://echo/v1' }, 'echo-v1'],
      [{ url: 'http://echo/v2' }, 'echo-v2'],
      [{ url: 'http://echo/v3' }, 404],
    ],
    backend,
  );
});

test('MeshHTTPRouteSimpleSameNamespace: a route with one backend', async () => {
  await expectUnder(
    routeYaml('simple', `{${parent('echo')}, rules: [{${to('echo-v1')}}]}`),
    [[{ url: 'http://echo/' }, 'echo-v1']],
    backend,
  );
});

test('MeshHTTPRouteMatching: path prefixes by segment, and headers', async () => {
  const route = routeYaml(
    'matching',
    `{${parent('echo')}, rules: [
      {matches: [{path: {type: PathPrefix, value: /}}, {headers: [{name: version, value: one}]}], ${to('echo-v1')}},
      {matches: [{path: {type: PathPrefix, value: /v2}}, {headers: [{name: version, value: two}]}], ${to('echo-v2')}}]}`,
  );
  await expectUnder(
    route,
    [
      [{ url: 'http://echo/' }, 'echo-v1'],
      [{ url: 'http://echo/example' }, 'echo-v1'],
      [{ url: 'http://echo/', headers: { version: 'one' } }, 'echo-v1'],
      [{ url: 'http://echo/v2' }, 'echo-v2'],
      [{ url: 'http://echo/v2/' }, 'echo-v2'],
      [{ url: 'http://echo/v2/example' }, 'echo-v2'],
      [{ url: 'http://echo/', headers: { Version: 'two' } }, 'echo-v2'],
      [{ url: 'http://echo/v2example' }, 'echo-v1'],
      [{ url: 'http://echo/foo/v2/example' }, 'echo-v1'],
    ],
    backend,
  );
});

test('MeshHTTPRouteRedirectHostAndStatus: the client is sent to another host', async () => {
  const redirect = (path: string, more: string): string =>
    `{matches: [{path: {type: PathPrefix, value: ${path}}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: example.org${more}}}]}`;
  await expectUnder(
    routeYaml(
      'redirect',
      `{${parent('echo', 80)}, rules: [${redirect('/hostname-redirect', '')}, ${redirect('/host-and-status', ', statusCode: 301')}]}`,
    ),
    [
      [{ url: 'http://echo/hostname-redirect' }, [302, 'http://example.org/hostname-redirect']],
      [{ url: 'http://echo/host-and-status' }, [301, 'http://example.org/host-and-status']],
    ],
    location,
  );
});

const MODIFIED: readonly (readonly [Call, unknown])[] = [
  [
    { url: 'http://echo/set', headers: { 'Some-Other-Header': 'val' } },
    { 'some-other-header': 'val', 'x-header-set': 'set-overwrites-values' },
  ],
  [
    { url: 'http://echo/set', headers: { 'X-Header-Set': 'some-other-value' } },
    { 'x-header-set': 'set-overwrites-values' },
  ],
  [{ url: 'http://echo/add' }, { 'x-header-add': 'add-appends-values' }],
  [
    { url: 'http://echo/add', headers: { 'X-Header-Add': 'some-other-value' } },
    { 'x-header-add': 'some-other-value, add-appends-values' },
  ],
  [{ url: 'http://echo/remove', headers: { 'X-Header-Remove': 'val' } }, {}],
  [
    {
      url: 'http://echo/multiple',
      headers: {
        'X-Header-Set-2': 'a',
        'X-Header-Add-2': 'b',
        'x-header-remove-2': 'c',
        'Another-Header': 'd',
      },
    },
    {
      'x-header-set-1': 'header-set-1',
      'x-header-set-2': 'header-set-2',
      'x-header-add-1': 'header-add-1',
      'x-header-add-2': 'b, header-add-2',
      'another-header': 'd',
    },
  ],
  [
    {
      url: 'http://echo/case',
      headers: { 'x-HEADER-set': 'a', 'X-header-ADD': 'b', 'X-HEADER-remove': 'c' },
    },
    { 'x-header-set': 'header-set', 'x-header-add': 'b, header-add' },
  ],
];

const MODIFIERS: readonly (readonly [string, string])[] = [
  ['/set', 'set: [{name: X-Header-Set, value: set-overwrites-values}]'],
  ['/add', 'add: [{name: X-Header-Add, value: add-appends-values}]'],
  ['/remove', 'remove: [X-Header-Remove]'],
  [
    '/multiple',
    'set: [{name: X-Header-Set-1, value: header-set-1}, {name: X-Header-Set-2, value: header-set-2}], add: [{name: X-Header-Add-1, value: header-add-1}, {name: X-Header-Add-2, value: header-add-2}], remove: [X-Header-Remove-1, X-Header-Remove-2]',
  ],
  [
    '/case',
    'set: [{name: X-Header-Set, value: header-set}], add: [{name: X-Header-Add, value: header-add}], remove: [X-Header-Remove]',
  ],
];

/** Headers that the rows above are about, as the backend saw them. */
function modified(reply: Reply): unknown {
  const { headers } = seenBy(reply);
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => /^x-header-|^some-other|^another/.test(name)),
  );
}

test('MeshHTTPRouteRequestHeaderModifier: set, add and remove, whatever the case', async () => {
  const rules = MODIFIERS.map(
    ([path, edit]) =>
      `{matches: [{path: {type: PathPrefix, value: ${path}}}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {${edit}}}], ${to('echo-v1')}}`,
  );
  await expectUnder(
    routeYaml('modify', `{${parent('echo')}, rules: [${rules.join(', ')}]}`),
    MODIFIED,
    modified,
  );
});

test('MeshHTTPRouteBackendRequestHeaderModifier: the same on a backend', async () => {
  const rules = MODIFIERS.map(
    ([path, edit]) =>
      `{matches: [{path: {type: PathPrefix, value: ${path}}}], ${to('echo-v1', `, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {${edit}}}]`)}}`,
  );
  await expectUnder(
    routeYaml('modify', `{${parent('echo')}, rules: [${rules.join(', ')}]}`),
    MODIFIED,
    modified,
  );
});

describe('MeshHTTPRouteWeight', () => {
  test.each([
    [70, 30],
    [100, 0],
    [1, 3],
  ])('%i to %i: 500 calls are split to within one of exact', async (first, second) => {
    const backends = `backendRefs: [{name: echo-v1, port: 80, weight: ${first}}, {name: echo-v2, port: 80, weight: ${second}}, {name: nowhere, port: 80, weight: 0}]`;
    gamma.routes(routeYaml('weight', `{${parent('echo')}, rules: [{${backends}}]}`));
    const share = (500 * first) / (first + second);
    await gamma.expectReplies([{ url: 'http://echo/', count: 500, atOnce: 10 }], (replies) => {
      expect(replies.map(({ status }) => status).filter((status) => status !== 200)).toEqual([]);
      const hits = replies.filter((reply) => seenBy(reply).name === 'echo-v1').length;
      expect(Math.abs(hits - share)).toBeLessThanOrEqual(1);
    });
  });
});

test('MeshHTTPRouteQueryParamMatching: ANDed in a match, ORed across; a longer path counts more', async () => {
  const query = (...params: readonly (readonly [string, string])[]): string =>
    `queryParams: [${params.map(([name, value]) => `{name: ${name}, value: ${value}}`).join(', ')}]`;
  const route = routeYaml(
    'query',
    `{${parent('echo')}, rules: [
      {matches: [{${query(['animal', 'whale'])}}], ${to('echo-v1')}},
      {matches: [{${query(['animal', 'dolphin'])}}], ${to('echo-v2')}},
      {matches: [{${query(['animal', 'dolphin'], ['color', 'blue'])}}, {${query(['ANIMAL', 'Whale'])}}], ${to('echo-v1')}},
      {matches: [{path: {type: PathPrefix, value: /path1}, ${query(['animal', 'whale'])}}], ${to('echo-v1')}},
      {matches: [{headers: [{name: version, value: one}], ${query(['animal', 'whale'])}}], ${to('echo-v2')}},
      {matches: [{path: {type: PathPrefix, value: /path5}, ${query(['animal', 'hydra'])}}, {path: {type: PathPrefix, value: /path5/deeper}}], ${to('echo-v2')}}]}`,
  );
  await expectUnder(
    route,
    [
      [{ url: 'http://echo/?animal=whale' }, 'echo-v1'],
      [{ url: 'http://echo/?animal=dolphin' }, 'echo-v2'],
      [{ url: 'http://echo/?animal=whale&otherparam=irrelevant' }, 'echo-v1'],
      [{ url: 'http://echo/?animal=dolphin&color=yellow' }, 'echo-v2'],
      [{ url: 'http://echo/?color=blue&animal=dolphin' }, 'echo-v1'],
      [{ url: 'http://echo/?ANIMAL=Whale' }, 'echo-v1'],
      [{ url: 'http://echo/path1?animal=whale' }, 'echo-v1'],
      [{ url: 'http://echo/?animal=whale', headers: { version: 'one' } }, 'echo-v2'],
      [{ url: 'http://echo/path5/deeper?animal=whale' }, 'echo-v2'],
      [{ url: 'http://echo/' }, 404],
      [{ url: 'http://echo/?animal=shark' }, 404],
      [{ url: 'http://echo/?Animal=whale' }, 404],
    ],
    backend,
  );
});

test('MeshHTTPRouteRedirectPath: prefix and full path, with host and status', async () => {
  const redirect = (path: string, type: string, field: string, value: string, more = ''): string =>
    `{matches: [{path: {type: PathPrefix, value: ${path}}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ${type}, ${field}: ${value}}${more}}}]}`;
  const rules = [
    redirect('/original-prefix', 'ReplacePrefixMatch', 'replacePrefixMatch', '/replacement-prefix'),
    redirect('/full', 'ReplaceFullPath', 'replaceFullPath', '/full-path-replacement'),
    redirect(
      '/path-and-host',
      'ReplacePrefixMatch',
      'replacePrefixMatch',
      '/replacement-prefix',
      ', hostname: example.org',
    ),
    redirect(
      '/path-and-status',
      'ReplacePrefixMatch',
      'replacePrefixMatch',
      '/replacement-prefix',
      ', statusCode: 301',
    ),
    redirect(
      '/full-path-and-host',
      'ReplaceFullPath',
      'replaceFullPath',
      '/replacement-full',
      ', hostname: example.org',
    ),
    redirect(
      '/full-path-and-status',
      'ReplaceFullPath',
      'replaceFullPath',
      '/replacement-full',
      ', statusCode: 301',
    ),
  ];
  await expectUnder(
    routeYaml('redirect', `{${parent('echo', 80)}, rules: [${rules.join(', ')}]}`),
    [
      [{ url: 'http://echo/original-prefix/lemon' }, [302, 'http://echo/replacement-prefix/lemon']],
      [{ url: 'http://echo/full/path/original' }, [302, 'http://echo/full-path-replacement']],
      [{ url: 'http://echo/path-and-host/lemon' }, [302, 'http://example.org/replacement-prefix/lemon']],
      [{ url: 'http://echo/path-and-status/lemon' }, [301, 'http://echo/replacement-prefix/lemon']],
      [{ url: 'http://echo/full-path-and-host/lemon' }, [302, 'http://example.org/replacement-full']],
      [{ url: 'http://echo/full-path-and-status/lemon' }, [301, 'http://echo/replacement-full']],
    ],
    location,
  );
});

test('MeshHTTPRouteRedirectPort: the port of the redirect', async () => {
  const redirect = (path: string, more: string): string =>
    `{matches: [{path: {type: PathPrefix, value: ${path}}}], filters: [{type: RequestRedirect, requestRedirect: {port: 8083${more}}}]}`;
  await expectUnder(
    routeYaml(
      'redirect',
      `{${parent('echo', 80)}, rules: [${redirect('/port', '')}, ${redirect('/port-and-host', ', hostname: example.org')}, ${redirect('/port-and-status', ', statusCode: 301')}]}`,
    ),
    [
      [{ url: 'http://echo/port' }, [302, 'http://echo:8083/port']],
      [{ url: 'http://echo/port-and-host' }, [302, 'http://example.org:8083/port-and-host']],
      [{ url: 'http://echo/port-and-status' }, [301, 'http://echo:8083/port-and-status']],
    ],
    location,
  );
});

test('MeshHTTPRouteSchemeRedirect: the scheme of the redirect', async () => {
  const redirect = (path: string, more: string): string =>
    `{matches: [{path: {type: PathPrefix, value: ${path}}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https${more}}}]}`;
  await expectUnder(
    routeYaml(
      'redirect',
      `{${parent('echo', 80)}, rules: [${redirect('/scheme', '')}, ${redirect('/scheme-and-host', ', hostname: example.org')}, ${redirect('/scheme-and-status', ', statusCode: 301')}]}`,
    ),
    [
      [{ url: 'http://echo/scheme' }, [302, 'https://echo/scheme']],
      [{ url: 'http://echo/scheme-and-host' }, [302, 'https://example.org/scheme-and-host']],
      [{ url: 'http://echo/scheme-and-status' }, [301, 'https://echo/scheme-and-status']],
    ],
    location,
  );
});

test('MeshHTTPRouteRewritePath: prefix, root and full path, together with header edits', async () => {
  const rewrite = (path: string, type: string, field: string, value: string, more = ''): string =>
    `{matches: [{path: {type: PathPrefix, value: ${path}}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ${type}, ${field}: ${value}}}}${more}], ${to('echo-v1')}}`;
  const edit =
    ', {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Header-Set, value: set-overwrites-values}], add: [{name: X-Header-Add, value: header-val-1}], remove: [X-Header-Remove]}}';
  const rules = [
    rewrite('/prefix/one', 'ReplacePrefixMatch', 'replacePrefixMatch', '/one'),
    rewrite('/strip-prefix', 'ReplacePrefixMatch', 'replacePrefixMatch', '/'),
    rewrite('/full/one', 'ReplaceFullPath', 'replaceFullPath', '/one'),
    rewrite('/full/rewrite-path-and-modify-headers', 'ReplaceFullPath', 'replaceFullPath', '/test', edit),
    rewrite(
      '/prefix/rewrite-path-and-modify-headers',
      'ReplacePrefixMatch',
      'replacePrefixMatch',
      '/prefix',
      edit,
    ),
  ];
  const seen = (reply: Reply): unknown => [seenBy(reply).path, modified(reply)];
  await expectUnder(
    routeYaml('rewrite', `{${parent('echo')}, rules: [${rules.join(', ')}]}`),
    [
      [{ url: 'http://echo/prefix/one/two' }, ['/one/two', {}]],
      [{ url: 'http://echo/prefix/one' }, ['/one', {}]],
      [{ url: 'http://echo/strip-prefix/three' }, ['/three', {}]],
      [{ url: 'http://echo/strip-prefix' }, ['/', {}]],
      [{ url: 'http://echo/strip-prefix/' }, ['/', {}]],
      [{ url: 'http://echo/full/one/two' }, ['/one', {}]],
      [
        {
          url: 'http://echo/full/rewrite-path-and-modify-headers/test',
          headers: { 'X-Header-Remove': 'remove-val', 'X-Header-Add': 'header-val-0', 'X-Header-Set': 'a' },
        },
        ['/test', { 'x-header-set': 'set-overwrites-values', 'x-header-add': 'header-val-0, header-val-1' }],
      ],
      [
        { url: 'http://echo/prefix/rewrite-path-and-modify-headers/one' },
        ['/prefix/one', { 'x-header-set': 'set-overwrites-values', 'x-header-add': 'header-val-1' }],
      ],
    ],
    seen,
  );
});

test('MeshHTTPRouteNamedRule: a rule with a name works as any other', async () => {
  const route = routeYaml(
    'named',
    `{${parent('echo')}, rules: [{name: named-rule, matches: [{path: {type: PathPrefix, value: /named}}], ${to('echo-v1')}}, {matches: [{path: {type: PathPrefix, value: /unnamed}}], ${to('echo-v2')}}]}`,
  );
  await expectUnder(
    route,
    [
      [{ url: 'http://echo/named' }, 'echo-v1'],
      [{ url: 'http://echo/unnamed' }, 'echo-v2'],
    ],
    backend,
  );
});

test.each([303, 307, 308])('MeshHTTPRoute%iRedirect: the status of the redirect', async (code) => {
  const rule = `{filters: [{type: RequestRedirect, requestRedirect: {hostname: example.org, statusCode: ${code}}}]}`;
  await expectUnder(
    routeYaml('redirect', `{${parent('echo', 80)}, rules: [${rule}]}`),
    [[{ url: 'http://echo/a' }, [code, 'http://example.org/a']]],
    location,
  );
});

const HEADER_SET =
  'filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Header-Set, value: set}]}}]';
const headerSet = ({ headers }: Reply): unknown => headers['x-header-set'];

test('MeshFrontend: a route is met through its service, and not at the address of a pod', async () => {
  const { workloads } = await gamma.mesh.status();
  const pod = workloads.find(({ namespace, name }) => namespace === MESH && name === 'echo-v2');
  await expectUnder(
    routeYaml('frontend', `{${parent('echo-v2')}, rules: [{${HEADER_SET}, ${to('echo-v2')}}]}`),
    [
      [{ url: 'http://echo-v2/' }, 'set'],
      [{ url: `http://${pod?.addresses[0]}:8080/` }, undefined],
    ],
    headerSet,
  );
});

test('MeshFrontendHostname: what counts is who was dialled, not the Host', async () => {
  await expectUnder(
    routeYaml('hostname', `{${parent('echo-v2')}, rules: [{${HEADER_SET}, ${to('echo-v2')}}]}`),
    [
      [{ url: 'http://echo-v2/', headers: { Host: 'echo-v1' } }, 'set'],
      [{ url: 'http://echo-v1/', headers: { Host: 'echo-v2' } }, undefined],
    ],
    headerSet,
  );
});

test('MeshPorts: a route for one port leaves the others alone, one without a port is for all', async () => {
  const routes =
    routeYaml(
      'one',
      `{${parent('echo-v1', 80)}, rules: [{${HEADER_SET.replace('value: set', 'value: v1')}, ${to('echo-v1')}}]}`,
    ) +
    routeYaml(
      'all',
      `{${parent('echo-v2')}, rules: [{${HEADER_SET.replace('value: set', 'value: v2')}, ${to('echo-v2')}}]}`,
    );
  await expectUnder(
    routes,
    [
      [{ url: 'http://echo-v1/' }, 'v1'],
      [{ url: 'http://echo-v1:8090/' }, undefined],
      [{ url: 'http://echo-v2/' }, 'v2'],
      [{ url: 'http://echo-v2:8090/' }, 'v2'],
    ],
    headerSet,
  );
});

test('MeshConsumerRoute: a route of another namespace is for the callers of that namespace only', async () => {
  const backends = `backendRefs: [{name: echo-v1, namespace: ${MESH}, port: 80}]`;
  gamma.routes(
    routeYaml(
      'consumer',
      `{${parent('echo-v1', undefined, MESH)}, rules: [{${HEADER_SET}, ${backends}}]}`,
      'HTTPRoute',
      CONSUMER,
    ) +
      `apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: consumer, namespace: ${MESH}}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: ${CONSUMER}}], to: [{group: "", kind: Service}]}
`,
  );
  const url = `http://echo-v1.${MESH}/`;
  await gamma.expectReplies(
    [{ url }],
    ([reply]) => expect(headerSet(reply as Reply)).toBe('set'),
    CONSUMER_CLIENT,
  );
  await gamma.expectReplies([{ url }], ([reply]) => {
    expect(reply?.status).toBe(200);
    expect(headerSet(reply as Reply)).toBeUndefined();
  });
});
