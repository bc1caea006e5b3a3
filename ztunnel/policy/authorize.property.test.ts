import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Cidr, cidrContains, type Ip } from '#api/address.ts';
import { type Authorization, type Match, policyKey, type StringMatch } from '#api/policy.ts';
import { principalOf } from '#certs/identity.ts';
import { tablesOf, workload } from '#test/kit/resources.ts';
import { authorize, authorizeAgainst, authorizeWithoutIdentity } from './authorize.ts';
import type { InboundConnection } from './verdict.ts';

const NAMESPACES = ['default', 'shop', 'sh'];
const ACCOUNTS = ['web', 'cart'];
const IPS: readonly Ip[] = ['10.0.0.1', '10.0.1.1', '10.128.0.1', 'fd00::1', 'fd00:0:0:1::1'];

const identity = fc.record({
  trustDomain: fc.constantFrom('cluster.local', 'other.example'),
  namespace: fc.constantFrom(...NAMESPACES),
  serviceAccount: fc.constantFrom(...ACCOUNTS),
});
const text = fc.constantFrom(
  '',
  ...NAMESPACES,
  'cluster.local',
  '/sa/web',
  'cluster.local/ns/shop/sa/web',
  'cluster.local/ns/',
);
const stringMatch: fc.Arbitrary<StringMatch> = fc.oneof(
  fc.record({ kind: fc.constantFrom('exact' as const, 'prefix' as const, 'suffix' as const), value: text }),
  fc.constant({ kind: 'presence' as const }),
);
const cidr: fc.Arbitrary<Cidr> = fc.constantFrom(...IPS).chain((address) =>
  fc.record({
    address: fc.constant(address),
    length: fc.integer({ min: 0, max: address.includes(':') ? 128 : 32 }),
  }),
);
const account = fc.record({
  namespace: fc.constantFrom(...NAMESPACES),
  serviceAccount: fc.constantFrom(...ACCOUNTS),
});
const few = <Value>(values: fc.Arbitrary<Value>): fc.Arbitrary<Value[]> =>
  fc.oneof(
    { weight: 4, arbitrary: fc.constant<Value[]>([]) },
    { weight: 1, arbitrary: fc.array(values, { maxLength: 3 }) },
  );
const ports = few(fc.constantFrom(80, 8080, 9090));
const match: fc.Arbitrary<Match> = fc.record({
  namespaces: few(stringMatch),
  notNamespaces: few(stringMatch),
  principals: few(stringMatch),
  notPrincipals: few(stringMatch),
  sourceIps: few(cidr),
  notSourceIps: few(cidr),
  destinationIps: few(cidr),
  notDestinationIps: few(cidr),
  destinationPorts: ports,
  notDestinationPorts: ports,
  serviceAccounts: few(account),
  notServiceAccounts: few(account),
});
const clause = fc.record({ matches: fc.array(match, { maxLength: 2 }) });
const policies: fc.Arbitrary<Authorization[]> = fc.uniqueArray(
  fc.record({
    kind: fc.constant('authorization' as const),
    name: fc.constantFrom('a', 'b', 'c', 'd'),
    namespace: fc.constantFrom('default', 'shop'),
    scope: fc.constantFrom('GLOBAL' as const, 'NAMESPACE' as const, 'WORKLOAD_SELECTOR' as const),
    action: fc.constantFrom('ALLOW' as const, 'DENY' as const),
    rules: fc.array(fc.record({ clauses: fc.array(clause, { maxLength: 2 }) }), { maxLength: 2 }),
    dryRun: fc.boolean(),
  }),
  { selector: policyKey, maxLength: 5 },
);
const connection: fc.Arbitrary<InboundConnection> = fc.record(
  {
    sourceIdentity: identity,
    sourceIp: fc.constantFrom(...IPS),
    destinationIp: fc.constantFrom(...IPS),
    destinationPort: fc.constantFrom(80, 8080, 9090),
  },
  { requiredKeys: ['sourceIp', 'destinationIp', 'destinationPort'] },
);

test('the compiled evaluation and a literal reading of the rules agree on every connection', () => {
  const named = ['default/a', 'shop/b', 'default/c'];
  fc.assert(
    fc.property(
      policies,
      connection,
      fc.constantFrom('deny' as const, 'allow' as const),
      (all, facts, missing) => {
        const verdict = authorize({
          tables: tablesOf(...all),
          workload: workload({ namespace: 'default', authorizationPolicies: named }),
          connection: facts,
          missingPolicy: missing,
        });
        expect(verdict.kind).toBe(literalVerdict(all, named, facts, missing));
      },
    ),
    { numRuns: 3000 },
  );
});

