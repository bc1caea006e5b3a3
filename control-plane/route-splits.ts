import {
  type MeshObject,
  type ObjectKey,
  objectKey,
  type Position,
  type RouteObject,
} from './source/objects.ts';
import type { BackendRef } from './source/route-objects.ts';

/** The share of one backend in a rule of a route, as it is written. */
export interface RouteSplit {
  /** From 0. */
  readonly rule: number;
  /** `namespace/name:port`. */
  readonly backend: string;
  readonly weight: number;
}

/** How routes divide what they match, by route; a backend that a rule names twice is there once, with both weights. */
export function splitsOfRoutes(objects: Iterable<MeshObject>): ReadonlyMap<ObjectKey, readonly RouteSplit[]> {
  const routes = [...objects].filter(isRoute);
  return new Map(
    routes.map((route) => [
      objectKey(route),
      route.spec.rules.flatMap(({ backendRefs }, rule) => splitOf(rule, backendRefs)),
    ]),
  );
}

/** Where each rule of a route is written, by route. */
export function positionsOfRules(objects: Iterable<MeshObject>): ReadonlyMap<ObjectKey, readonly Position[]> {
  const routes = [...objects].filter(isRoute);
  return new Map(
    routes.map((route) => [
      objectKey(route),
      route.spec.rules.map((_, rule) => route.positionOf(`spec.rules[${rule}]`)),
    ]),
  );
}

function isRoute(object: MeshObject): object is RouteObject {
  const kinds: readonly RouteObject['kind'][] = ['HTTPRoute', 'GRPCRoute', 'TCPRoute', 'TLSRoute'];
  return kinds.some((kind) => kind === object.kind);
}

function splitOf(rule: number, backends: readonly BackendRef[]): readonly RouteSplit[] {
  const weights = new Map<string, number>();
  for (const { namespace, name, port, weight } of backends) {
    const backend = port === undefined ? `${namespace}/${name}` : `${namespace}/${name}:${port}`;
    weights.set(backend, (weights.get(backend) ?? 0) + weight);
  }
  return [...weights].map(([backend, weight]) => ({ rule, backend, weight }));
}
