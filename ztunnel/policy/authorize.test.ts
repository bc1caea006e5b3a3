import { expect, test } from 'vitest';
import { type Authorization, EMPTY_MATCH, type Match, type Rule, type StringMatch } from '#api/policy.ts';
import { type Identity, parseIdentity } from '#certs/identity.ts';
import { policy, rule, tablesOf, workload } from '#test/kit/resources.ts';
import { authorize, authorizeWithoutIdentity, missingPolicies } from './authorize.ts';
import type { InboundConnection, Verdict } from './verdict.ts';

const WEB: Identity = parseIdentity('spiffe://cluster.local/ns/shop/sa/web');
const FROM_WEB: InboundConnection = {
  sourceIdentity: WEB,
  sourceIp: '10.244.1.2',
  destinationIp: '10.244.2.2',
  destinationPort: 8080,
};
const PLAINTEXT: InboundConnection = {
  sourceIp: '10.244.1.2',
  destinationIp: '10.244.2.2',
  destinationPort: 8080,
};

const exact = (value: string): StringMatch => ({ kind: 'exact', value });
const prefix = (value: string): StringMatch => ({ kind: 'prefix', value });
const suffix = (value: string): StringMatch => ({ kind: 'suffix', value });
const presence: StringMatch = { kind: 'presence' };

function verdict(policies: readonly Authorization[], connection: InboundConnection = FROM_WEB): Verdict {
  return authorize({
    tables: tablesOf(...policies),
    workload: workload({ namespace: 'default', authorizationPolicies: ['default/selected'] }),
    connection,
    missingPolicy: 'allow',
  });
}

const ALLOW = policy({ name: 'allow' });
const DENY = policy({ name: 'deny', action: 'DENY' });

test.each([
  { when: 'there is no policy', policies: [], is: { kind: 'allow', reason: 'no-allow-policy' } },
  {
    when: 'an allow policy matches',
    policies: [ALLOW],
    is: { kind: 'allow', reason: 'allowed-by-policy', policy: 'default/allow', rule: 0 },
  },
  {
    when: 'the second rule of an allow policy matches',
    policies: [policy({ rules: [rule({ destinationPorts: [1] }), rule({ destinationPorts: [8080] })] })],
    is: { kind: 'allow', reason: 'allowed-by-policy', policy: 'default/p', rule: 1 },
  },
  {
    when: 'an allow policy is there and does not match',
    policies: [policy({ rules: [rule({ destinationPorts: [1] })] })],
    is: { kind: 'deny', reason: 'no-allow-matched' },
  },
  {
    when: 'one of two allow policies matches',
    policies: [policy({ name: 'a', rules: [] }), policy({ name: 'b' })],
    is: { kind: 'allow', reason: 'allowed-by-policy', policy: 'default/b', rule: 0 },
  },
  {
    when: 'a deny policy matches',
    policies: [DENY],
    is: { kind: 'deny', reason: 'denied-by-policy', policy: 'default/deny', rule: 0 },
  },
  {
    when: 'a deny and an allow policy match',
    policies: [ALLOW, DENY],
    is: { kind: 'deny', reason: 'denied-by-policy', policy: 'default/deny', rule: 0 },
  },
  {
    when: 'a deny policy does not match and there is no allow policy',
    policies: [policy({ action: 'DENY', rules: [rule({ destinationPorts: [1] })] })],
    is: { kind: 'allow', reason: 'no-allow-policy' },
  },
  {
    when: 'an allow policy has no rules',
    policies: [policy({ rules: [] })],
    is: { kind: 'deny', reason: 'no-allow-matched' },
  },
  {
    when: 'a deny policy has no rules',
    policies: [policy({ action: 'DENY', rules: [] })],
    is: { kind: 'allow', reason: 'no-allow-policy' },
  },
  {
    when: 'the deny policy is of another namespace',
    policies: [policy({ action: 'DENY', namespace: 'other' })],
    is: { kind: 'allow', reason: 'no-allow-policy' },
  },
  {
    when: 'the deny policy is mesh-wide',
    policies: [policy({ action: 'DENY', namespace: 'istio-system', scope: 'GLOBAL' })],
    is: { kind: 'deny', reason: 'denied-by-policy', policy: 'istio-system/p', rule: 0 },
  },
  {
    when: 'the deny policy has a selector and the workload names it',
    policies: [policy({ action: 'DENY', name: 'selected', scope: 'WORKLOAD_SELECTOR' })],
    is: { kind: 'deny', reason: 'denied-by-policy', policy: 'default/selected', rule: 0 },
  },
  {
    when: 'the deny policy has a selector and the workload does not name it',
    policies: [policy({ action: 'DENY', name: 'other', scope: 'WORKLOAD_SELECTOR' })],
    is: { kind: 'allow', reason: 'no-allow-policy' },
  },
])('the verdict is $is.kind ($is.reason) when $when', ({ policies, is }) => {
  expect(verdict(policies)).toEqual({ ...is, dryRun: [] });
});

