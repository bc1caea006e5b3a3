import type { RouteSchema } from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import { RouteConfigurationSchema } from '#api/envoy/gen/envoy/config/route/v3/route_pb.ts';
import { ROUTE_TYPE } from '#api/envoy/types.ts';
import type { Origin } from '../context.ts';
import { type Draft, draft, type Fields } from './messages.ts';

/** A route, as it is written into a RouteConfiguration. */
export type RouteFields = Fields<typeof RouteSchema>;

/** The routes of a listener, under its name, in order: the first that matches counts. */
export function draftRoutes(name: string, routes: readonly RouteFields[], origin: Origin): Draft {
  return draft(ROUTES, { name, origin, parts: routes }, () => ({
    name,
    virtualHosts: [{ name, domains: ['*'], routes: [...routes], includeRequestAttemptCount: true }],
    validateClusters: false,
  }));
}

const ROUTES = { type: ROUTE_TYPE, schema: RouteConfigurationSchema };
