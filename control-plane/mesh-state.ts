import { ADDRESS_TYPE, type Resource } from '#api/resource.ts';
import { formatIdentity, type Identity } from '#certs/identity.ts';
import { type ConditionTimes, noteConditions } from './condition-times.ts';
import { deriveSnapshot, type Snapshot } from './derive/snapshot.ts';
import { allocateVips } from './derive/vips.ts';
import { type FaultFile, faultClock, seeFaults } from './fault-file.ts';
import { positionsOfRules, type RouteSplit, splitsOfRoutes } from './route-splits.ts';
import { type ServedSnapshot, serveSnapshot } from './serve/served-snapshot.ts';
import type { SettingsFile } from './settings-file.ts';
import type { ObjectKey, ObjectSet, Position, Problem } from './source/objects.ts';
import type { VipFile } from './vip-file.ts';

/** What is in force. */
export interface MeshState {
  readonly snapshot: Snapshot;
  readonly served: ServedSnapshot;
  /** Resources that could not be served as they are. */
  readonly problems: readonly Problem[];
  /** How routes divide what they match, as they are written. */
  readonly splits: ReadonlyMap<ObjectKey, readonly RouteSplit[]>;
  /** Since when the conditions of routes are as they are. */
  readonly conditionTimes: ConditionTimes;
  /** Where the rules of routes are written. */
  readonly rulePositions: ReadonlyMap<ObjectKey, readonly Position[]>;
  /** Identities of the workloads on each node, as SPIFFE IDs. */
  readonly identities: ReadonlyMap<string, ReadonlySet<string>>;
}

/** What is kept on disk of what is derived. */
export interface MeshStores {
  readonly vips: VipFile;
  /** Where settings are kept over restarts. */
  readonly settings?: SettingsFile;
  /** Where it is kept when faults were first seen; without it all are seen now. */
  readonly faults?: FaultFile;
}

/**
 * Turns objects into what is in force. Addresses of services, and when faults were first seen, are kept on disk before anything
 * names them.
 * @throws Error where the disk is full.
 */
export function nextMeshState(
  objects: ObjectSet,
  context: MeshStores & {
    /** Milliseconds since the epoch. */
    readonly nowMs: number;
    readonly previous: MeshState | undefined;
    /** Of the authority; undefined before there is one. */
    readonly trustDomain: string | undefined;
  },
): MeshState {
  const vips = allocateVips(objects, context.vips.current());
  const previousSettings = context.previous?.snapshot.settings ?? context.settings?.current();
  const { nowMs, trustDomain } = context;
  const seenBefore = context.faults?.current() ?? new Map();
  const faults = faultClock(seenBefore, nowMs);
  const previous = context.previous?.snapshot;
  const snapshot = deriveSnapshot({ objects, vips, previousSettings, trustDomain, previous, faults });
  context.vips.save(vips);
  context.settings?.save(snapshot.settings);
  context.faults?.save(seeFaults(snapshot.faults, faults));
  const { snapshot: served, failures } = serveSnapshot(
    { resources: resourcesOf(snapshot), waypoints: snapshot.waypoints },
    context.previous?.served,
  );
  return {
    snapshot,
    served,
    splits: splitsOfRoutes(objects.objects.values()),
    conditionTimes: noteConditions(
      snapshot.routeStatuses,
      context.previous?.conditionTimes ?? new Map(),
      nowMs,
    ),
    rulePositions: positionsOfRules(objects.objects.values()),
    identities: identitiesByNode(snapshot),
    problems: failures.map(({ name, message }) => unservable(name, message, snapshot)),
  };
}

/** Whether a workload with that identity is on that node. */
export function isOnNode(state: MeshState | undefined, node: string, identity: Identity): boolean {
  return state?.identities.get(node)?.has(formatIdentity(identity)) ?? false;
}

function* resourcesOf(snapshot: Snapshot): Iterable<Resource> {
  for (const ofType of snapshot.resources.values())
    for (const { resource } of ofType.values()) yield resource;
}

function identitiesByNode(snapshot: Snapshot): ReadonlyMap<string, ReadonlySet<string>> {
  const byNode = new Map<string, Set<string>>();
  for (const { resource } of snapshot.resources.get(ADDRESS_TYPE)?.values() ?? []) {
    if (resource.kind !== 'workload' || resource.node === '') continue;
    const identities = byNode.get(resource.node) ?? new Set();
    byNode.set(resource.node, identities.add(formatIdentity(resource)));
  }
  return byNode;
}

function unservable(name: string, message: string, snapshot: Snapshot): Problem {
  const origin = [...snapshot.resources.values()].flatMap((ofType) => ofType.get(name)?.origin ?? [])[0];
  return {
    object: origin?.object ?? name,
    position: origin?.position ?? { file: name, line: 0, column: 0 },
    path: '',
    message: `cannot be served: ${message}`,
    severity: 'error',
    effect: 'the version served last stays in force',
  };
}
