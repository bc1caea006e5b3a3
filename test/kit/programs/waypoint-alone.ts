import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pino from 'pino';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from '#api/envoy/types.ts';
import { openAuthority } from '#certs/authority.ts';
import { issueSvid } from '#certs/testing.ts';
import {
  clusterBytes,
  endpointsBytes,
  LEDGER,
  listenerBytes,
  routesBytes,
  routeTo,
} from '#waypoint/config/testing.ts';
import { WAYPOINT } from '#waypoint/downstream/testing.ts';
import { parseWaypointSettings } from '#waypoint/settings.ts';
import { Waypoint } from '#waypoint/waypoint.ts';

/**
 * A waypoint as a process of its own, configured by its command line: AUTHORITY-FOLDER GATE-PORT MEMORY-BUDGET. Its one
 * backend is behind an HBONE server on loopback. Prints where it listens, and at each line that it reads what it holds.
 */
const [directory = '', gatePort = '', memory = '256Mi'] = process.argv.slice(2);
const authority = await openAuthority({ directory, trustDomain: 'cluster.local', now: Date.now });
const settings = parseWaypointSettings(
  new Map([
    ['namespace', 'pay'],
    ['name', 'waypoint'],
    ['control-plane', 'https://127.0.0.1:1'],
    ['roots-file', join(directory, 'bundle.pem')],
    ['listen', '127.0.0.1:0'],
    ['access-log', '/dev/null'],
    ['memory-budget', memory],
  ]),
  {},
);
const waypoint = new Waypoint({
  settings,
  identity: WAYPOINT,
  version: '0.0.0',
  signer: { requestSvid: async (identity) => await issueSvid(authority, identity), close: () => undefined },
  logger: pino({ level: 'warn' }, pino.destination(2)),
  sockets: { hopOf: () => ({ ip: '127.0.0.1', port: Number(gatePort) }) },
});
const update = (type: Parameters<typeof waypoint.apply>[0]['type'], value: Uint8Array): void => {
  waypoint.apply({ type, updated: [{ name: LEDGER, value }], removed: [] });
};
update(CLUSTER_TYPE, clusterBytes(LEDGER));
update(ENDPOINT_TYPE, endpointsBytes(LEDGER, [1]));
update(LISTENER_TYPE, listenerBytes(LEDGER));
update(ROUTE_TYPE, routesBytes(LEDGER, [routeTo(LEDGER)]));
waypoint.revocations.told();
const address = await waypoint.open(new AbortController().signal);
process.stdout.write(`${address?.port}\n`);
process.stdin.on('data', () => {
  const { heldBytes, shedCount } = (waypoint.view(() => 'warn').status() as Status).memory;
  const peak = /VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  const resident = /VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  const figures = { heldBytes, shedCount, peakKib: Number(peak), residentKib: Number(resident) };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
});
process.stdin.on('end', () => process.exit(0));

interface Status {
  readonly memory: { readonly heldBytes: number; readonly shedCount: number };
}
