import { type Cidr, familyOf, type Ip, ipToBigInt } from '#api/address.ts';
import type { Authorization, Clause, Match, ServiceAccountMatch, StringMatch } from '#api/policy.ts';
import { principalOf } from '#certs/identity.ts';
import type { InboundConnection } from './verdict.ts';

/**
 * A connection's facts in the form that policies compare; made once for all policies. Addresses and port are absent where
 * the question is about connections in general.
 */
export interface Facts {
  /** `cluster.local/ns/a/sa/b`; absent without an identity. */
  readonly principal?: string;
  /** Empty without an identity. */
  readonly namespace: string;
  /** `namespace/account`; absent without an identity. */
  readonly serviceAccount?: string;
  readonly sourceIp?: IpNumber;
  readonly destinationIp?: IpNumber;
  readonly destinationPort?: number;
}

/** What is known of callers without an identity, wherever they come from and go to. */
export const NO_IDENTITY: Facts = { namespace: '' };

/** `unknown`: that depends on facts that are absent. */
export type Truth = boolean | 'unknown';

/** Number of the first rule that matches, from 0; undefined when none does. */
export type MatchingRule = (facts: Facts) => number | undefined;

/** A policy as functions. */
interface Compiled {
  readonly firstRule: MatchingRule;
  readonly truth: (facts: Facts) => Truth;
}

type Condition = (facts: Facts) => Truth;
type IpNumber =
  | { readonly family: 4; readonly value: number }
  | { readonly family: 6; readonly value: bigint };

/** The facts of a connection. */
export function factsOf(connection: InboundConnection): Facts {
  const identity = connection.sourceIdentity;
  const addresses = {
    sourceIp: ipNumber(connection.sourceIp),
    destinationIp: ipNumber(connection.destinationIp),
    destinationPort: connection.destinationPort,
  };
  if (identity === undefined) return { namespace: '', ...addresses };
  return {
    principal: principalOf(identity),
    namespace: identity.namespace,
    serviceAccount: accountKey(identity),
    ...addresses,
  };
}

/**
 * A policy as a function, its prefixes parsed and its exact values in sets; compiled once per policy object.
 * Semantics: as a stock ztunnel's, but for empty matches of DENY; see {@link compileMatch}.
 */
export function matcherOf(policy: Authorization): MatchingRule {
  return compiled(policy).firstRule;
}

/** Whether a policy matches, as far as the facts that are there tell. */
export function truthOf(policy: Authorization, facts: Facts): Truth {
  return compiled(policy).truth(facts);
}

/** True if one is; unknown if one may be. */
export function anyTrue(truths: readonly Truth[]): Truth {
  if (truths.includes(true)) return true;
  return truths.includes('unknown') ? 'unknown' : false;
}

const COMPILED = new WeakMap<Authorization, Compiled>();

function compiled(policy: Authorization): Compiled {
  const known = COMPILED.get(policy);
  if (known !== undefined) return known;
  const emptyHolds = policy.action === 'DENY';
  const rules = policy.rules.map(({ clauses }) =>
    allOf(clauses.map((clause) => compileClause(clause, emptyHolds))),
  );
  const made: Compiled = {
    firstRule: (facts) => {
      const index = rules.findIndex((rule) => rule(facts) === true);
      return index < 0 ? undefined : index;
    },
    truth: oneOf(rules),
  };
  COMPILED.set(policy, made);
  return made;
}

function compileClause({ matches }: Clause, emptyHolds: boolean): Condition {
  if (matches.length === 0) return () => true;
  return oneOf(matches.map((match) => compileMatch(match, emptyHolds)));
}

function allOf(conditions: readonly Condition[]): Condition {
  return (facts) => {
    let result: Truth = true;
    for (const condition of conditions) {
      const truth = condition(facts);
      if (truth === false) return false;
      if (truth === 'unknown') result = truth;
    }
    return result;
  };
}

function oneOf(conditions: readonly Condition[]): Condition {
  return (facts) => {
    let result: Truth = false;
    for (const condition of conditions) {
      const truth = condition(facts);
      if (truth === true) return true;
      if (truth === 'unknown') result = truth;
    }
    return result;
  };
}

/**
 * All fields that say something must hold. A match that says nothing stands for what an L4 policy cannot see: it is never
 * true in ALLOW and always in DENY, so that both fail closed (docs/decisions/0007-empty-matches.md).
 */