test('what is said of callers without an identity in general holds for each of them', () => {
  const without = connection.map(({ sourceIdentity: _, ...facts }) => facts);
  const seen = new Map([
    ['deny', 0],
    ['allow', 0],
    ['depends', 0],
  ]);
  fc.assert(
    fc.property(policies, fc.array(without, { minLength: 5, maxLength: 5 }), (all, callers) => {
      const general = authorizeWithoutIdentity(all, false);
      seen.set(general, (seen.get(general) ?? 0) + 1);
      if (general === 'depends') return;
      for (const facts of callers) expect(authorizeAgainst(all, undefined, facts).kind).toBe(general);
    }),
    { numRuns: 3000 },
  );
  expect([...seen].filter(([, count]) => count < 10)).toEqual([]);
});

test('a denial holds whatever a policy that has not come will say', () => {
  const without = connection.map(({ sourceIdentity: _, ...facts }) => facts);
  fc.assert(
    fc.property(policies, policies, without, (known, late, facts) => {
      fc.pre(authorizeWithoutIdentity(known, true) === 'deny');
      expect(authorizeAgainst([...known, ...late], undefined, facts).kind).toBe('deny');
    }),
    { numRuns: 500 },
  );
});

function literalVerdict(
  all: readonly Authorization[],
  named: readonly string[],
  facts: InboundConnection,
  missing: 'deny' | 'allow',
): 'allow' | 'deny' {
  const applying = all.filter((each) => {
    if (each.dryRun) return false;
    if (each.scope === 'GLOBAL' || named.includes(policyKey(each))) return true;
    return each.scope === 'NAMESPACE' && each.namespace === 'default';
  });
  if (applying.some((each) => each.action === 'DENY' && policyHolds(each, facts))) return 'deny';
  if (missing === 'deny' && named.some((key) => !all.some((each) => policyKey(each) === key))) return 'deny';
  const allows = applying.filter((each) => each.action === 'ALLOW');
  if (allows.length === 0) return 'allow';
  return allows.some((each) => policyHolds(each, facts)) ? 'allow' : 'deny';
}

function policyHolds(each: Authorization, facts: InboundConnection): boolean {
  let result = false;
  for (const { clauses } of each.rules) {
    let all = true;
    for (const { matches } of clauses) {
      let any = matches.length === 0;
      for (const candidate of matches) if (matchHolds(candidate, facts, each.action)) any = true;
      if (!any) all = false;
    }
    if (all) result = true;
  }
  return result;
}

function matchHolds(candidate: Match, facts: InboundConnection, action: Authorization['action']): boolean {
  if (Object.values(candidate).every((values: readonly unknown[]) => values.length === 0))
    return action === 'DENY';
  const id = facts.sourceIdentity;
  const ns = (pattern: StringMatch) => patternHolds(pattern, id?.namespace ?? '');
  const principal = (pattern: StringMatch) => id !== undefined && patternHolds(pattern, principalOf(id));
  const from = (range: Cidr) => cidrContains(range, facts.sourceIp);
  const to = (range: Cidr) => cidrContains(range, facts.destinationIp);
  const at = (number: number) => number === facts.destinationPort;
  const sa = (wanted: { namespace: string; serviceAccount: string }) =>
    id?.namespace === wanted.namespace && id.serviceAccount === wanted.serviceAccount;
  const positive = <Value>(values: readonly Value[], holds: (value: Value) => boolean) =>
    values.length === 0 || values.some(holds);
  const negative = <Value>(values: readonly Value[], holds: (value: Value) => boolean) =>
    values.length === 0 || !values.some(holds);
  return (
    positive(candidate.namespaces, ns) &&
    negative(candidate.notNamespaces, ns) &&
    positive(candidate.principals, principal) &&
    negative(candidate.notPrincipals, principal) &&
    positive(candidate.sourceIps, from) &&
    negative(candidate.notSourceIps, from) &&
    positive(candidate.destinationIps, to) &&
    negative(candidate.notDestinationIps, to) &&
    positive(candidate.destinationPorts, at) &&
    negative(candidate.notDestinationPorts, at) &&
    positive(candidate.serviceAccounts, sa) &&
    negative(candidate.notServiceAccounts, sa)
  );
}

function patternHolds(pattern: StringMatch, value: string): boolean {
  if (pattern.kind === 'presence') return value.length > 0;
  if (pattern.kind === 'exact') return value === pattern.value;
  return pattern.kind === 'prefix' ? value.startsWith(pattern.value) : value.endsWith(pattern.value);
}
