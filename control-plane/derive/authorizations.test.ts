import { describe, expect, test } from 'vitest';
import { EMPTY_MATCH } from '#api/policy.ts';
import { deriveText, objectsOf, objectYaml, podOf, podYaml, policyOf } from '#test/kit/objects.ts';
import type { BrokenPolicy } from '../source/objects.ts';
import { deriveSnapshot } from './snapshot.ts';
import { NO_VIPS } from './vips.ts';

const HBONE = 'annotations: {ambient.istio.io/redirection: enabled}';
const policy = (name: string, spec: string, fields = ''): string =>
  objectYaml('AuthorizationPolicy', name, spec, fields);
const derive = (spec: string, fields = '') => policyOf(deriveText(policy('shop/p', spec, fields)), 'shop/p');
const matchesOf = (rule: string) =>
  derive(`{action: DENY, rules: [${rule}]}`)?.rules[0]?.clauses.map(({ matches }) => matches);
const reasonsOf = (spec: string, fields = '') =>
  deriveText(policy('shop/p', spec, fields)).policies[0]?.ineffective;

describe('the scope of a policy', () => {
  test.each([
    ['shop/p', '{}', 'NAMESPACE'],
    ['istio-system/p', '{}', 'GLOBAL'],
    ['shop/p', '{selector: {matchLabels: {app: a}}}', 'WORKLOAD_SELECTOR'],
    ['istio-system/p', '{selector: {matchLabels: {app: a}}}', 'WORKLOAD_SELECTOR'],
    ['shop/p', '{selector: {}}', 'NAMESPACE'],
    ['istio-system/p', '{selector: {matchLabels: {}}}', 'GLOBAL'],
  ])('of %s with %s is %s', (name, spec, scope) => {
    expect(policyOf(deriveText(policy(name, spec)), name)?.scope).toBe(scope);
  });
});

describe('a rule', () => {
  test('is all of to, from and each when, in this order', () => {
    const rule =
      '{when: [{key: source.ip, values: [10.0.0.1], notValues: [10.0.0.2]}, {key: source.namespace, values: [a]}], from: [{source: {namespaces: [b]}}], to: [{operation: {ports: ["80"]}}]}';
    expect(matchesOf(rule)).toEqual([
      [{ ...EMPTY_MATCH, destinationPorts: [80] }],
      [{ ...EMPTY_MATCH, namespaces: [{ kind: 'exact', value: 'b' }] }],
      [
        {
          ...EMPTY_MATCH,
          sourceIps: [{ address: '10.0.0.1', length: 32 }],
          notSourceIps: [{ address: '10.0.0.2', length: 32 }],
        },
      ],
      [{ ...EMPTY_MATCH, namespaces: [{ kind: 'exact', value: 'a' }] }],
    ]);
  });

  test('matches all with nothing in it, and a policy without rules matches nothing', () => {
    expect(derive('{rules: [{}]}')?.rules).toEqual([{ clauses: [] }]);
    expect(derive('{}')?.rules).toEqual([]);
  });

  test.each([
    ['*', { kind: 'presence' }],
    ['*-dev', { kind: 'suffix', value: '-dev' }],
    ['dev-*', { kind: 'prefix', value: 'dev-' }],
    ['dev', { kind: 'exact', value: 'dev' }],
  ])('takes the pattern %s', (pattern, match) => {
    expect(matchesOf(`{from: [{source: {namespaces: ["${pattern}"]}}]}`)).toEqual([
      [{ ...EMPTY_MATCH, namespaces: [match] }],
    ]);
  });

  test('takes service accounts of its own namespace by name alone', () => {
    expect(matchesOf('{from: [{source: {serviceAccounts: [a, other/b], notServiceAccounts: [c]}}]}')).toEqual(
      [
        [
          {
            ...EMPTY_MATCH,
            serviceAccounts: [
              { namespace: 'shop', serviceAccount: 'a' },
              { namespace: 'other', serviceAccount: 'b' },
            ],
            notServiceAccounts: [{ namespace: 'shop', serviceAccount: 'c' }],
          },
        ],
      ],
    );
  });

  test('takes addresses of both families, with their host bits as they are written', () => {
    expect(matchesOf('{from: [{source: {ipBlocks: [10.1.2.3/8, "fd00::1"]}}]}')).toEqual([
      [
        {
          ...EMPTY_MATCH,
          sourceIps: [
            { address: '10.1.2.3', length: 8 },
            { address: 'fd00::1', length: 128 },
          ],
        },
      ],
    ]);
  });
});

