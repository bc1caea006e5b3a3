import type { Fault } from './faults.ts';
import { nearest } from './faults.ts';
import type { PolicyRule } from './objects.ts';
import { ipBlock, portText, shown } from './schema-parts.ts';

const ADDRESS_KEYS = ['source.ip', 'remote.ip', 'destination.ip'];

const CONDITION_KEYS = [
  ...ADDRESS_KEYS,
  'source.namespace',
  'source.principal',
  'source.serviceAccount',
  'source.trustDomain',
  'request.auth.principal',
  'request.auth.audiences',
  'request.auth.presenter',
  'destination.port',
  'connection.sni',
];

const CONDITION_KEY_FORMS = [
  /^request\.headers\[[^[\]]+\]$/,
  /^request\.auth\.claims(\[[^[\]]+\])+$/,
  /^experimental\.envoy\.filters\..+$/,
];

/** What is wrong with the key of a condition, if anything. */
export function conditionKeyFault(key: string): string | undefined {
  if (CONDITION_KEYS.includes(key) || CONDITION_KEY_FORMS.some((form) => form.test(key))) return undefined;
  const meant = nearest(key, CONDITION_KEYS);
  if (meant !== undefined) return `${shown(key)} is not an attribute; did you mean ${meant}?`;
  const forms = 'request.headers[NAME], request.auth.claims[NAME]';
  return `${shown(key)} is not an attribute; there are ${CONDITION_KEYS.join(', ')}, ${forms}`;
}

/** What is wrong with a value of a condition, if anything. */
export function conditionValueFault(key: string, value: string): string | undefined {
  if (key === 'destination.port') return portText.safeParse(value).error?.issues[0]?.message;
  return ADDRESS_KEYS.includes(key) ? ipBlock.safeParse(value).error?.issues[0]?.message : undefined;
}

/** Patterns of well-formed rules that cannot match anything. */
export function patternFaults(rules: readonly PolicyRule[]): Fault[] {
  const faults: Fault[] = [];
  function check(path: Fault['path'], lists: Readonly<Record<string, readonly string[]>>): void {
    for (const [field, patterns] of Object.entries(lists))
      for (const [index, pattern] of patterns.entries()) {
        const message = patternFault(pattern);
        if (message === undefined) continue;
        faults.push({ path: [...path, field, index], part: 'value', message, severity: 'warning' });
      }
  }
  for (const [index, rule] of rules.entries()) {
    const path = ['spec', 'rules', index];
    for (const [at, source] of rule.from.entries()) {
      const { principals, notPrincipals, namespaces, notNamespaces } = source;
      check([...path, 'from', at, 'source'], { principals, notPrincipals, namespaces, notNamespaces });
    }
    for (const [at, { hosts, notHosts }] of rule.to.entries())
      check([...path, 'to', at, 'operation'], { hosts, notHosts });
    for (const [at, { key, values, notValues }] of rule.when.entries())
      if (['source.principal', 'source.namespace', 'connection.sni'].includes(key))
        check([...path, 'when', at], { values, notValues });
  }
  return faults;
}

function patternFault(pattern: string): string | undefined {
  if (pattern.startsWith('spiffe://'))
    return `${shown(pattern)} never matches: principals are written without spiffe://`;
  const inner = pattern.startsWith('*') ? pattern.slice(1) : pattern.replace(/\*$/, '');
  if (inner.includes('*'))
    return `${shown(pattern)} never matches: * means anything only at one end, either the first or the last`;
  return undefined;
}
