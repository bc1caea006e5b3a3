import { type Authorization, policyKey } from './policy.ts';
import { type Service, serviceKey } from './service.ts';
import type { Workload } from './workload.ts';

/** What the workload API carries: workloads and services under one type, policies under another. */
export type Resource = Workload | Service | Authorization;

/** xDS type URL of workloads and services. */
export const ADDRESS_TYPE: 'type.googleapis.com/istio.workload.Address' =
  'type.googleapis.com/istio.workload.Address';
/** xDS type URL of L4 policies. */
export const AUTHORIZATION_TYPE: 'type.googleapis.com/istio.security.Authorization' =
  'type.googleapis.com/istio.security.Authorization';

/** The two types. */
export type ResourceType = typeof AUTHORIZATION_TYPE | typeof ADDRESS_TYPE;

/** xDS resource name: a workload's uid, `namespace/hostname`, `namespace/name`. */
export function resourceName(resource: Resource): string {
  switch (resource.kind) {
    case 'workload':
      return resource.uid;
    case 'service':
      return serviceKey(resource);
    case 'authorization':
      return policyKey(resource);
  }
}

/** Type URL under which a resource is served. */
export function resourceType(resource: Resource): ResourceType {
  return resource.kind === 'authorization' ? AUTHORIZATION_TYPE : ADDRESS_TYPE;
}

/** What a client is told in one response: updates are applied before removals. */
export interface ResourceUpdate {
  readonly type: ResourceType;
  readonly updated: readonly Resource[];
  /** Names of resources that are gone. */
  readonly removed: readonly string[];
}
