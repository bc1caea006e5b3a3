import type { Resource } from '#api/resource.ts';
import type { MeshObject, ObjectKey, Position, Problem } from '../source/objects.ts';
import type { Inventory } from './inventory.ts';
import type { MeshSettings } from './settings.ts';
import type { VipAllocations } from './vips.ts';
import type { WaypointTable } from './waypoints.ts';

/** What every derivation looks at. */
export interface Context {
  readonly inventory: Inventory;
  readonly settings: MeshSettings;
  readonly waypoints: WaypointTable;
  readonly vips: VipAllocations;
  /** First part of every uid: `Kubernetes`. */
  readonly clusterId: string;
  /** Domain of service names: `cluster.local`. */
  readonly domain: string;
  /** Network of all addresses that do not name another; mostly empty. */
  readonly network: string;
  /** Collects what is wrong with the objects. */
  readonly report: (problem: Problem) => void;
}

/** The object that a resource stands for, and where it is written. */
export interface Origin {
  readonly object: ObjectKey;
  readonly position: Position;
}

/** A resource and where it comes from. */
export interface Derived<R extends Resource = Resource> {
  readonly resource: R;
  readonly origin: Origin;
  /** Of an authorization: where each of its rules is written, in their order. */
  readonly ruleOrigins?: readonly Position[];
  /** The object itself; absent for a policy that could not be read. */
  readonly source?: MeshObject;
}
