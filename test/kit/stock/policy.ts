import type { Match, Policy, StringMatch, Workload } from './resources.ts';

/** A call as the server's ztunnel sees it. */
export interface Call {
  /** SPIFFE ID of the peer; undefined in plaintext. */
  readonly identity: string | undefined;
  readonly destinationPort: number;
}

/** Whether a stock ztunnel lets the call in: fact sheet ambient-wire.md 4.6. */
export function isAllowed(policies: ReadonlyMap<string, Policy>, workload: Workload, call: Call): boolean {
  const applying = [...policies].flatMap(([name, policy]) =>
    !policy.dryRun && applies(name, policy, workload) ? [policy] : [],
  );
  const matching = applying.filter((policy) =>
    policy.rules.some((clauses) => clauses.every((matches) => fulfils(matches, call))),
  );
  if (matching.some(({ action }) => action === 'DENY')) return false;
  return applying.every(({ action }) => action === 'DENY') || matching.length > 0;
}

function applies(name: string, policy: Policy, workload: Workload): boolean {
  if (policy.scope === 'GLOBAL') return true;
  if (policy.scope === 'NAMESPACE') return policy.namespace === workload.namespace;
  return workload.policies.includes(name);
}

function fulfils(matches: readonly Match[], call: Call): boolean {
  return matches.length === 0 || matches.some((match) => matchFulfils(match, call));
}

function matchFulfils(match: Match, { identity, destinationPort }: Call): boolean {
  const principal = identity?.replace(/^spiffe:\/\//, '');
  const namespace = principal?.split('/')[2];
  const some = (wanted: readonly StringMatch[], value: string | undefined): boolean =>
    value !== undefined && wanted.some((one) => stringMatches(one, value));
  const tests = [
    { of: match.namespaces, holds: some(match.namespaces, namespace) },
    { of: match.notNamespaces, holds: !some(match.notNamespaces, namespace) },
    { of: match.principals, holds: some(match.principals, principal) },
    { of: match.notPrincipals, holds: !some(match.notPrincipals, principal) },
    { of: match.destinationPorts, holds: match.destinationPorts.includes(destinationPort) },
    { of: match.notDestinationPorts, holds: !match.notDestinationPorts.includes(destinationPort) },
  ].filter(({ of }) => of.length > 0);
  return tests.length > 0 && tests.every(({ holds }) => holds);
}

function stringMatches(wanted: StringMatch, value: string): boolean {
  switch (wanted.kind) {
    case 'exact':
      return value === wanted.value;
    case 'prefix':
      return value.startsWith(wanted.value);
    case 'suffix':
      return value.endsWith(wanted.value);
    case 'presence':
      return value !== '';
  }
}