function compileMatch(match: Match, emptyHolds: boolean): Condition {
  const conditions = [
    anyOf(match.namespaces, namespaceIn),
    noneOf(match.notNamespaces, namespaceIn),
    anyOf(match.principals, principalIn),
    noneOf(match.notPrincipals, principalIn),
    anyOf(match.sourceIps, (cidrs) => ipIn(cidrs, (facts) => facts.sourceIp)),
    noneOf(match.notSourceIps, (cidrs) => ipIn(cidrs, (facts) => facts.sourceIp)),
    anyOf(match.destinationIps, (cidrs) => ipIn(cidrs, (facts) => facts.destinationIp)),
    noneOf(match.notDestinationIps, (cidrs) => ipIn(cidrs, (facts) => facts.destinationIp)),
    anyOf(match.destinationPorts, portIn),
    noneOf(match.notDestinationPorts, portIn),
    anyOf(match.serviceAccounts, serviceAccountIn),
    noneOf(match.notServiceAccounts, serviceAccountIn),
  ].filter((condition) => condition !== undefined);
  if (conditions.length === 0) return () => emptyHolds;
  return allOf(conditions);
}

function anyOf<Value>(
  values: readonly Value[],
  compile: (values: readonly Value[]) => Condition,
): Condition | undefined {
  return values.length === 0 ? undefined : compile(values);
}

function noneOf<Value>(
  values: readonly Value[],
  compile: (values: readonly Value[]) => Condition,
): Condition | undefined {
  if (values.length === 0) return undefined;
  const anyMatches = compile(values);
  return (facts) => {
    const truth = anyMatches(facts);
    return truth === 'unknown' ? truth : !truth;
  };
}

function namespaceIn(patterns: readonly StringMatch[]): Condition {
  const matches = compilePatterns(patterns);
  return (facts) => matches(facts.namespace);
}

function principalIn(patterns: readonly StringMatch[]): Condition {
  const matches = compilePatterns(patterns);
  return (facts) => facts.principal !== undefined && matches(facts.principal);
}

function serviceAccountIn(accounts: readonly ServiceAccountMatch[]): Condition {
  const keys = new Set(accounts.map(accountKey));
  return (facts) => facts.serviceAccount !== undefined && keys.has(facts.serviceAccount);
}

function portIn(ports: readonly number[]): Condition {
  const set = new Set(ports);
  return ({ destinationPort }) => (destinationPort === undefined ? 'unknown' : set.has(destinationPort));
}

function compilePatterns(patterns: readonly StringMatch[]): (text: string) => boolean {
  const exact = new Set(patterns.flatMap((pattern) => (pattern.kind === 'exact' ? [pattern.value] : [])));
  const others = patterns.filter((pattern) => pattern.kind !== 'exact');
  return (text) => exact.has(text) || others.some((pattern) => matchesPattern(pattern, text));
}

function matchesPattern(pattern: StringMatch, text: string): boolean {
  switch (pattern.kind) {
    case 'exact':
      return text === pattern.value;
    case 'prefix':
      return text.startsWith(pattern.value);
    case 'suffix':
      return text.endsWith(pattern.value);
    case 'presence':
      return text !== '';
  }
}

function ipIn(cidrs: readonly Cidr[], addressOf: (facts: Facts) => IpNumber | undefined): Condition {
  const prefixes = cidrs.map(compileCidr);
  return (facts) => {
    const ip = addressOf(facts);
    return ip === undefined ? 'unknown' : prefixes.some((contains) => contains(ip));
  };
}

function compileCidr({ address, length }: Cidr): (ip: IpNumber) => boolean {
  const prefix = ipNumber(address);
  if (prefix.family === 4) {
    // A shift by 32 would be one by 0.
    const mask = length === 0 ? 0 : -1 << (32 - length);
    return (ip) => ip.family === 4 && (ip.value & mask) === (prefix.value & mask);
  }
  const shift = BigInt(128 - length);
  return (ip) => ip.family === 6 && ip.value >> shift === prefix.value >> shift;
}

function ipNumber(ip: Ip): IpNumber {
  if (familyOf(ip) === 6) return { family: 6, value: ipToBigInt(ip) };
  return { family: 4, value: ip.split('.').reduce((value, octet) => (value << 8) | Number(octet), 0) };
}

function accountKey(account: ServiceAccountMatch): string {
  return `${account.namespace}/${account.serviceAccount}`;
}
