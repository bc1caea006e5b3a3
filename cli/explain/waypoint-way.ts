import type { HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity, type Identity } from '#certs/identity.ts';
import type { ServedWaypoints } from '#control-plane/served-waypoints.ts';
import type { Frontend } from '#waypoint/model.ts';
import { decideCaller } from '#ztunnel/caller.ts';
import { CALLER_HEADER } from '#ztunnel/hbone/headers.ts';
import type { NextHop, TunnelHop } from '#ztunnel/next-hop.ts';
import { authorizeAgainst } from '#ztunnel/policy/authorize.ts';
import { formatWorkloadRef } from '../local/names.ts';
import type { LoadedWaypoint } from '../local/waypoint-configs.ts';
import { explainVerdict, isEnrolled, objectOf, type VerdictSources } from './verdicts.ts';
import { explainWaypoint } from './waypoint.ts';
import type {
  BackendExplanation,
  EndpointVerdict,
  ExplainedRequest,
  WaypointExplanation,
} from './waypoint-explanation.ts';

/** What a request is, and what waypoints know, for the part of the way that is theirs. */
export interface RequestPart {
  readonly waypoints: readonly LoadedWaypoint[];
  /** Where the rules of each route are written. */
  readonly rules: ServedWaypoints['rules'];
  readonly request: Omit<ExplainedRequest, 'authority'>;
  readonly nowMs: number;
}

/** Who calls what, as far as waypoints want to know. */
export interface WaypointCall extends VerdictSources {
  readonly source: Workload;
  readonly sourceIp: string;
  readonly to: { readonly host: string; readonly port: number };
  readonly part: RequestPart;
}

/** What each waypoint on the ways would do; a waypoint's replicas do the same. Waypoints of another make are left out. */
export function explainWaypoints(
  call: WaypointCall,
  ways: readonly { readonly hop: NextHop }[],
): readonly WaypointExplanation[] {
  if (!isEnrolled(call.source)) return [];
  const found = new Map<string, WaypointExplanation>();
  for (const { hop } of ways) {
    if (hop.kind !== 'tunnel' || hop.viaWaypoint === undefined) continue;
    const loaded = call.part.waypoints.find((waypoint) => isWaypoint(waypoint, hop));
    if (loaded === undefined) continue;
    const waypoint = formatWorkloadRef(loaded);
    if (found.has(waypoint)) continue;
    const authority = parseAuthority(hop.authority);
    found.set(
      waypoint,
      explainWaypoint({
        waypoint,
        config: loaded.config,
        source: call.source,
        sourceIp: call.sourceIp,
        authority,
        request: { ...call.part.request, authority: `${call.to.host}:${call.to.port}` },
        nowMs: call.part.nowMs,
        positionOf: ({ object, rule }) =>
          call.part.rules.find((one) => one.object === object)?.positions[rule] ?? null,
        refusalOf: (frontend) => refusalOf(call, frontend, authority),
        verdictAt: (address) => verdictAt(call, hop, address),
      }),
    );
  }
  return [...found.values()];
}

/** Whether a request gets to each of the places to which a waypoint may send it. */
export function endsOf({ action }: WaypointExplanation): readonly boolean[] {
  if (action.kind === 'answered') return [true];
  if (action.kind === 'refused') return [false];
  return action.backends.filter(({ weight }) => weight > 0).flatMap(endsOfBackend);
}

function endsOfBackend({ problem, endpoints }: BackendExplanation): readonly boolean[] {
  if (problem !== null) return [false];
  return endpoints
    .filter(({ health }) => health === 'healthy')
    .map(({ verdict }) => verdict?.kind !== 'deny');
}

/** An instance is a pod of the Gateway's: it has the identity that goes with that. */
function isWaypoint(
  waypoint: { readonly namespace: string; readonly name: string },
  hop: TunnelHop,
): boolean {
  const { namespace, serviceAccount } = hop.destinationWorkload;
  return namespace === waypoint.namespace && serviceAccount === waypoint.name;
}

/** By the policies that the listener names. */
function refusalOf(
  { tables, served, source, sourceIp }: WaypointCall,
  { authorizations }: Frontend,
  authority: HostPort,
): string | undefined {
  if (authorizations.length === 0) return undefined;
  const policies = authorizations.flatMap((key) => tables.policyByKey(key) ?? []);
  const missing = authorizations.find((key) => tables.policyByKey(key) === undefined);
  const verdict = authorizeAgainst(policies, missing, {
    sourceIdentity: identityOf(source),
    sourceIp,
    destinationIp: authority.ip,
    destinationPort: authority.port,
  });
  if (verdict.kind === 'allow') return undefined;
  const decisive = verdict.policy ?? authorizations[0];
  return `${verdict.reason}${decisive === undefined ? '' : `, ${objectOf(served, decisive)}`}`;
}

/** At the far end of the waypoint's own tunnel, where it says for whom it calls. */
function verdictAt(call: WaypointCall, hop: TunnelHop, address: HostPort): EndpointVerdict | null {
  const { tables, source } = call;
  const workload = tables.workloadByIp(source.network, address.ip);
  if (workload === undefined || !isEnrolled(workload)) return null;
  const instance = hop.destinationWorkload;
  const claim = decideCaller({
    tables,
    workload,
    peer: identityOf(instance),
    peerIp: hop.hop.ip,
    network: source.network,
    fields: [[CALLER_HEADER, formatIdentity(identityOf(source))]],
  });
  if (claim.kind === 'refused') return { kind: 'deny', reason: claim.reason, policy: null, position: null };
  const { kind, reason, policy, position } = explainVerdict(call, workload, {
    sourceIdentity: claim.identity,
    ...(claim.kind === 'via-waypoint' && { waypointIdentity: claim.waypoint }),
    sourceIp: hop.hop.ip,
    destinationIp: address.ip,
    destinationPort: address.port,
  });
  return { kind, reason, policy, position };
}

function identityOf({ trustDomain, namespace, serviceAccount }: Workload): Identity {
  return { trustDomain, namespace, serviceAccount };
}

/** `10.0.0.1:80` or `[fd00::1]:80`, as {@link decideNextHop} writes it. */
function parseAuthority(text: string): HostPort {
  const colon = text.lastIndexOf(':');
  return { ip: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
}
