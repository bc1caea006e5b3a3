import { formatHostPort } from '#api/address.ts';
import type { NotSameNode } from '#ztunnel/next-hop.ts';
import type { Explanation, Route } from './explain.ts';
import { waypointLines } from './waypoint-text.ts';

/** An explanation for people: a line a decision. */
export function formatExplanation({ from, to, routes, waypoints, outcome }: Explanation): string {
  const mesh = from.enrolled ? `in the mesh as ${from.identity}` : 'not in the mesh';
  const name =
    to.resolved === null
      ? `${to.host} is not a name of the mesh: it is asked of the name servers outside`
      : `${to.host} is ${formatHostPort(to.resolved)}${to.service === null ? '' : `, service ${to.service}`}${at(to.position)}`;
  return [
    `from  ${from.workload} (${from.address || 'no address'}, node ${from.node || '-'}), ${mesh}`,
    `name  ${name}`,
    ...routes.flatMap(routeLines),
    ...waypoints.flatMap(waypointLines),
    `so    ${outcome}`,
  ].join('\n');
}

function routeLines({ hop, verdict }: Route): readonly string[] {
  const destination = hop.destination === null ? '' : ` to ${hop.destination}`;
  const lines = {
    tunnel: `tunnel${destination}: dials ${hop.dials}, asks for ${hop.authority}, expects ${hop.expects.join(' or ')} (${hop.reason}${hop.notSameNode === null ? '' : `; ${WHY_TUNNEL[hop.notSameNode]}`})`,
    'same-node': `on the node${destination}: dials ${hop.dials} inside the ztunnel, without TLS, expects ${hop.expects.join(' or ')} (${hop.reason})`,
    passthrough: `plain TCP${destination}: dials ${hop.dials} (${hop.reason})`,
    resolve: `plain TCP${destination}: looks ${hop.dials} up first (${hop.reason})`,
    refuse: `refused${destination}: ${hop.message ?? hop.reason} (${hop.reason})`,
  };
  if (verdict === null) return [`hop   ${lines[hop.kind]}`];
  const policy = verdict.policy === null ? '' : `, ${verdict.policy}${at(verdict.position)}`;
  const rehearsed = verdict.dryRun
    .map(({ policy: name, would }) => `; dry run: ${name} would ${would}`)
    .join('');
  return [
    `hop   ${lines[hop.kind]}`,
    `      ${verdict.kind === 'allow' ? 'let in' : 'denied'}: ${verdict.reason}${policy}${rehearsed}`,
  ];
}

/** Both ends are on one node, and yet there is a tunnel. */
const WHY_TUNNEL: Readonly<Record<NotSameNode, string>> = {
  'source-says-tunnel': 'on one node, but the caller or its namespace says tulle.dev/same-node: tunnel',
  'destination-says-tunnel':
    'on one node, but the destination or its namespace says tulle.dev/same-node: tunnel',
  'destination-not-served-here': 'on one node, but its ztunnel does not serve the destination',
  'source-address-not-its-own': "on one node, but the caller's address is not the workload's",
};

function at(position: string | null): string {
  return position === null ? '' : ` (${position})`;
}
