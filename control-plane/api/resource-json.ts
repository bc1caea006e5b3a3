import type { Resource } from './resource.ts';

/** A resource as JSON: as it is, with a workload's services as an object. */
export type ResourceJson = Readonly<Record<string, unknown>>;

/** For another process of the same version, which reads it with {@link resourceFromJson}. */
export function resourceToJson(resource: Resource): ResourceJson {
  return resource.kind === 'workload'
    ? { ...resource, services: Object.fromEntries(resource.services) }
    : { ...resource };
}

/** The resource that {@link resourceToJson} wrote; trusted, not checked. */
export function resourceFromJson(json: ResourceJson): Resource {
  const services = json['services'];
  const resource =
    typeof services === 'object' ? { ...json, services: new Map(Object.entries(services ?? {})) } : json;
  return resource as unknown as Resource; // Written by this program for itself.
}
