import { type Authorization, policyKey, REQUIRE_WAYPOINT_PREFIX } from '#api/policy.ts';
import type { Workload } from '#api/workload.ts';
import type { Tables } from '../tables/tables.ts';
import { anyTrue, type Facts, factsOf, matcherOf, NO_IDENTITY, type Truth, truthOf } from './compile.ts';
import type { DryRun, InboundConnection, Verdict } from './verdict.ts';

/** What to decide. */
export interface AuthorizationRequest {
  readonly tables: Tables;
  /** The destination. */
  readonly workload: Workload;
  readonly connection: InboundConnection;
  /** What holds if the workload names a policy that the tables do not have. */
  readonly missingPolicy: 'deny' | 'allow';
}

/**
 * Whether a workload takes a connection: any DENY policy that matches denies; else, where there are ALLOW policies,
 * one has to match. Costs microseconds: policies are compiled once. Fact sheet ambient-wire.md, 4.6.
 */
export function authorize(request: AuthorizationRequest): Verdict {
  const { tables, workload, connection } = request;
  const [missing] = request.missingPolicy === 'deny' ? missingPolicies(tables, workload) : [];
  return authorizeAgainst(policiesOf(tables, workload), missing, connection);
}

/** {@link authorize} by policies that are known. @param missing one that is named and that nobody has: it denies */
export function authorizeAgainst(
  policies: readonly Authorization[],
  missing: string | undefined,
  connection: InboundConnection,
): Verdict {
  const facts = bothFactsOf(connection);
  const enforced = policies.filter((policy) => !policy.dryRun);
  const allows = enforced.filter((policy) => policy.action === 'ALLOW');
  const denied = firstMatch(enforced, 'DENY', facts);
  const allowed = firstMatch(enforced, 'ALLOW', facts);
  const rehearsed = policies.filter((policy) => policy.dryRun);
  const dryRun = rehearsed.flatMap((policy) => rehearse(policy, facts, allowed !== undefined));

  if (denied !== undefined) return { kind: 'deny', reason: 'denied-by-policy', ...denied, dryRun };
  if (missing !== undefined) return { kind: 'deny', reason: 'missing-policy', policy: missing, dryRun };
  if (allows.length === 0) return { kind: 'allow', reason: 'no-allow-policy', dryRun };
  if (allowed !== undefined) return { kind: 'allow', reason: 'allowed-by-policy', ...allowed, dryRun };
  return { kind: 'deny', reason: 'no-allow-matched', dryRun };
}

/**
 * What {@link authorizeAgainst} says to callers without an identity, wherever they come from and whatever port they go to:
 * the same to all of them, or not, as far as can be told from the policies without trying every address.
 * @param isMissing whether a policy is named that nobody has: whatever it will say is open, it denies until then
 */
export function authorizeWithoutIdentity(
  policies: readonly Authorization[],
  isMissing: boolean,
): 'deny' | 'allow' | 'depends' {
  const enforced = policies.filter((policy) => !policy.dryRun);
  const matches = (action: Authorization['action']): readonly Truth[] =>
    enforced.filter((policy) => policy.action === action).map((policy) => truthOf(policy, NO_IDENTITY));
  const denied = anyTrue(matches('DENY'));
  if (denied === true) return 'deny';
  if (isMissing) return 'depends';
  const allows = matches('ALLOW');
  const allowed = allows.length === 0 || anyTrue(allows);
  if (allowed === false) return 'deny';
  return allowed === true && denied === false ? 'allow' : 'depends';
}

/** Facts for policies about the caller, and for those about who connects: the same but for a waypoint that speaks for another. */
interface BothFacts {
  readonly caller: Facts;
  readonly peer: Facts;
}

function bothFactsOf(connection: InboundConnection): BothFacts {
  const caller = factsOf(connection);
  const { waypointIdentity } = connection;
  if (waypointIdentity === undefined) return { caller, peer: caller };
  return { caller, peer: factsOf({ ...connection, sourceIdentity: waypointIdentity }) };
}

function factsFor({ name }: Authorization, { caller, peer }: BothFacts): Facts {
  return caller !== peer && name.startsWith(REQUIRE_WAYPOINT_PREFIX) ? peer : caller;
}

/** Policies (`namespace/name`) that the workload names and the tables do not have. */
export function missingPolicies(tables: Tables, workload: Workload): readonly string[] {
  return workload.authorizationPolicies.filter((key) => tables.policyByKey(key) === undefined);
}

/** The policies that apply to a workload: its namespace's, the mesh's, and those it names. */
export function policiesOf(tables: Tables, workload: Workload): readonly Authorization[] {
  const general = tables.policiesOfNamespace(workload.namespace);
  if (workload.authorizationPolicies.length === 0) return general;
  return [...general, ...workload.authorizationPolicies.flatMap((key) => tables.policyByKey(key) ?? [])];
}

interface Decisive {
  readonly policy: string;
  readonly rule: number;
}

function firstMatch(
  policies: readonly Authorization[],
  action: Authorization['action'],
  facts: BothFacts,
): Decisive | undefined {
  for (const policy of policies) {
    if (policy.action !== action) continue;
    const rule = matcherOf(policy)(factsFor(policy, facts));
    if (rule !== undefined) return { policy: policyKey(policy), rule };
  }
  return undefined;
}

/** What enforcing one more policy would add to those enforced already; nothing if it would change nothing. */
function rehearse(policy: Authorization, facts: BothFacts, alreadyAllowed: boolean): readonly DryRun[] {
  const matches = matcherOf(policy)(factsFor(policy, facts)) !== undefined;
  if (policy.action === 'DENY') return matches ? [{ policy: policyKey(policy), would: 'deny' }] : [];
  if (matches) return [{ policy: policyKey(policy), would: 'allow' }];
  return alreadyAllowed ? [] : [{ policy: policyKey(policy), would: 'deny' }];
}
