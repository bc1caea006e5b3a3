import { describe, expect, test } from 'vitest';
import { EMPTY_MATCH } from '#api/policy.ts';
import { deriveText, objectYaml, podOf, podYaml, policyOf } from '#test/kit/objects.ts';

const STATIC = 'istio-system/istio_converted_static_strict';
const OWN = 'shop/converted_peer_authentication_own';
const NO_PRINCIPAL = { matches: [{ ...EMPTY_MATCH, notPrincipals: [{ kind: 'presence' }] }] };
const notPort = (port: number) => ({ matches: [{ ...EMPTY_MATCH, notDestinationPorts: [port] }] });
const strictPort = (port: number) => ({
  clauses: [
    { matches: [{ ...EMPTY_MATCH, notPrincipals: [{ kind: 'presence' }], destinationPorts: [port] }] },
  ],
});

const scope = (name: string, mode: string): string =>
  mode && objectYaml('PeerAuthentication', name, `{mtls: {mode: ${mode}}}`);
const own = (mode: string, ports = ''): string =>
  objectYaml(
    'PeerAuthentication',
    'shop/own',
    `{selector: {matchLabels: {app: a}}${mode && `, mtls: {mode: ${mode}}`}${ports && `, portLevelMtls: {${ports}}`}}`,
  );
const POD = podYaml('shop/p', '10.1.0.1', 'labels: {app: a}');
const listed = (text: string) => podOf(deriveText(text + POD), 'shop/p').authorizationPolicies;

describe('the mode of a workload', () => {
  test.each([
    { mesh: '', space: '', own: '', strict: false },
    { mesh: 'STRICT', space: '', own: '', strict: true },
    { mesh: 'STRICT', space: 'UNSET', own: '', strict: true },
    { mesh: 'STRICT', space: 'PERMISSIVE', own: '', strict: false },
    { mesh: 'STRICT', space: 'DISABLE', own: '', strict: false },
    { mesh: 'PERMISSIVE', space: 'STRICT', own: '', strict: true },
    { mesh: '', space: 'STRICT', own: 'PERMISSIVE', strict: false },
    { mesh: '', space: 'STRICT', own: 'DISABLE', strict: false },
    { mesh: '', space: 'STRICT', own: 'UNSET', strict: true },
    { mesh: '', space: 'PERMISSIVE', own: 'STRICT', strict: true },
  ])('with $mesh in the mesh, $space in the namespace, $own of its own: strict $strict', (given) => {
    const text =
      scope('istio-system/default', given.mesh) +
      scope('shop/default', given.space) +
      (given.own && own(given.own));
    expect(listed(text)).toEqual(given.strict ? [STATIC] : []);
  });

  test('is that of the oldest in its scope, and the others are reported', () => {
    const at = (name: string, mode: string, day: string, selector = ''): string =>
      objectYaml(
        'PeerAuthentication',
        name,
        `{${selector}mtls: {mode: ${mode}}}`,
        `creationTimestamp: "2026-01-${day}T00:00:00Z"`,
      );
    const space = at('shop/a', 'PERMISSIVE', '02') + at('shop/b', 'STRICT', '01');
    expect(listed(space)).toEqual([STATIC]);
    const selector = 'selector: {matchLabels: {app: a}}, ';
    const selecting = at('shop/c', 'STRICT', '04', selector) + at('shop/d', 'PERMISSIVE', '03', selector);
    const snapshot = deriveText(space + selecting + POD);
    expect(podOf(snapshot, 'shop/p').authorizationPolicies).toEqual([]);
    const reported = snapshot.policies.filter(({ ineffective }) => ineffective.length > 0);
    expect(reported.map(({ object }) => object)).toEqual([
      'PeerAuthentication shop/a',
      'PeerAuthentication shop/c',
    ]);
  });

  test('is not that of one in the root namespace with a selector, which is reported', () => {
    const text = own('STRICT').replaceAll('shop', 'istio-system');
    expect(listed(text)).toEqual([]);
    expect(deriveText(text).policies).toMatchObject([{ ineffective: [{ rule: 0 }], nodes: [] }]);
  });
});

