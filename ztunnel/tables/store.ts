import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type Resource,
  type ResourceType,
  type ResourceUpdate,
} from '#api/resource.ts';
import { serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { EndpointIndex } from './endpoint-index.ts';
import { PolicyIndex } from './policy-index.ts';
import { preferredService, ServiceIndex } from './service-index.ts';
import type { MutableTables } from './tables.ts';
import { WorkloadIndex } from './workload-index.ts';

/** Empty tables. Each thread has its own and applies the same updates to them. */
export function createTables(): MutableTables {
  const workloads = new WorkloadIndex();
  const services = new ServiceIndex();
  const endpoints = new EndpointIndex();
  const policies = new PolicyIndex();
  const answered = new Set<ResourceType>();
  let version = 0;

  function removeWorkload(uid: string): boolean {
    const workload = workloads.remove(uid);
    if (workload !== undefined) endpoints.remove(workload);
    return workload !== undefined;
  }

  function replaceWorkload(workload: Workload): void {
    removeWorkload(workload.uid);
    workloads.add(workload);
    endpoints.add(workload);
  }

  function removeService(key: string): void {
    services.remove(key);
    endpoints.forgetChoice(key);
  }

  function replace(resource: Resource): void {
    switch (resource.kind) {
      case 'workload':
        replaceWorkload(resource);
        break;
      case 'service':
        removeService(serviceKey(resource));
        services.add(resource);
        break;
      case 'authorization':
        policies.add(resource);
    }
  }

  function remove(type: ResourceType, name: string): void {
    if (type === AUTHORIZATION_TYPE) policies.remove(name);
    else if (!removeWorkload(name) && isServiceKey(name)) removeService(name);
  }

  function apply(update: ResourceUpdate): void {
    for (const resource of update.updated) replace(resource);
    for (const name of update.removed) remove(update.type, name);
    answered.add(update.type);
    version += 1;
  }

  return {
    workloadByUid: (uid) => workloads.get(uid),
    workloadByIp: (network, ip) => workloads.findByIp(network, ip),
    workloadByName: (name, namespace, serviceAccount, node) =>
      workloads.findByName(name, namespace, serviceAccount, node),
    serviceByVip: (network, ip, clientNamespace) => services.findByVip(network, ip, clientNamespace),
    serviceByHostname: (hostname, clientNamespace) =>
      preferredService(services.withHostname(hostname), clientNamespace),
    servicesByHostname: (hostname) => services.withHostname(hostname),
    serviceByKey: (key) => services.get(key),
    endpointsOf: (service) => endpoints.of(service),
    policyByKey: (key) => policies.get(key),
    policiesOfNamespace: (namespace) => policies.ofNamespace(namespace),
    workloads: () => workloads.all(),
    services: () => services.all(),
    policies: () => policies.all(),
    synced: (what) => answered.has(what === 'addresses' ? ADDRESS_TYPE : AUTHORIZATION_TYPE),
    version: () => version,
    apply,
  };
}

/** `namespace/hostname`; a uid, which has more slashes, is none. */
function isServiceKey(name: string): boolean {
  return name.split('/').length === 2;
}
