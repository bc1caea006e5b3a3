import { type Cidr, parseCidr } from '#api/address.ts';
import {
  type Clause,
  EMPTY_MATCH,
  type Match,
  type Rule,
  type ServiceAccountMatch,
  type StringMatch,
} from '#api/policy.ts';
import type { PolicyCondition, PolicyOperation, PolicyRule, PolicySource } from '../source/objects.ts';

/** A rule as a ztunnel can check it, and what of it a ztunnel can not see. */
export interface ConvertedRule {
  readonly rule: Rule;
  /** Names of attributes that only show in HTTP, or that are not known: sorted, each once. */
  readonly unseen: readonly string[];
  /** Values that are wrong, with their paths inside the rule. */
  readonly faults: readonly RuleFault[];
}

export interface RuleFault {
  /** `from[0].source.ipBlocks[1]`. */
  readonly path: string;
  readonly message: string;
}

/**
 * Converts a rule: first what it says of the destination, then of the source, then each condition, all of which have to
 * hold. What a ztunnel can not see is left out, so that a match may end up empty; an empty match is never true.
 * `namespace` is the policy's.
 */
export function convertRule(rule: PolicyRule, namespace: string): ConvertedRule {
  const faults: RuleFault[] = [];
  const clauses: Clause[] = [];
  if (rule.to.length > 0)
    clauses.push({
      matches: rule.to.map((operation, index) =>
        convertOperation(operation, `to[${index}].operation`, faults),
      ),
    });
  if (rule.from.length > 0)
    clauses.push({
      matches: rule.from.map((source, index) =>
        convertSource(source, namespace, `from[${index}].source`, faults),
      ),
    });
  for (const [index, condition] of rule.when.entries())
    clauses.push({ matches: [convertCondition(condition, `when[${index}]`, faults)] });
  return { rule: { clauses }, unseen: unseenAttributes(rule), faults };
}

/** Whether a rule can match anything: not if one of its clauses has nothing but empty matches. */
export function canMatch(rule: Rule): boolean {
  return rule.clauses.every(({ matches }) => matches.length === 0 || !matches.every(isEmpty));
}

/** `*` is any value, `*x` a suffix, `x*` a prefix. */
function toStringMatch(text: string): StringMatch {
  if (text === '*') return { kind: 'presence' };
  if (text.startsWith('*')) return { kind: 'suffix', value: text.slice(1) };
  if (text.endsWith('*')) return { kind: 'prefix', value: text.slice(0, -1) };
  return { kind: 'exact', value: text };
}

const HTTP_OPERATIONS = ['hosts', 'notHosts', 'methods', 'notMethods', 'paths', 'notPaths'] as const;
const HTTP_SOURCES = [
  'remoteIpBlocks',
  'notRemoteIpBlocks',
  'requestPrincipals',
  'notRequestPrincipals',
  'trustDomains',
  'notTrustDomains',
] as const;
const SEEN_CONDITIONS: ReadonlySet<string> = new Set([
  'source.ip',
  'source.namespace',
  'source.principal',
  'destination.ip',
  'destination.port',
]);

function unseenAttributes(rule: PolicyRule): readonly string[] {
  const found = new Set<string>();
  for (const operation of rule.to)
    for (const name of HTTP_OPERATIONS) if (operation[name].length > 0) found.add(name);
  for (const source of rule.from)
    for (const name of HTTP_SOURCES) if (source[name].length > 0) found.add(name);
  for (const { key } of rule.when) if (!SEEN_CONDITIONS.has(key)) found.add(key);
  return [...found].sort();
}

function convertOperation(operation: PolicyOperation, path: string, faults: RuleFault[]): Match {
  return {
    ...EMPTY_MATCH,
    destinationPorts: toPorts(operation.ports, `${path}.ports`, faults),
    notDestinationPorts: toPorts(operation.notPorts, `${path}.notPorts`, faults),
  };
}

function convertSource(source: PolicySource, namespace: string, path: string, faults: RuleFault[]): Match {
  const toAccount = (text: string): ServiceAccountMatch => toServiceAccount(text, namespace);
  return {
    ...EMPTY_MATCH,
    sourceIps: toCidrs(source.ipBlocks, `${path}.ipBlocks`, faults),
    notSourceIps: toCidrs(source.notIpBlocks, `${path}.notIpBlocks`, faults),
    namespaces: source.namespaces.map(toStringMatch),
    notNamespaces: source.notNamespaces.map(toStringMatch),
    serviceAccounts: source.serviceAccounts.map(toAccount),
    notServiceAccounts: source.notServiceAccounts.map(toAccount),
    principals: source.principals.map(toStringMatch),
    notPrincipals: source.notPrincipals.map(toStringMatch),
  };
}

function convertCondition(condition: PolicyCondition, path: string, faults: RuleFault[]): Match {
  const { key, values, notValues } = condition;
  const [inPath, outPath] = [`${path}.values`, `${path}.notValues`];
  switch (key) {
    case 'source.ip':
      return {
        ...EMPTY_MATCH,
        sourceIps: toCidrs(values, inPath, faults),
        notSourceIps: toCidrs(notValues, outPath, faults),
      };
    case 'source.namespace':
      return {
        ...EMPTY_MATCH,
        namespaces: values.map(toStringMatch),
        notNamespaces: notValues.map(toStringMatch),
      };
    case 'source.principal':
      return {
        ...EMPTY_MATCH,
        principals: values.map(toStringMatch),
        notPrincipals: notValues.map(toStringMatch),
      };
    case 'destination.ip':
      return {
        ...EMPTY_MATCH,
        destinationIps: toCidrs(values, inPath, faults),
        notDestinationIps: toCidrs(notValues, outPath, faults),
      };
    case 'destination.port':
      return {
        ...EMPTY_MATCH,
        destinationPorts: toPorts(values, inPath, faults),
        notDestinationPorts: toPorts(notValues, outPath, faults),
      };
    default:
      return EMPTY_MATCH;
  }
}

/** `namespace/account`, or an account of the policy's own namespace. */
function toServiceAccount(text: string, namespace: string): ServiceAccountMatch {
  const slash = text.indexOf('/');
  if (slash < 0) return { namespace, serviceAccount: text };
  return { namespace: text.slice(0, slash), serviceAccount: text.slice(slash + 1) };
}

function toPorts(texts: readonly string[], path: string, faults: RuleFault[]): readonly number[] {
  return texts.flatMap((text, index) => {
    if (/^\d{1,5}$/.test(text) && Number(text) <= 65_535) return [Number(text)];
    faults.push({ path: `${path}[${index}]`, message: `${JSON.stringify(text)} is not a port` });
    return [];
  });
}

function toCidrs(texts: readonly string[], path: string, faults: RuleFault[]): readonly Cidr[] {
  return texts.flatMap((text, index) => {
    try {
      return [parseCidr(text)];
    } catch {
      const message = `${JSON.stringify(text)} is neither an IP address nor a CIDR`;
      faults.push({ path: `${path}[${index}]`, message });
      return [];
    }
  });
}

function isEmpty(match: Match): boolean {
  return Object.values(match).every((list) => list.length === 0);
}
