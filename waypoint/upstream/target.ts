import { formatHostPort, type HostPort } from '#api/address.ts';
import { formatIdentity, type Identity } from '#certs/identity.ts';
import type { Caller, RequestHead } from '../exchange.ts';
import type { BackendTls, Cluster, Endpoint } from '../model.ts';

/** Where a request goes, for whom. */
export interface UpstreamTarget {
  readonly caller: Caller;
  readonly endpoint: Endpoint;
  /** Of the application: the endpoint's, with its port filled in. */
  readonly address: HostPort;
  readonly cluster: Pick<Cluster, 'connectTimeoutMs' | 'tls' | 'service'>;
}

/** An endpoint's address; one without a port has that of the CONNECT. */
export function addressOf(endpoint: Endpoint, authority: HostPort): HostPort {
  return endpoint.address.port === 0 ? { ip: endpoint.address.ip, port: authority.port } : endpoint.address;
}

/** What is spoken to an application. Upgrades are of HTTP/1.1. */
export function protocolOf(
  { protocol }: Pick<Cluster, 'protocol'>,
  request: { readonly upgrade?: string },
  downstream: Pick<RequestHead, 'protocol'>,
): 'http1' | 'http2' {
  if (request.upgrade !== undefined) return 'http1';
  if (protocol !== 'as-downstream') return protocol;
  return downstream.protocol === 'HTTP/2' ? 'http2' : 'http1';
}

/**
 * Which connections a request may use: those of the same caller to the same application, proven in the same way. The caller is
 * its identity and its address, as the far end tells callers apart by both.
 */
export function keyOf({ caller, endpoint, address, cluster }: UpstreamTarget): string {
  const tls = cluster.tls === undefined ? '' : keyOfTls(cluster.tls);
  return `${textOf(caller.identity)} ${caller.address.ip} ${formatHostPort(address)} ${keyOfEndpoint(endpoint)} ${tls}`;
}

/** An endpoint by what it is reached with: another version of the same endpoint has the same key. */
export function keyOfEndpoint(endpoint: Endpoint): string {
  let key = endpointKeys.get(endpoint);
  if (key === undefined) {
    const identity = endpoint.identity === undefined ? '-' : textOf(endpoint.identity);
    key = `${formatHostPort(endpoint.address)} ${endpoint.tunnel} ${identity} ${endpoint.workload.uid}`;
    endpointKeys.set(endpoint, key);
  }
  return key;
}

/** `spiffe://…`; identities live as long as the tunnels that they came with. */
export function textOf(identity: Identity): string {
  let text = identityTexts.get(identity);
  if (text === undefined) {
    text = formatIdentity(identity);
    identityTexts.set(identity, text);
  }
  return text;
}

function keyOfTls(tls: BackendTls): string {
  let key = tlsKeys.get(tls);
  if (key === undefined) {
    key = JSON.stringify([tls.serverName, tls.subjectAltNames, tls.roots]);
    tlsKeys.set(tls, key);
  }
  return key;
}

const endpointKeys = new WeakMap<Endpoint, string>();
const identityTexts = new WeakMap<Identity, string>();
const tlsKeys = new WeakMap<BackendTls, string>();
