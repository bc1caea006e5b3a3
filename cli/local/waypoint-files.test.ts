import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { StateFolder } from './state-folder.ts';
import {
  readWantedWaypoints,
  removeOtherTokens,
  removeWaypointSockets,
  waypointSocket,
  waypointSocketLink,
  waypointTokenFile,
  writeWaypointFiles,
} from './waypoint-files.ts';

const WAYPOINT = { namespace: 'shop', name: 'waypoint' };
let state: StateFolder;

beforeEach(() => {
  state = { path: mkdtempSync(join(tmpdir(), 'tulle-test-')), mesh: 'tulle-123456' };
  mkdirSync(join(state.path, 'run'));
});
afterEach(() => rmSync(state.path, { recursive: true, force: true }));

test('what the control plane wants is read, and a file that is not whole says nothing', () => {
  const file = join(state.path, 'run', 'waypoints.json');
  expect(readWantedWaypoints(state)).toBeUndefined();
  writeFileSync(file, '[{"namespace":"shop","name":"waypoint","serviceAccount":"waypoint","replicas":2}]');
  expect(readWantedWaypoints(state)).toEqual([{ ...WAYPOINT, serviceAccount: 'waypoint', replicas: 2 }]);
  writeFileSync(file, '[{"namespace":"shop","name":"waypoint","serviceAccount":"waypoint","replicas":-1}]');
  expect(readWantedWaypoints(state)).toBeUndefined();
  writeFileSync(file, '[{"namespace":"shop"');
  expect(readWantedWaypoints(state)).toBeUndefined();
});

test('a credential is kept while its waypoint is wanted, and for nobody else to read', () => {
  writeWaypointFiles(state, WAYPOINT);
  const token = waypointTokenFile(state, WAYPOINT);
  const first = readFileSync(token, 'utf8');
  expect(first.length).toBeGreaterThan(40);
  expect(statSync(token).mode & 0o777).toBe(0o600);
  writeWaypointFiles(state, WAYPOINT);
  removeOtherTokens(state, [WAYPOINT]);
  expect(readFileSync(token, 'utf8')).toBe(first);
  removeOtherTokens(state, []);
  expect(existsSync(token)).toBe(false);
});

test('every process of a replica has a socket of its own, whose path the kernel takes', () => {
  const long = { namespace: 'n'.repeat(63), name: 'w'.repeat(61) };
  const paths = [WAYPOINT, long].flatMap((waypoint) =>
    [0, 1].flatMap((replica) => [1, 2].map((instance) => waypointSocket(state, waypoint, replica, instance))),
  );
  expect(new Set(paths).size).toBe(8);
  expect(paths.every((path) => Buffer.byteLength(path) <= 107)).toBe(true);
});

test('the sockets of one replica go, those of the others stay', () => {
  writeWaypointFiles(state, WAYPOINT);
  const files = [
    waypointSocketLink(state, WAYPOINT, 1),
    waypointSocket(state, WAYPOINT, 1, 1),
    waypointSocket(state, WAYPOINT, 1, 12),
    waypointSocket(state, WAYPOINT, 11, 1),
    waypointSocketLink(state, WAYPOINT, 11),
  ];
  for (const file of files) writeFileSync(file, '');
  removeWaypointSockets(state, WAYPOINT, 1);
  expect(readdirSync(join(state.path, 'run', 'waypoints')).sort()).toEqual([
    'shop_waypoint-11.1.sock',
    'shop_waypoint-11.sock',
  ]);
});
