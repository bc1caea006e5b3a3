import { Command } from 'commander';
import { expect, test } from 'vitest';
import { CliError } from '../cli-error.ts';
import { checkFiles, registerCheck } from './check.ts';

const FIXTURES = 'test/fixtures/objects';

// A cluster with every kind, as a stock istiod was seen to serve it.
const CLUSTER = 'test/fixtures/istiod/objects.yaml';

test('good objects are counted, and nothing else is said of them', async () => {
  const report = await checkFiles({ file: [`${FIXTURES}/folder`], output: 'text' });
  expect(report).toEqual({ text: '3 objects, 0 errors, 0 warnings', notes: [], hasErrors: false });
});

test('each problem is a line with its place, path, message and effect, in order', async () => {
  const file = `${FIXTURES}/bad/peer-authentication.yaml`;
  const { text, hasErrors } = await checkFiles({ file: [file], output: 'text' });
  const [first, second] = text.split('\n');
  const values = '"strict" is not one of UNSET, DISABLE, PERMISSIVE, STRICT; did you mean STRICT?';
  expect(first).toBe(`${file}:4:21: spec.mtls.mode: ${values} (denies what it selects)`);
  expect(second).toContain(`${file}:9:23: spec.portLevelMtls: needs a selector`);
  expect(hasErrors).toBe(true);
});

test('warnings do not fail, and objects of other kinds are listed', async () => {
  const { text, hasErrors } = await checkFiles({
    file: [`${FIXTURES}/bad/doubtful-policies.yaml`],
    output: 'text',
  });
  expect(text).toContain(
    ':3:53: metadata.lables: warning: unknown field "lables"; did you mean labels? (ignored)',
  );
  expect(hasErrors).toBe(false);
  const kinds = await checkFiles({ file: [`${FIXTURES}/bad/kinds.yaml`], output: 'text' });
  expect(kinds.text).toContain('kinds.yaml:2:1: Deployment shop/cart is of a kind that is not read');
});

test('a path that is not there fails', async () => {
  const report = await checkFiles({ file: ['/nowhere/mesh'], output: 'text' });
  expect(report.hasErrors).toBe(true);
  expect(report.text).toContain('/nowhere/mesh: mesh is not there (ignored)');
});

test('JSON has the same', async () => {
  const { text } = await checkFiles({ file: [`${FIXTURES}/bad/kinds.yaml`], output: 'json' });
  expect(JSON.parse(text)).toMatchObject({
    valid: false,
    objects: ['Namespace shop', 'ServiceAccount shop/web'],
    unread: expect.arrayContaining([
      { object: 'Deployment shop/cart', position: `${FIXTURES}/bad/kinds.yaml:2:1` },
    ]),
    problems: expect.arrayContaining([
      {
        object: 'AuthorizationPolicy pay/p',
        position: `${FIXTURES}/bad/kinds.yaml:28:13`,
        path: 'apiVersion',
        message: expect.stringContaining('did you mean apiVersion: security.istio.io/v1?'),
        severity: 'error',
        effect: 'denies what it selects',
      },
    ]),
  });
});

test('resources are printed by type and name, problems beside them', async () => {
  const resources = { kind: 'ztunnel', node: 'n1' } as const;
  const { text, notes, hasErrors } = await checkFiles({
    file: [CLUSTER],
    resources,
    output: 'text',
  });
  const { Address: addresses, Authorization: authorizations, ...rest } = JSON.parse(text);
  expect(rest).toEqual({});
  expect(Object.keys(addresses)).toEqual(Object.keys(addresses).sort());
  expect(Object.keys(authorizations)).toEqual(Object.keys(authorizations).sort());
  expect(addresses['Kubernetes//Pod/shop/web-1']).toMatchObject({
    workload: { addresses: ['10.1.1.11'], node: 'n1' },
  });
  expect(addresses['shop/dns.partner.example'].service.addresses).toEqual([
    { address: '240.240.0.1' },
    { address: '2001:0002:0000:0000:0000:0000:0000:0001' },
  ]);
  expect(authorizations['istio-system/istio_converted_static_strict'].rules).toEqual([
    { clauses: [{ matches: [{ notPrincipals: [{ presence: {} }] }] }] },
  ]);
  expect(notes).not.toContainEqual(expect.stringContaining('no Node'));
  expect(hasErrors).toBe(false);
});

test('resources of a waypoint are printed as JSON of Envoy, by type and name', async () => {
  const resources = { kind: 'waypoint', namespace: 'pay', name: 'wp' } as const;
  const { text, hasErrors } = await checkFiles({ file: [CLUSTER], resources, output: 'text' });
  const printed = JSON.parse(text);
  expect(Object.keys(printed)).toEqual([
    'Cluster',
    'ClusterLoadAssignment',
    'Secret',
    'Listener',
    'RouteConfiguration',
    'Authorization',
  ]);
  const name = 'inbound-vip|80|http|ledger.pay.svc.cluster.local';
  expect(printed.RouteConfiguration[name].virtualHosts[0].routes[0].match).toMatchObject({
    pathSeparatedPrefix: '/v2',
  });
  expect(printed.Listener[name].filterChains[0].filters[0].typedConfig['@type']).toMatch(
    /HttpConnectionManager$/,
  );
  expect(hasErrors).toBe(false);
});

test('a node that nothing names is printed with a note', async () => {
  const resources = { kind: 'ztunnel', node: 'n9' } as const;
  const { notes } = await checkFiles({ file: [`${FIXTURES}/folder`], resources, output: 'text' });
  expect(notes).toEqual(['warning: no Node and no Pod names a node n9; every ztunnel is served the same']);
});

test.each([
  { given: 'waypoint/shop/wp', exitCode: 1, message: 'no Gateway of a waypoint class is called shop/wp' },
  { given: 'ztunnel', exitCode: 2, message: 'write ztunnel/NODE' },
  { given: 'waypoint/wp', exitCode: 2, message: 'write ztunnel/NODE' },
  { given: 'gateway/n1', exitCode: 2, message: 'write ztunnel/NODE' },
])('--resources $given ends with exit code $exitCode', async ({ given, exitCode, message }) => {
  const program = new Command();
  registerCheck(program);
  const ended = program.parseAsync(['check', '-f', `${FIXTURES}/folder`, '--resources', given], {
    from: 'user',
  });
  const error = await ended.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(CliError);
  expect(error).toMatchObject({ exitCode, message: expect.stringContaining(message) });
});