describe('what a ztunnel can not see', () => {
  test('takes a rule of ALLOW with it', () => {
    const spec = '{rules: [{to: [{operation: {paths: [/a]}}]}, {from: [{source: {namespaces: [a]}}]}]}';
    expect(derive(spec)?.rules).toHaveLength(1);
    expect(reasonsOf(spec)).toEqual([
      { rule: 0, reason: 'ztunnels do not see paths: the rule allows nothing, more is denied than written' },
    ]);
  });

  test('is left out of a rule of DENY, which denies more', () => {
    const spec = '{action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ["80"]}}]}]}';
    expect(derive(spec)?.rules).toEqual([
      { clauses: [{ matches: [{ ...EMPTY_MATCH, destinationPorts: [80] }] }] },
    ]);
    expect(reasonsOf(spec)).toEqual([
      {
        rule: 0,
        reason: 'ztunnels do not see methods: the rule denies without regard to it, more than written',
      },
    ]);
  });

  test('leaves a rule of DENY that denies everything when it is all there was', () => {
    expect(reasonsOf('{action: DENY, rules: [{when: [{key: connection.sni, values: [a]}]}]}')).toEqual([
      {
        rule: 0,
        reason:
          'ztunnels do not see connection.sni: the rule denies without regard to it, more than written (a stock ztunnel would deny nothing)',
      },
    ]);
  });

  test('is not an empty source, which matches nothing either', () => {
    expect(
      reasonsOf('{rules: [{from: [{source: {}}]}, {from: [{source: {}}, {source: {namespaces: [a]}}]}]}'),
    ).toEqual([
      {
        rule: 0,
        reason: 'an empty source, operation or condition matches nothing: the rule allows nothing',
      },
    ]);
  });
});

describe('a policy that is not sent', () => {
  test.each([
    ['AUDIT', '{action: AUDIT, rules: [{}]}', ''],
    ['CUSTOM', '{action: CUSTOM, provider: {name: x}, rules: [{}]}', ''],
    ['in dry run', '{action: DENY, rules: [{}]}', 'annotations: {istio.io/dry-run: "true"}'],
  ])('%s says so, rule by rule', (_, spec, fields) => {
    expect(derive(spec, fields)).toBeUndefined();
    expect(reasonsOf(spec, fields)).toMatchObject([{ rule: 0 }]);
  });
});

describe('dry run', () => {
  const mesh = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: "tulle: {dryRunPolicies: true}"}\n---\n`;
  const dry = (value: string): string =>
    policy('shop/p', '{action: DENY, rules: [{}]}', `annotations: {istio.io/dry-run: "${value}"}`);

  test('is sent when the mesh wants it, and is enforced nowhere', () => {
    const snapshot = deriveText(mesh + dry('true'));
    expect(policyOf(snapshot, 'shop/p')?.dryRun).toBe(true);
    expect(snapshot.policies).toMatchObject([
      {
        dryRun: true,
        resource: 'shop/p',
        ineffective: [{ rule: 0, reason: 'dry run: logged, never enforced' }],
      },
    ]);
  });

  test('is off when the annotation is no truth value: then the policy is in force', () => {
    const snapshot = deriveText(dry('maybe'));
    expect(policyOf(snapshot, 'shop/p')?.dryRun).toBe(false);
    expect(snapshot.problems).toMatchObject([
      { path: 'metadata.annotations["istio.io/dry-run"]', severity: 'warning' },
    ]);
  });
});

describe('the policies that a workload lists', () => {
  const text =
    policy('shop/z', '{selector: {matchLabels: {app: a}}, rules: [{}]}') +
    policy('shop/b', '{selector: {matchLabels: {app: a, v: "1"}}, rules: [{}]}') +
    policy('shop/v2', '{selector: {matchLabels: {app: a, v: "2"}}, rules: [{}]}') +
    policy('shop/all', '{rules: [{}]}') +
    policy('shop/audit', '{selector: {matchLabels: {app: a}}, action: AUDIT, rules: [{}]}') +
    policy('other/a', '{selector: {matchLabels: {app: a}}, rules: [{}]}') +
    policy('istio-system/m', '{selector: {matchLabels: {app: a}}, rules: [{}]}');

  test('are those of its namespace and the root namespace that select it, by name', () => {
    const snapshot = deriveText(text + podYaml('shop/p', '10.1.0.1', 'labels: {app: a, v: "1"}'));
    expect(podOf(snapshot, 'shop/p').authorizationPolicies).toEqual(['istio-system/m', 'shop/b', 'shop/z']);
  });

  test('are none without labels', () => {
    expect(podOf(deriveText(text + podYaml('shop/p', '10.1.0.1')), 'shop/p').authorizationPolicies).toEqual(
      [],
    );
  });

  test('follow the root namespace that the mesh sets', () => {
    const mesh = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: "rootNamespace: other"}\n---\n`;
    const snapshot = deriveText(mesh + text + podYaml('shop/p', '10.1.0.1', 'labels: {app: a}'));
    expect(podOf(snapshot, 'shop/p').authorizationPolicies).toEqual(['other/a', 'shop/z']);
  });

  test('a selector that selects nothing is reported', () => {
    const { problems } = deriveText(
      policy('shop/p', '{selector: {matchLabels: {app: nobody}}, rules: [{}]}'),
    );
    expect(problems).toMatchObject([
      { object: 'AuthorizationPolicy shop/p', path: 'spec.selector', severity: 'warning' },
    ]);
  });
});

