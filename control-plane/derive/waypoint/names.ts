import type { Service } from '#api/service.ts';

/** What a Listener takes for granted of what is in the tunnel; `auto`: nothing. */
export type ListenerKind = 'http' | 'tcp' | 'tls' | 'auto';

/** `inbound-vip|8080|http|ledger.pay.svc.cluster.local`; with `|from|shop` for callers of that namespace only. */
export function listenerName(
  service: Service,
  port: number,
  kind: ListenerKind,
  consumerNamespace?: string,
): string {
  const from = consumerNamespace === undefined ? '' : `|from|${consumerNamespace}`;
  return `inbound-vip|${port}|${kind}|${uniqueHost(service)}${from}`;
}

/**
 * Of a Cluster and its endpoints: `inbound-vip|8080|ledger.pay.svc.cluster.local`; `inbound-vip|8080|http2|…` of the same port
 * where it is spoken to in HTTP/2 though it declares HTTP/1.1.
 */
export function clusterName(service: Service, port: number, overHttp2 = false): string {
  return `inbound-vip|${port}${overHttp2 ? '|http2' : ''}|${uniqueHost(service)}`;
}

/** Of a cluster that is not there, so that requests to it are answered 500. */
export function invalidClusterName(object: string, rule: number, index: number): string {
  return `invalid|${object}|${rule}|${index}`;
}

/** Of the Listener before a workload. */
export function podListenerName(ip: string): string {
  return `inbound-pod||auto|${ip}`;
}

/** Of the cluster of a workload alone, at whatever port it was asked for. */
export function podClusterName(ip: string): string {
  return `inbound-pod||${ip}`;
}

/** Several namespaces may have a service of the same host name; one of them is canonical. */
function uniqueHost({ canonical, hostname, namespace }: Service): string {
  return canonical ? hostname : `${hostname}/${namespace}`;
}
