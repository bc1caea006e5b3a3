import { formatHostPort } from '#api/address.ts';
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
    tunnel: `tunnel${destination}: dials ${hop.dials}, asks for ${hop.authority}, expects ${hop.expects.join(' or ')} (${hop.reason})`,
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

function at(position: string | null): string {
  return position === null ? '' : ` (${position})`;
}
