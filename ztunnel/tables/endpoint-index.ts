import { type Service, serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import type { Endpoint } from './tables.ts';

/**
 * Endpoints by service key. They come from workloads alone, so they may be there before their service, and they stay
 * when it is replaced.
 */
export class EndpointIndex {
  readonly #members = new Map<string, Map<string, Endpoint>>();
  /** What {@link of} has answered, until an endpoint or the service changes. */
  readonly #chosen = new Map<
    string,
    { readonly service: Service; readonly endpoints: readonly Endpoint[] }
  >();

  /** The endpoints that may be chosen; the same array until something changes. */
  of(service: Service): readonly Endpoint[] {
    const key = serviceKey(service);
    const known = this.#chosen.get(key);
    if (known?.service === service) return known.endpoints;
    const members = [...(this.#members.get(key)?.values() ?? [])];
    const all = service.loadBalancing?.healthPolicy === 'ALLOW_ALL';
    const endpoints = all ? members : members.filter(({ workload }) => workload.status === 'HEALTHY');
    this.#chosen.set(key, { service, endpoints });
    return endpoints;
  }

  add(workload: Workload): void {
    for (const [key, mappings] of workload.services) {
      const ports = new Map(mappings.map(({ servicePort, targetPort }) => [servicePort, targetPort]));
      const members = this.#members.get(key) ?? new Map<string, Endpoint>();
      members.set(workload.uid, { workload, ports });
      this.#members.set(key, members);
      this.#chosen.delete(key);
    }
  }

  remove(workload: Workload): void {
    for (const key of workload.services.keys()) {
      const members = this.#members.get(key);
      members?.delete(workload.uid);
      if (members?.size === 0) this.#members.delete(key);
      this.#chosen.delete(key);
    }
  }

  /** The service changed or is gone: what was chosen for it does not hold any more. */
  forgetChoice(key: string): void {
    this.#chosen.delete(key);
  }
}
