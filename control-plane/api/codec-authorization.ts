import { create } from '@bufbuild/protobuf';
import { EmptySchema } from '@bufbuild/protobuf/wkt';
import { type Cidr, familyOf, ipToBytes } from './address.ts';
import { decodeIp, decodePort, decodeRequired, enumCodec } from './codec-fields.ts';
import type { Faults } from './faults.ts';
import {
  Action,
  AddressSchema,
  AuthorizationSchema,
  ClauseSchema,
  MatchSchema,
  RuleSchema,
  Scope,
  ServiceAccountMatchSchema,
  StringMatchSchema,
  type Address as WireAddress,
  type Authorization as WireAuthorization,
  type Match as WireMatch,
  type StringMatch as WireStringMatch,
} from './gen/istio/security/authorization_pb.ts';
import type { Authorization, Match, StringMatch } from './policy.ts';

const authorizationScopes = enumCodec('GLOBAL', Scope);
const actions = enumCodec('DENY', Action);

/** The message of a policy. */
export function encodeAuthorization(policy: Authorization): WireAuthorization {
  return create(AuthorizationSchema, {
    name: policy.name,
    namespace: policy.namespace,
    scope: authorizationScopes.encode(policy.scope),
    action: actions.encode(policy.action),
    rules: policy.rules.map((rule) =>
      create(RuleSchema, {
        clauses: rule.clauses.map((clause) =>
          create(ClauseSchema, { matches: clause.matches.map(encodeMatch) }),
        ),
      }),
    ),
    dryRun: policy.dryRun,
  });
}

/**
 * The policy; what is wrong goes to `faults`. A stock ztunnel silently drops an address or a string match that it cannot
 * read, which can turn a DENY into nothing; here the policy is rejected, and its last good version stays.
 */
export function decodeAuthorization(wire: WireAuthorization, faults: Faults): Authorization {
  return {
    kind: 'authorization',
    name: decodeRequired(wire.name, 'authorization.name', faults),
    namespace: decodeRequired(wire.namespace, 'authorization.namespace', faults),
    scope: authorizationScopes.decode(wire.scope, 'authorization.scope', faults),
    action: actions.decode(wire.action, 'authorization.action', faults),
    rules: wire.rules.map((rule, r) => ({
      clauses: rule.clauses.map((clause, c) => ({
        matches: clause.matches.map((match, m) =>
          decodeMatch(match, `rules[${r}].clauses[${c}].matches[${m}]`, faults),
        ),
      })),
    })),
    dryRun: wire.dryRun,
  };
}

function encodeMatch(match: Match): WireMatch {
  return create(MatchSchema, {
    namespaces: match.namespaces.map(encodeStringMatch),
    notNamespaces: match.notNamespaces.map(encodeStringMatch),
    principals: match.principals.map(encodeStringMatch),
    notPrincipals: match.notPrincipals.map(encodeStringMatch),
    sourceIps: match.sourceIps.map(encodeCidr),
    notSourceIps: match.notSourceIps.map(encodeCidr),
    destinationIps: match.destinationIps.map(encodeCidr),
    notDestinationIps: match.notDestinationIps.map(encodeCidr),
    destinationPorts: [...match.destinationPorts],
    notDestinationPorts: [...match.notDestinationPorts],
    serviceAccounts: match.serviceAccounts.map((account) => create(ServiceAccountMatchSchema, account)),
    notServiceAccounts: match.notServiceAccounts.map((account) => create(ServiceAccountMatchSchema, account)),
  });
}

function decodeMatch(wire: WireMatch, path: string, faults: Faults): Match {
  const strings = (field: 'namespaces' | 'notNamespaces' | 'principals' | 'notPrincipals'): StringMatch[] =>
    wire[field].map((match, i) => decodeStringMatch(match, `${path}.${field}[${i}]`, faults));
  const cidrs = (field: 'sourceIps' | 'notSourceIps' | 'destinationIps' | 'notDestinationIps'): Cidr[] =>
    wire[field].map((address, i) => decodeCidr(address, `${path}.${field}[${i}]`, faults));
  const ports = (field: 'destinationPorts' | 'notDestinationPorts'): number[] =>
    wire[field].map((port, i) => decodePort(port, 0, `${path}.${field}[${i}]`, faults));
  const accounts = (field: 'serviceAccounts' | 'notServiceAccounts'): Match['serviceAccounts'] =>
    wire[field].map(({ namespace, serviceAccount }) => ({ namespace, serviceAccount }));
  return {
    namespaces: strings('namespaces'),
    notNamespaces: strings('notNamespaces'),
    principals: strings('principals'),
    notPrincipals: strings('notPrincipals'),
    sourceIps: cidrs('sourceIps'),
    notSourceIps: cidrs('notSourceIps'),
    destinationIps: cidrs('destinationIps'),
    notDestinationIps: cidrs('notDestinationIps'),
    destinationPorts: ports('destinationPorts'),
    notDestinationPorts: ports('notDestinationPorts'),
    serviceAccounts: accounts('serviceAccounts'),
    notServiceAccounts: accounts('notServiceAccounts'),
  };
}

function encodeStringMatch(match: StringMatch): WireStringMatch {
  return create(StringMatchSchema, {
    matchType:
      match.kind === 'presence'
        ? { case: 'presence', value: create(EmptySchema) }
        : { case: match.kind, value: match.value },
  });
}

function decodeStringMatch(wire: WireStringMatch, path: string, faults: Faults): StringMatch {
  const { matchType } = wire;
  switch (matchType.case) {
    case 'exact':
    case 'prefix':
    case 'suffix':
      return { kind: matchType.case, value: matchType.value };
    case 'presence':
      return { kind: 'presence' };
    case undefined:
      faults.add(path, 'matches nothing: neither exact, prefix, suffix nor presence');
      return { kind: 'presence' };
  }
}

function encodeCidr(cidr: Cidr): WireAddress {
  return create(AddressSchema, { address: ipToBytes(cidr.address), length: cidr.length });
}

function decodeCidr(wire: WireAddress, path: string, faults: Faults): Cidr {
  const address = decodeIp(wire.address, `${path}.address`, faults);
  const bits = wire.address.length * 8;
  const length = wire.length - (bits - (familyOf(address) === 4 ? 32 : 128)); // an IPv4-mapped prefix counts from bit 96
  if (wire.length > bits || length < 0) faults.add(`${path}.length`, `${wire.length} is not a prefix length`);
  return { address, length };
}