test('the policy for STRICT is sent as soon as there is a PeerAuthentication', () => {
  expect(policyOf(deriveText(POD), STATIC)).toBeUndefined();
  expect(policyOf(deriveText(scope('shop/default', 'PERMISSIVE')), STATIC)).toMatchObject({
    scope: 'WORKLOAD_SELECTOR',
    action: 'DENY',
    rules: [{ clauses: [NO_PRINCIPAL] }],
  });
});

describe('ports with a mode of their own', () => {
  test.each([
    {
      when: 'STRICT with an open port',
      text: own('STRICT', '80: {mode: PERMISSIVE}'),
      names: [OWN],
      rules: [{ clauses: [NO_PRINCIPAL, notPort(80)] }],
    },
    {
      when: 'STRICT with open ports under STRICT',
      text: scope('shop/default', 'STRICT') + own('STRICT', '443: {mode: DISABLE}, 80: {mode: PERMISSIVE}'),
      names: [OWN],
      rules: [{ clauses: [NO_PRINCIPAL, notPort(80), notPort(443), NO_PRINCIPAL] }],
    },
    {
      when: 'STRICT with strict ports only',
      text: own('STRICT', '80: {mode: STRICT}'),
      names: [STATIC],
      rules: undefined,
    },
    {
      when: 'nothing said, an open port under STRICT',
      text: scope('istio-system/default', 'STRICT') + own('', '80: {mode: PERMISSIVE}, 81: {mode: STRICT}'),
      names: [OWN],
      rules: [{ clauses: [notPort(80), NO_PRINCIPAL] }],
    },
    {
      when: 'nothing said, an open port under STRICT of the mesh and UNSET of the namespace',
      text:
        scope('istio-system/default', 'STRICT') +
        scope('shop/default', 'UNSET') +
        own('', '80: {mode: PERMISSIVE}'),
      names: [OWN],
      rules: [{ clauses: [notPort(80), NO_PRINCIPAL] }],
    },
    {
      when: 'nothing said, a disabled port under STRICT, which does not lift it',
      text: scope('shop/default', 'STRICT') + own('', '80: {mode: DISABLE}'),
      names: [STATIC],
      rules: [{ clauses: [notPort(80), NO_PRINCIPAL] }],
    },
    {
      when: 'nothing said, strict ports',
      text: own('', '443: {mode: STRICT}, 80: {mode: STRICT}, 81: {mode: PERMISSIVE}'),
      names: [OWN],
      rules: [strictPort(80), strictPort(443)],
    },
    {
      when: 'PERMISSIVE with a strict port',
      text: own('PERMISSIVE', '80: {mode: STRICT}, 81: {mode: DISABLE}'),
      names: [OWN],
      rules: [strictPort(80)],
    },
    {
      when: 'PERMISSIVE with a strict port under STRICT of the mesh',
      text: scope('istio-system/default', 'STRICT') + own('PERMISSIVE', '80: {mode: STRICT}'),
      names: [OWN],
      rules: [strictPort(80)],
    },
    {
      when: 'DISABLE with open ports only',
      text: scope('istio-system/default', 'STRICT') + own('DISABLE', '80: {mode: PERMISSIVE}'),
      names: [],
      rules: undefined,
    },
  ])('$when', ({ text, names, rules }) => {
    const snapshot = deriveText(text + POD);
    expect(podOf(snapshot, 'shop/p').authorizationPolicies).toEqual(names);
    expect(policyOf(snapshot, OWN)?.rules).toEqual(rules);
  });

  test('a disabled port that does not lift STRICT is reported', () => {
    const snapshot = deriveText(scope('shop/default', 'STRICT') + own('', '80: {mode: DISABLE}') + POD);
    const reported = snapshot.policies.find(({ object }) => object.endsWith('own'));
    expect(reported?.ineffective).toEqual([
      { rule: 0, reason: 'port 80: DISABLE does not lift an inherited STRICT; write PERMISSIVE' },
    ]);
  });
});