test.each([
  {
    when: 'a deny policy would match',
    policies: [policy({ name: 'dry', action: 'DENY', dryRun: true })],
    kind: 'allow',
    dryRun: [{ policy: 'default/dry', would: 'deny' }],
  },
  {
    when: 'a deny policy would not match',
    policies: [policy({ name: 'dry', action: 'DENY', dryRun: true, rules: [] })],
    kind: 'allow',
    dryRun: [],
  },
  {
    when: 'an allow policy would match nothing: it does not count as an allow policy',
    policies: [policy({ name: 'dry', dryRun: true, rules: [] })],
    kind: 'allow',
    dryRun: [{ policy: 'default/dry', would: 'deny' }],
  },
  {
    when: 'an allow policy would match what nothing allows',
    policies: [policy({ name: 'none', rules: [] }), policy({ name: 'dry', dryRun: true })],
    kind: 'deny',
    dryRun: [{ policy: 'default/dry', would: 'allow' }],
  },
  {
    when: 'an allow policy would not match what another allows',
    policies: [ALLOW, policy({ name: 'dry', dryRun: true, rules: [] })],
    kind: 'allow',
    dryRun: [],
  },
])('a dry run changes nothing and is reported when $when', ({ policies, kind, dryRun }) => {
  expect(verdict(policies)).toMatchObject({ kind, dryRun });
});

const clauses = (...list: readonly (readonly Partial<Match>[])[]): Rule => ({
  clauses: list.map((matches) => ({ matches: matches.map((match) => ({ ...EMPTY_MATCH, ...match })) })),
});

test.each([
  { when: 'it has no clauses', rules: [clauses()], matches: true },
  { when: 'its clause has no matches', rules: [clauses([])], matches: true },
  { when: 'its only match is empty', rules: [clauses([{}])], matches: false },
  {
    when: 'an empty match stands beside a true one',
    rules: [clauses([{}, { destinationPorts: [8080] }])],
    matches: true,
  },
  {
    when: 'one match of a clause holds',
    rules: [clauses([{ destinationPorts: [1] }, { destinationPorts: [8080] }])],
    matches: true,
  },
  {
    when: 'one of two clauses does not hold',
    rules: [clauses([{ destinationPorts: [8080] }], [{ namespaces: [exact('x')] }])],
    matches: false,
  },
  {
    when: 'both clauses hold',
    rules: [clauses([{ destinationPorts: [8080] }], [{ namespaces: [exact('shop')] }])],
    matches: true,
  },
  {
    when: 'one field of a match does not hold',
    rules: [rule({ destinationPorts: [8080], namespaces: [exact('x')] })],
    matches: false,
  },
  {
    when: 'a field and its negation both hold',
    rules: [rule({ namespaces: [prefix('sh')], notNamespaces: [exact('other')] })],
    matches: true,
  },
  {
    when: 'a field holds and its negation does not',
    rules: [rule({ namespaces: [prefix('sh')], notNamespaces: [exact('other'), exact('shop')] })],
    matches: false,
  },
])('a rule matches ($matches) when $when', ({ rules, matches }) => {
  expect(verdict([policy({ rules })]).kind).toBe(matches ? 'allow' : 'deny');
});

test.each([
  { when: 'its only match is empty', rules: [clauses([{}])], denies: true },
  {
    when: 'an empty match stands beside one that does not hold',
    rules: [clauses([{}, { destinationPorts: [1] }])],
    denies: true,
  },
  {
    when: 'another clause does not hold',
    rules: [clauses([{}], [{ destinationPorts: [1] }])],
    denies: false,
  },
  { when: 'there are no rules', rules: [], denies: false },
])('a DENY fails closed ($denies) when $when', ({ rules, denies }) => {
  expect(verdict([policy({ action: 'DENY', rules })]).kind).toBe(denies ? 'deny' : 'allow');
});

