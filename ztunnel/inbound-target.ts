import type { HostPort, Ip } from '#api/address.ts';
import { type Service, serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { type Authority, parseAuthority } from './hbone/authority.ts';
import { fieldOf, parseForwardedHost } from './hbone/headers.ts';
import type { Field } from './hbone/hpack-tables.ts';
import { isInstanceOf } from './tables/gateway.ts';
import type { Tables } from './tables/tables.ts';

/** A request that came in over HBONE. */
export interface InboundRequest extends Asked {
  readonly fields: readonly Field[];
  readonly network: string;
}

/** What is asked of a pod. */
interface Asked {
  readonly tables: Tables;
  /** The workload of this pod. */
  readonly workload: Workload;
  /** The pod's address, to which the client has connected. */
  readonly localIp: Ip;
}

/** Which application the request is for, or the status that refuses it. */
export type InboundTarget =
  | {
      readonly kind: 'target';
      readonly address: HostPort;
      /** As the client wrote it. */
      readonly authority: string;
      /** The service that the client addressed, for logs and metrics. */
      readonly service?: Service;
      /** Behind it is another proxy, which is told about the client first. */
      readonly wantsProxyProtocol: boolean;
    }
  | { readonly kind: 'refused'; readonly status: '400' | '503'; readonly error: string };

/** Ports of the ztunnel itself, in every pod. */
export const MESH_PORTS: ReadonlySet<number> = new Set([15001, 15006, 15008]);

/** Decides what a CONNECT is for: fact sheet ambient-wire.md, 1.6, steps 3 to 6. The errors are worded as a stock ztunnel's. */
export function decideInboundTarget(request: InboundRequest): InboundTarget {
  const { fields } = request;
  const method = fieldOf(fields, ':method') ?? '';
  if (method !== 'CONNECT') return refused('400', `expected method CONNECT, got ${quoted(method)}`);
  const text = fieldOf(fields, ':authority') ?? '';
  const authority = parseAuthority(text);
  if (authority === undefined) return refused('400', `no valid authority pseudo header: ${quoted(text)}`);
  if (!isForUs(request, authority)) {
    return refused('400', `ip mismatch: ${request.localIp} != ${quoted(text)}`);
  }
  const port = portOf(request, authority);
  if (port === undefined) return refused('503', `no such service or port: ${quoted(text)}`);
  const named =
    authority.kind === 'hostname'
      ? authority.hostname
      : parseForwardedHost(fieldOf(fields, 'forwarded') ?? '');
  return decideApplication(request, { authority: text, port, named });
}

/**
 * Decides which application of a pod is meant by a port of its.
 * @param named hostname (lower case) of the service that the client has addressed
 */
export function decideApplication(
  { tables, workload, localIp }: Asked,
  { authority: text, port, named }: { authority: string; port: number; named: string | undefined },
): InboundTarget {
  if (MESH_PORTS.has(port)) return refused('503', 'attempted recursive call to ourselves');
  const tunnel = workload.applicationTunnel;
  const wantsProxyProtocol = tunnel?.protocol === 'PROXY';
  const ip = wantsProxyProtocol ? loopbackLike(localIp) : localIp;
  const service = serviceOf({ tables, workload }, named, port);
  return {
    kind: 'target',
    address: { ip, port: tunnel !== undefined && tunnel.port > 0 ? tunnel.port : port },
    authority: text,
    wantsProxyProtocol,
    ...(service && { service }),
  };
}

/** The pod's own address, a name, or, at a waypoint, what is bound to it. */
function isForUs({ tables, workload, localIp, network }: InboundRequest, authority: Authority): boolean {
  if (authority.kind === 'hostname' || authority.address.ip === localIp) return true;
  if (workload.applicationTunnel !== undefined) return true;
  const { ip } = authority.address;
  const bound = tables.workloadByIp(network, ip) ?? tables.serviceByVip(network, ip, workload.namespace);
  return bound?.waypoint !== undefined && isInstanceOf(tables, bound.waypoint, workload);
}

/** An address has its port; a service's port is mapped as for its clients: the endpoint's own mapping first. */
function portOf({ tables, workload }: InboundRequest, authority: Authority): number | undefined {
  if (authority.kind === 'address') return authority.address.port;
  const service = tables.serviceByHostname(authority.hostname, workload.namespace);
  if (service === undefined) return undefined;
  const own = workload.services.get(serviceKey(service)) ?? [];
  const mapping = [...own, ...service.ports].find(
    ({ servicePort, targetPort }) => servicePort === authority.port && targetPort > 0,
  );
  return mapping?.targetPort;
}

/** The service that the client names, if it is one of this workload's; else one that has the port. */
function serviceOf(
  { tables, workload }: Pick<Asked, 'tables' | 'workload'>,
  named: string | undefined,
  port: number,
): Service | undefined {
  const services = [...workload.services.keys()].flatMap((key) => tables.serviceByKey(key) ?? []);
  return (
    services.find(({ hostname }) => hostname.toLowerCase() === named) ??
    services.find((service) => hasTargetPort(service, workload, port))
  );
}

function hasTargetPort(service: Service, workload: Workload, port: number): boolean {
  const own = workload.services.get(serviceKey(service)) ?? [];
  return [...own, ...service.ports].some(({ targetPort }) => targetPort === port);
}

function loopbackLike(ip: Ip): Ip {
  return ip.includes(':') ? '::1' : '127.0.0.1';
}

function refused(status: '400' | '503', error: string): InboundTarget {
  return { kind: 'refused', status, error };
}

/** A peer's text, fit for a log. */
function quoted(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
