import { type Authorization, type Clause, EMPTY_MATCH, type Rule } from '#api/policy.ts';
import type { MtlsMode, PeerAuthenticationObject, Position, StringMap } from '../source/objects.ts';
import { denySelected, selectorLabels } from './authorizations.ts';
import { getOrAdd, indexSelectors, type SelectorIndex } from './selectors.ts';

/** Name, in the root namespace, of the policy that refuses callers without an identity. */
export const STATIC_STRICT = 'istio_converted_static_strict';

/** What PeerAuthentications say, by scope: oldest first, so that the first of a scope is the one in force. */
export interface MtlsTable {
  readonly rootNamespace: string;
  readonly mesh?: PeerAuthenticationObject;
  readonly byNamespace: ReadonlyMap<string, PeerAuthenticationObject>;
  readonly selecting: ReadonlyMap<string, SelectorIndex<PeerAuthenticationObject>>;
  /** Those that are not in force, and why. */
  readonly unused: ReadonlyMap<PeerAuthenticationObject, string>;
}

/** What holds for a workload. */
export interface MtlsOutcome {
  /** Whether callers without an identity are refused, where no port says otherwise. */
  readonly mode: 'STRICT' | 'PERMISSIVE';
  /** Names of the policies that say so, as the workload has to list them: sorted. */
  readonly policies: readonly string[];
  /** All that select the workload by its labels; the first one is in force. */
  readonly selecting: readonly PeerAuthenticationObject[];
}

/** Sorts PeerAuthentications (oldest first) by scope. */
export function tabulateMtls(
  policies: readonly PeerAuthenticationObject[],
  rootNamespace: string,
): MtlsTable {
  const byNamespace = new Map<string, PeerAuthenticationObject>();
  const selecting: { matchLabels: StringMap; value: PeerAuthenticationObject }[] = [];
  const unused = new Map<PeerAuthenticationObject, string>();
  for (const policy of policies) {
    const { namespace } = policy.metadata;
    const matchLabels = selectorLabels(policy.spec.selector);
    if (matchLabels === undefined) {
      const first = getOrAdd(byNamespace, namespace, () => policy);
      if (first !== policy) unused.set(policy, `the older ${first.metadata.name} holds for the same scope`);
    } else if (namespace === rootNamespace) {
      unused.set(policy, 'in the root namespace, a PeerAuthentication can not select workloads');
    } else selecting.push({ matchLabels, value: policy });
  }
  const mesh = byNamespace.get(rootNamespace);
  const groups = Map.groupBy(selecting, ({ value }) => value.metadata.namespace);
  return {
    rootNamespace,
    ...(mesh && { mesh }),
    byNamespace,
    selecting: new Map([...groups].map(([namespace, entries]) => [namespace, indexSelectors(entries)])),
    unused,
  };
}

/** Mode and policies of a workload: from the mesh, then its namespace, then what selects it. DISABLE is PERMISSIVE. */
export function decideMtls(table: MtlsTable, namespace: string, labels: StringMap): MtlsOutcome {
  const inherited = isInheritedStrict(table, namespace);
  const selecting = table.selecting.get(namespace)?.find(labels) ?? [];
  const [policy] = selecting;
  const mode = policy?.spec.mode ?? 'UNSET';
  const isStrict = mode === 'UNSET' ? inherited : mode === 'STRICT';
  const hasExceptions = policy !== undefined && needsOwnPolicy(policy, isStrict);
  const names: string[] = [];
  if (hasExceptions) names.push(`${namespace}/${convertedName(policy.metadata.name)}`);
  // With exceptions the strictness is in the policy's own conversion: two DENY policies would both have to be passed.
  if (isStrict && !hasExceptions) names.push(`${table.rootNamespace}/${STATIC_STRICT}`);
  return { mode: isStrict ? 'STRICT' : 'PERMISSIVE', policies: names, selecting };
}

/** The policy that refuses callers without an identity on every port. */
export function staticStrict(rootNamespace: string): Authorization {
  return denySelected(STATIC_STRICT, rootNamespace, [{ clauses: [NO_PRINCIPAL] }]);
}