const PRINCIPAL = 'cluster.local/ns/shop/sa/web';
const SERVICE_ACCOUNT = { namespace: 'shop', serviceAccount: 'web' };

test.each<{ match: Partial<Match>; mtls: boolean; plaintext: boolean }>([
  { match: { principals: [exact(PRINCIPAL)] }, mtls: true, plaintext: false },
  { match: { principals: [exact(`spiffe://${PRINCIPAL}`)] }, mtls: false, plaintext: false },
  { match: { principals: [exact('cluster.local/ns/shop/sa/we')] }, mtls: false, plaintext: false },
  { match: { principals: [prefix('cluster.local/')] }, mtls: true, plaintext: false },
  { match: { principals: [prefix('')] }, mtls: true, plaintext: false },
  { match: { principals: [suffix('/sa/web')] }, mtls: true, plaintext: false },
  { match: { principals: [suffix('/sa/cart')] }, mtls: false, plaintext: false },
  { match: { principals: [presence] }, mtls: true, plaintext: false },
  { match: { notPrincipals: [presence] }, mtls: false, plaintext: true },
  { match: { notPrincipals: [exact(PRINCIPAL)] }, mtls: false, plaintext: true },
  { match: { notPrincipals: [exact('other')] }, mtls: true, plaintext: true },
  { match: { namespaces: [exact('shop')] }, mtls: true, plaintext: false },
  { match: { namespaces: [exact('Shop')] }, mtls: false, plaintext: false },
  { match: { namespaces: [presence] }, mtls: true, plaintext: false },
  { match: { notNamespaces: [presence] }, mtls: false, plaintext: true },
  { match: { notNamespaces: [exact('shop')] }, mtls: false, plaintext: true },
  { match: { namespaces: [prefix('')] }, mtls: true, plaintext: true },
  { match: { serviceAccounts: [SERVICE_ACCOUNT] }, mtls: true, plaintext: false },
  { match: { serviceAccounts: [{ ...SERVICE_ACCOUNT, namespace: 'x' }] }, mtls: false, plaintext: false },
  { match: { notServiceAccounts: [SERVICE_ACCOUNT] }, mtls: false, plaintext: true },
  { match: { sourceIps: [{ address: '10.244.1.0', length: 24 }] }, mtls: true, plaintext: true },
  { match: { sourceIps: [{ address: '10.244.1.3', length: 32 }] }, mtls: false, plaintext: false },
  { match: { sourceIps: [{ address: '10.244.1.7', length: 24 }] }, mtls: true, plaintext: true },
  { match: { sourceIps: [{ address: '0.0.0.0', length: 0 }] }, mtls: true, plaintext: true },
  { match: { sourceIps: [{ address: '::', length: 0 }] }, mtls: false, plaintext: false },
  { match: { notSourceIps: [{ address: '10.0.0.0', length: 8 }] }, mtls: false, plaintext: false },
  { match: { notSourceIps: [{ address: 'fd00::', length: 8 }] }, mtls: true, plaintext: true },
  { match: { destinationIps: [{ address: '10.244.2.2', length: 32 }] }, mtls: true, plaintext: true },
  { match: { notDestinationIps: [{ address: '10.244.2.2', length: 32 }] }, mtls: false, plaintext: false },
  { match: { destinationPorts: [80, 8080] }, mtls: true, plaintext: true },
  { match: { destinationPorts: [15008] }, mtls: false, plaintext: false },
  { match: { notDestinationPorts: [8080] }, mtls: false, plaintext: false },
  { match: { notPrincipals: [presence], notDestinationPorts: [9090] }, mtls: false, plaintext: true },
  { match: { notPrincipals: [presence], notDestinationPorts: [8080] }, mtls: false, plaintext: false },
])('$match matches over mTLS: $mtls, in plaintext: $plaintext', ({ match, mtls, plaintext }) => {
  const policies = [policy({ rules: [rule(match)] })];
  expect(verdict(policies, FROM_WEB).kind === 'allow').toBe(mtls);
  expect(verdict(policies, PLAINTEXT).kind === 'allow').toBe(plaintext);
});

