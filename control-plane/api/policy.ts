import type { Cidr } from './address.ts';

/** `presence`: any non-empty value. */
export type StringMatch =
  | { readonly kind: 'exact'; readonly value: string }
  | { readonly kind: 'prefix'; readonly value: string }
  | { readonly kind: 'suffix'; readonly value: string }
  | { readonly kind: 'presence' };

/** A service account, whatever its trust domain. */
export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/**
 * Fields are ANDed, values within one field ORed; a `not…` field requires that no value matches. A match in which
 * every field is empty is skipped (never true).
 */
export interface Match {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly sourceIps: readonly Cidr[];
  readonly notSourceIps: readonly Cidr[];
  readonly destinationIps: readonly Cidr[];
  readonly notDestinationIps: readonly Cidr[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
}

/** True if one match is, or if it has none. */
export interface Clause {
  readonly matches: readonly Match[];
}

/** True if every clause is; with no clauses it matches everything. */
export interface Rule {
  readonly clauses: readonly Clause[];
}

/** An L4 policy as a ztunnel gets it: `istio.security.Authorization`. No rules: never matches. */
export interface Authorization {
  readonly kind: 'authorization';
  readonly name: string;
  readonly namespace: string;
  readonly scope: 'GLOBAL' | 'NAMESPACE' | 'WORKLOAD_SELECTOR';
  readonly action: 'ALLOW' | 'DENY';
  readonly rules: readonly Rule[];
  /** Evaluated and logged, never enforced. */
  readonly dryRun: boolean;
}

/**
 * Begins the name of a generated policy that keeps callers from going round a waypoint. Such a policy is about who connects,
 * and not about whom it speaks for. No object can be named so: names have no underscores.
 */
export const REQUIRE_WAYPOINT_PREFIX = 'tulle_require_waypoint_' as const;

/** A match with no constraint, to spread over. */
export const EMPTY_MATCH: Match = {
  namespaces: [],
  notNamespaces: [],
  principals: [],
  notPrincipals: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
  serviceAccounts: [],
  notServiceAccounts: [],
};

/** Key and xDS resource name of a policy: `namespace/name`. */
export function policyKey(policy: { readonly namespace: string; readonly name: string }): string {
  return `${policy.namespace}/${policy.name}`;
}
