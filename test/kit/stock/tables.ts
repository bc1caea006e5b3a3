import {
  type Policy,
  type Port,
  readAddress,
  readAuthorization,
  type Service,
  type Workload,
} from './resources.ts';

export const ADDRESS_TYPE = 'type.googleapis.com/istio.workload.Address';
export const AUTHORIZATION_TYPE = 'type.googleapis.com/istio.security.Authorization';

/** An end of a connection. */
export interface Endpoint {
  readonly ip: string;
  readonly port: number;
}

/** Where a connection of a local workload goes; fact sheet ambient-wire.md 3.1 without waypoints and gateways. */
export type Hop =
  | {
      readonly kind: 'hbone';
      readonly workload: Workload;
      readonly to: Endpoint;
      readonly service: Service | undefined;
    }
  | { readonly kind: 'tcp'; readonly to: Endpoint }
  | { readonly kind: 'drop'; readonly reason: string };

/** What a ztunnel was told, and what follows from it. */
export class Tables {
  /** By uid. */
  readonly workloads: Map<string, Workload> = new Map();
  /** By `namespace/hostname`. */
  readonly services: Map<string, Service> = new Map();
  /** By resource name. */
  readonly policies: Map<string, Policy> = new Map();
  readonly #waiting = new Set<() => void>();

  /** Takes in a resource. @throws Error with the reason for a NACK; then nothing has changed */
  put(type: string, name: string, bytes: Uint8Array): void {
    if (type === AUTHORIZATION_TYPE) {
      this.policies.set(name, readAuthorization(bytes));
      return;
    }
    const address = readAddress(bytes);
    if (address.kind === 'workload') this.workloads.set(address.uid, address);
    else this.services.set(`${address.namespace}/${address.hostname}`, address);
  }

  remove(type: string, name: string): void {
    if (type === AUTHORIZATION_TYPE) this.policies.delete(name);
    else if (!this.workloads.delete(name)) this.services.delete(name);
  }

  /** Tells those who wait that a response has been taken in whole. */
  settled(): void {
    for (const check of this.#waiting) check();
  }

  /** Waits for something to be known. @throws Error when it is not in time */
  waitFor<T>(what: string, find: () => T | undefined, timeoutMs = 5_000): Promise<T> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(check);
      };
      const check = (): void => {
        const found = find();
        if (found === undefined) return;
        end();
        resolve(found);
      };
      const timer = setTimeout(() => {
        end();
        reject(new Error(`not known within ${timeoutMs} ms: ${what}`));
      }, timeoutMs);
      this.#waiting.add(check);
      check();
    });
  }

  workloadAt(ip: string): Workload | undefined {
    return [...this.workloads.values()].find(({ addresses }) => addresses.includes(ip));
  }

  serviceAt(ip: string): Service | undefined {
    return [...this.services.values()].find(({ addresses }) => addresses.includes(ip));
  }

  /** The target port of a service's port on one of its workloads; undefined: it has none. */
  targetPort(service: Service, workload: Workload, servicePort: number): number | undefined {
    const find = (ports: readonly Port[] | undefined): number | undefined =>
      ports?.find((port) => port.servicePort === servicePort)?.targetPort || undefined;
    const own = workload.services.get(`${service.namespace}/${service.hostname}`);
    return find(own) ?? find(service.ports);
  }

  nextHop(original: Endpoint): Hop {
    const service = this.serviceAt(original.ip);
    if (service !== undefined && !service.passthrough) return this.#throughService(service, original);
    const workload = this.workloadAt(original.ip);
    if (workload?.hbone !== true) return { kind: 'tcp', to: original };
    return { kind: 'hbone', workload, to: original, service: undefined };
  }

  #throughService(service: Service, { ip, port }: Endpoint): Hop {
    const family = (address: string): boolean => address.includes(':') === ip.includes(':');
    const candidates = [...this.workloads.values()].flatMap((workload) => {
      const target = this.targetPort(service, workload, port);
      const address = workload.addresses.find(family) ?? workload.addresses[0];
      const isEndpoint =
        workload.services.has(`${service.namespace}/${service.hostname}`) && workload.healthy;
      if (!isEndpoint || target === undefined || address === undefined) return [];
      return [{ workload, to: { ip: address, port: target } }];
    });
    const chosen = candidates[Math.floor(Math.random() * candidates.length)];
    if (chosen === undefined) return { kind: 'drop', reason: `no healthy upstream: ${ip}:${port}` };
    if (!chosen.workload.hbone) return { kind: 'tcp', to: chosen.to };
    return { kind: 'hbone', ...chosen, service };
  }
}