test('a service account matches whatever its trust domain', () => {
  const sourceIdentity = parseIdentity('spiffe://elsewhere.example/ns/shop/sa/web');
  const policies = [policy({ rules: [rule({ serviceAccounts: [SERVICE_ACCOUNT] })] })];
  expect(verdict(policies, { ...FROM_WEB, sourceIdentity }).kind).toBe('allow');
});

test('an IPv6 source is matched by its leading bits', () => {
  const policies = [policy({ rules: [rule({ sourceIps: [{ address: 'fd00:10::', length: 33 }] })] })];
  expect(verdict(policies, { ...FROM_WEB, sourceIp: 'fd00:10:7fff::1' }).kind).toBe('allow');
  expect(verdict(policies, { ...FROM_WEB, sourceIp: 'fd00:10:8000::1' }).kind).toBe('deny');
});

test('strict mTLS is a deny policy for whoever has no principal', () => {
  const strict = policy({
    name: 'istio_converted_static_strict',
    namespace: 'istio-system',
    scope: 'GLOBAL',
    action: 'DENY',
    rules: [rule({ notPrincipals: [presence] })],
  });
  expect(verdict([strict], FROM_WEB).kind).toBe('allow');
  expect(verdict([strict], PLAINTEXT)).toMatchObject({
    kind: 'deny',
    policy: 'istio-system/istio_converted_static_strict',
  });
});

test.each([
  {
    missingPolicy: 'deny',
    policies: [],
    is: { kind: 'deny', reason: 'missing-policy', policy: 'default/gone' },
  },
  { missingPolicy: 'deny', policies: [ALLOW], is: { kind: 'deny', reason: 'missing-policy' } },
  { missingPolicy: 'deny', policies: [DENY], is: { kind: 'deny', reason: 'denied-by-policy' } },
  { missingPolicy: 'allow', policies: [], is: { kind: 'allow', reason: 'no-allow-policy' } },
  { missingPolicy: 'allow', policies: [DENY], is: { kind: 'deny', reason: 'denied-by-policy' } },
] as const)(
  'a named policy that is absent, set to $missingPolicy, gives $is',
  ({ missingPolicy, policies, is }) => {
    const tables = tablesOf(...policies);
    const destination = workload({ authorizationPolicies: ['default/gone'] });
    expect(missingPolicies(tables, destination)).toEqual(['default/gone']);
    expect(authorize({ tables, workload: destination, connection: FROM_WEB, missingPolicy })).toMatchObject(
      is,
    );
  },
);

const DENIES_PLAINTEXT = policy({
  name: 'strict',
  action: 'DENY',
  rules: [rule({ notPrincipals: [presence] })],
});
const ALLOWS_WEB = policy({
  name: 'web',
  rules: [rule({ principals: [exact('cluster.local/ns/shop/sa/web')] })],
});
const ALLOWS_PORT = policy({ name: 'port', rules: [rule({ destinationPorts: [8080] })] });
const DENIES_PORT = policy({ name: 'closed', action: 'DENY', rules: [rule({ destinationPorts: [9090] })] });

test.each([
  { when: 'there is no policy', policies: [], is: 'allow' },
  { when: 'whoever has no identity is denied', policies: [DENIES_PLAINTEXT], is: 'deny' },
  { when: 'only a principal is allowed', policies: [ALLOWS_WEB], is: 'deny' },
  { when: 'a port is allowed as well', policies: [ALLOWS_WEB, ALLOWS_PORT], is: 'depends' },
  { when: 'a port is denied', policies: [DENIES_PORT], is: 'depends' },
  { when: 'a denial comes first', policies: [DENIES_PLAINTEXT, ALLOWS_PORT], is: 'deny' },
  { when: 'it is only rehearsed', policies: [{ ...DENIES_PLAINTEXT, dryRun: true }], is: 'allow' },
  { when: 'one is not known', policies: [ALLOWS_WEB], isMissing: true, is: 'depends' },
  { when: 'one is not known and all are denied', policies: [DENIES_PLAINTEXT], isMissing: true, is: 'deny' },
])('callers without an identity, all of them: $is when $when', ({ policies, isMissing, is }) => {
  expect(authorizeWithoutIdentity(policies, isMissing ?? false)).toBe(is);
});