test('a policy is enforced by the ztunnels of the workloads in the mesh that it applies to', () => {
  const on = (name: string, node: string, fields: string): string =>
    podYaml(name, '10.1.0.1', fields).replace('n1', node);
  const snapshot = deriveText(
    policy('shop/selects', '{selector: {matchLabels: {app: a}}, rules: [{}]}') +
      policy('shop/space', '{rules: [{}]}') +
      policy('istio-system/mesh', '{rules: [{}]}') +
      on('shop/a', 'n1', `labels: {app: a}, ${HBONE}`) +
      on('shop/b', 'n2', HBONE) +
      on('other/c', 'n3', HBONE) +
      on('shop/out', 'n4', 'labels: {app: a}'),
  );
  expect(snapshot.policies.map(({ object, nodes }) => [object, nodes])).toEqual([
    ['AuthorizationPolicy istio-system/mesh', ['n1', 'n2', 'n3']],
    ['AuthorizationPolicy shop/selects', ['n1']],
    ['AuthorizationPolicy shop/space', ['n1', 'n2']],
  ]);
});

describe('a policy that could not be read', () => {
  const position = { file: 'mesh.yaml', line: 3, column: 1 };
  const broken = (fields: Partial<BrokenPolicy>): BrokenPolicy => ({
    kind: 'AuthorizationPolicy',
    name: 'p',
    namespace: 'shop',
    position,
    ...fields,
  });
  const deriveBroken = (policies: readonly BrokenPolicy[], text = '') =>
    deriveSnapshot({ objects: { ...objectsOf(text), broken: policies }, vips: NO_VIPS });
  const DENY_ALL = { action: 'DENY', rules: [{ clauses: [] }] };

  test('denies its namespace, or the mesh from the root namespace', () => {
    expect(policyOf(deriveBroken([broken({})]), 'shop/p')).toMatchObject({ ...DENY_ALL, scope: 'NAMESPACE' });
    const root = deriveBroken([broken({ namespace: 'istio-system' })]);
    expect(policyOf(root, 'istio-system/p')).toMatchObject({ ...DENY_ALL, scope: 'GLOBAL' });
    expect(root.policies).toMatchObject([
      { object: 'AuthorizationPolicy istio-system/p', broken: true, position },
    ]);
  });

  test('denies what it selects, when that could be read', () => {
    const selector = { matchLabels: new Map([['app', 'a']]) };
    const snapshot = deriveBroken([broken({ selector })], podYaml('shop/a', '10.1.0.1', 'labels: {app: a}'));
    expect(policyOf(snapshot, 'shop/p')).toMatchObject({ ...DENY_ALL, scope: 'WORKLOAD_SELECTOR' });
    expect(podOf(snapshot, 'shop/a').authorizationPolicies).toEqual(['shop/p']);
  });

  test('denies beside another of the same name', () => {
    const selector = { matchLabels: new Map([['app', 'a']]) };
    const snapshot = deriveBroken([broken({ selector }), broken({})]);
    expect(policyOf(snapshot, 'shop/p')?.scope).toBe('WORKLOAD_SELECTOR');
    expect(policyOf(snapshot, 'shop/p-2')?.scope).toBe('NAMESPACE');
  });

  test('denies under a name of its own when it is a PeerAuthentication', () => {
    const snapshot = deriveBroken([broken({ kind: 'PeerAuthentication' })]);
    expect(policyOf(snapshot, 'shop/converted_peer_authentication_p')).toMatchObject(DENY_ALL);
  });

  test('denies at its targets only, which is for a waypoint', () => {
    const targetRefs = [{ group: '', kind: 'Service', name: 'a' }];
    const snapshot = deriveBroken([broken({ targetRefs })]);
    expect(policyOf(snapshot, 'shop/p')).toMatchObject({ ...DENY_ALL, scope: 'WORKLOAD_SELECTOR' });
    const reason = expect.stringContaining('there is no Service shop/a');
    expect(snapshot.policies).toMatchObject([{ broken: true, nodes: [], ineffective: [{ reason }] }]);
  });
});