/**
 * What stands for a PeerAuthentication with exceptions for ports; undefined for one that needs nothing of its own. Ports
 * go up. Each rule's position is that of the port, or of the mode.
 */
export function convertPeerAuthentication(
  table: MtlsTable,
  policy: PeerAuthenticationObject,
): { readonly authorization: Authorization; readonly ruleOrigins: readonly Position[] } | undefined {
  const { namespace, name } = policy.metadata;
  const isOurs = namespace !== table.rootNamespace && selectorLabels(policy.spec.selector) !== undefined;
  if (!isOurs) return undefined;
  const { mode } = policy.spec;
  const inherited = isInheritedStrict(table, namespace);
  const isStrict = mode === 'UNSET' ? inherited : mode === 'STRICT';
  const ports = [...policy.spec.portLevelMtls].sort(([a], [b]) => a - b);
  const wanted = ports.filter(([, portMode]) => (isStrict ? isOpen(portMode) : portMode === 'STRICT'));
  if (wanted.length === 0) return undefined;
  const placeOf = (port: number): Position => policy.positionOf(`spec.portLevelMtls["${port}"]`);
  const converted = convertedName(name);
  if (!isStrict)
    return {
      authorization: denySelected(
        converted,
        namespace,
        wanted.map(([port]) => strictPort(port)),
      ),
      ruleOrigins: wanted.map(([port]) => placeOf(port)),
    };
  // The policy's own STRICT comes first, the mesh's or namespace's last: the order that istiod gives them.
  const clauses: Clause[] = [
    ...(mode === 'STRICT' ? [NO_PRINCIPAL] : []),
    ...wanted.map(([port]) => ({ matches: [{ ...EMPTY_MATCH, notDestinationPorts: [port] }] })),
    ...(inherited ? [NO_PRINCIPAL] : []),
  ];
  return {
    authorization: denySelected(converted, namespace, [{ clauses }]),
    ruleOrigins: [policy.positionOf('spec.portLevelMtls')],
  };
}

/** Ports whose mode does not do what it says, and why. */
export function explainPorts(table: MtlsTable, policy: PeerAuthenticationObject): readonly string[] {
  const { mode, portLevelMtls, selector } = policy.spec;
  if (portLevelMtls.size > 0 && selectorLabels(selector) === undefined)
    return ['portLevelMtls needs a selector: without one it is ignored'];
  const isStrict = mode === 'UNSET' && isInheritedStrict(table, policy.metadata.namespace);
  const needsOwn = needsOwnPolicy(policy, isStrict);
  return [...portLevelMtls].flatMap(([port, portMode]) =>
    isStrict && portMode === 'DISABLE' && !needsOwn
      ? [`port ${port}: DISABLE does not lift an inherited STRICT; write PERMISSIVE`]
      : [],
  );
}

/** Name of the Authorization that stands for a PeerAuthentication. */
export function convertedName(name: string): string {
  return `converted_peer_authentication_${name}`;
}

const NO_PRINCIPAL: Clause = { matches: [{ ...EMPTY_MATCH, notPrincipals: [{ kind: 'presence' }] }] };

function strictPort(port: number): Rule {
  const match = { ...EMPTY_MATCH, notPrincipals: [{ kind: 'presence' } as const], destinationPorts: [port] };
  return { clauses: [{ matches: [match] }] };
}

function isInheritedStrict(table: MtlsTable, namespace: string): boolean {
  const own = table.byNamespace.get(namespace)?.spec.mode ?? 'UNSET';
  return (own === 'UNSET' ? table.mesh?.spec.mode : own) === 'STRICT';
}

/**
 * Whether a workload has to list the policy's conversion. An inherited STRICT is only lifted where a port says
 * PERMISSIVE, not by DISABLE alone: so istiod has it.
 */
function needsOwnPolicy(policy: PeerAuthenticationObject, isStrict: boolean): boolean {
  const modes = [...policy.spec.portLevelMtls.values()];
  if (!isStrict) return modes.includes('STRICT');
  return policy.spec.mode === 'STRICT' ? modes.some(isOpen) : modes.includes('PERMISSIVE');
}

function isOpen(mode: MtlsMode): boolean {
  return mode === 'PERMISSIVE' || mode === 'DISABLE';
}
