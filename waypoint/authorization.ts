import type { HostPort } from '#api/address.ts';
import { isIp } from '#api/address.ts';
import { decodeResource } from '#api/codec.ts';
import { ResourceError } from '#api/faults.ts';
import { type Authorization, policyKey } from '#api/policy.ts';
import { AUTHORIZATION_TYPE } from '#api/resource.ts';
import { authorizeAgainst } from '#ztunnel/policy/authorize.ts';
import type { Verdict } from '#ztunnel/policy/verdict.ts';
import type { Caller } from './exchange.ts';
import type { Frontend } from './model.ts';

/** Names what is updated and what is gone, as the control plane says it. */
export interface PolicyUpdate {
  readonly updated: readonly { readonly name: string; readonly value: Uint8Array }[];
  readonly removed: readonly string[];
}

/** Stands for the address of a service that was dialled by its name. */
const NO_ADDRESS = '0.0.0.0';

/** The policies that listeners name, and what they say. */
export class Authorizations {
  readonly #policies = new Map<string, Authorization>();
  /** Names that were answered with nothing. */
  readonly #absent = new Set<string>();

  /** Takes an update; what cannot be read is given back, and its last version stays in force. */
  apply({ updated, removed }: PolicyUpdate): readonly { readonly name: string; readonly reason: string }[] {
    const rejected: { readonly name: string; readonly reason: string }[] = [];
    for (const { name, value } of updated) {
      try {
        this.#policies.set(name, read(name, value));
        this.#absent.delete(name);
      } catch (error) {
        if (!(error instanceof ResourceError)) throw error;
        if (!this.#policies.has(name)) this.#absent.add(name);
        rejected.push({ name, reason: error.message });
      }
    }
    for (const name of removed) {
      this.#policies.delete(name);
      this.#absent.add(name);
    }
    return rejected;
  }

  /** Forgets that names which nobody mentions any more are absent. */
  forgetAllBut(names: ReadonlySet<string>): void {
    for (const name of this.#absent) if (!names.has(name)) this.#absent.delete(name);
  }

  /** Whether something was heard of a policy: what it is, or that it is not there. */
  isAnswered(name: string): boolean {
    return this.#policies.has(name) || this.#absent.has(name);
  }

  all(): Iterable<Authorization> {
    return this.#policies.values();
  }

  /**
   * Whether a caller may use a frontend, as far as layer 4 can tell. A policy that the frontend names and nobody has denies.
   * @param authority what the caller dialled
   */
  authorize(frontend: Frontend, caller: Caller, authority: HostPort): Verdict {
    const { authorizations } = frontend;
    if (authorizations.length === 0) return NO_POLICY;
    const policies: Authorization[] = [];
    let missing: string | undefined;
    const isAddress = isIp(authority.ip);
    for (const name of authorizations) {
      const policy = this.#policies.get(name);
      if (policy === undefined || (!isAddress && looksAtAddress(policy))) missing ??= name;
      else policies.push(policy);
    }
    return authorizeAgainst(policies, missing, {
      sourceIdentity: caller.identity,
      sourceIp: caller.address.ip,
      destinationIp: isAddress ? authority.ip : NO_ADDRESS,
      destinationPort: authority.port,
    });
  }
}

const NO_POLICY: Verdict = { kind: 'allow', reason: 'no-allow-policy', dryRun: [] };

/** @throws ResourceError */
function read(name: string, value: Uint8Array): Authorization {
  const resource = decodeResource(AUTHORIZATION_TYPE, value);
  if (resource.kind !== 'authorization' || policyKey(resource) !== name)
    throw new ResourceError('calls itself something else', { code: 'INVALID' });
  return resource;
}

/** Such a policy cannot be decided for who dialled a name. */
function looksAtAddress({ rules }: Authorization): boolean {
  return rules.some(({ clauses }) =>
    clauses.some(({ matches }) =>
      matches.some(
        ({ destinationIps, notDestinationIps }) => destinationIps.length > 0 || notDestinationIps.length > 0,
      ),
    ),
  );
}
