import { formatHostPort } from '#api/address.ts';
import type { NotSameNode } from '#ztunnel/next-hop.ts';
import type { Explanation, Route } from './explanation.ts';
import { waypointLines } from './waypoint-text.ts';

/** An explanation for people: a line a decision. */
export function formatExplanation(explanation: Explanation): string {
  const { basis, routes, waypoints, outcome } = explanation;
  return [
    ...(basis === 'control plane'
      ? []
      : [
          `note  the control plane does not answer: this is what ${basis} has of it, without files and lines`,
        ]),
    `from  ${fromText(explanation)}`,
    `name  ${nameText(explanation)}`,
    ...routes.flatMap(routeLines),
    ...waypoints.flatMap(waypointLines),
    `so    ${outcome}`,
  ].join('\n');
}

function fromText({ from }: Explanation): string {
  const place = `${from.workload} (${from.address || 'no address'}, node ${from.node || '-'})`;
  if (from.identity !== null) {
    const capture = from.capture === null ? '' : `, captured by ${from.capture}`;
    return `${place}, in the mesh as ${from.identity}${capture}${certificateText(from.certificate)}`;
  }
  const mesh = from.enrolled ? 'in the mesh, but' : 'not in the mesh';
  return `${place}, ${mesh}${from.pending === null ? '' : `${from.enrolled ? '' : ' yet:'} ${from.pending}`}`;
}

function nameText({ to }: Explanation): string {
  if (!to.exists) return `${to.host} does not exist: no service of the mesh has that name`;
  if (to.resolved === null) {
    return `${to.host} is not a name of the mesh: it is asked of the name servers outside`;
  }
  const service = to.service === null ? '' : `, service ${to.service}`;
  return `${to.host} is ${formatHostPort(to.resolved)}${service}${at(to.position)}`;
}

function certificateText(certificate: Explanation['from']['certificate']): string {
  return certificate === null ? '' : `, certificate until ${certificate.notAfter}`;
}

function routeLines({ hop, end, verdict, obstacle, ignored }: Route): readonly string[] {
  const destination = hop.destination === null ? '' : ` to ${hop.destination}`;
  const lines = {
    tunnel: `tunnel${destination}: dials ${hop.dials}, asks for ${hop.authority}, expects ${hop.expects.join(' or ')} (${hop.reason}${hop.notSameNode === null ? '' : `; ${WHY_TUNNEL[hop.notSameNode]}`})`,
    'same-node': `on the node${destination}: dials ${hop.dials} inside the ztunnel, without TLS, expects ${hop.expects.join(' or ')} (${hop.reason})`,
    passthrough: `plain TCP${destination}: dials ${hop.dials} (${hop.reason})`,
    resolve: `plain TCP${destination}: looks ${hop.dials} up first (${hop.reason})`,
    refuse: `refused${destination}: ${hop.message ?? hop.reason} (${hop.reason})`,
  };
  return [
    `hop   ${lines[hop.kind]}`,
    ...endLines(end),
    ...(obstacle === null
      ? []
      : [`      cannot be made: ${obstacle.message} (${obstacle.reason}, ${obstacle.at})`]),
    ...verdictLines(verdict),
    ...ignored.map(
      ({ policy, position, rule, reason }) =>
        `      ignored: ${policy}${rule === null ? '' : ` rule ${rule}`}${at(position)}: ${reason}`,
    ),
  ];
}

function endLines(end: Route['end']): readonly string[] {
  if (end === null) return [];
  const { workload, node, enrolled, identity, capture, certificate } = end;
  const shows = identity === null ? 'shows no identity' : `is ${identity}${certificateText(certificate)}`;
  const mesh = enrolled
    ? `in the mesh${capture === null ? '' : `, captured by ${capture}`}`
    : 'not in the mesh';
  return [`      ${workload} (node ${node || '-'}) is ${mesh}, ${shows}`];
}

function verdictLines(verdict: Route['verdict']): readonly string[] {
  if (verdict === null) return [];
  const policy = verdict.policy === null ? '' : `, ${verdict.policy}${at(verdict.position)}`;
  const rehearsed = verdict.dryRun
    .map(({ policy: name, would }) => `; dry run: ${name} would ${would}`)
    .join('');
  return [`      ${verdict.kind === 'allow' ? 'let in' : 'denied'}: ${verdict.reason}${policy}${rehearsed}`];
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
