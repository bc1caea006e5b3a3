import { X509Certificate } from 'node:crypto';
import { formatIdentity } from '#certs/identity.ts';
import { splitPem } from '#certs/pem.ts';
import type { CertificateState } from '#certs/svid-manager.ts';
import type { ZtunnelConfig } from './config.ts';
import type { ConnectionInfo } from './connection-record.ts';
import { dumpPolicy, dumpService, dumpWorkload } from './dump-resources.ts';
import type { Tables } from './tables/tables.ts';
import type { PodInfo } from './worker-messages.ts';

/** What `/config_dump` is made of. */
export interface DumpedState {
  readonly config: ZtunnelConfig;
  readonly version: string;
  readonly tables: Tables;
  readonly certificates: readonly CertificateState[];
  readonly pods: readonly { readonly pod: PodInfo; readonly state: 'Up' | 'Pending' | 'Draining' }[];
  readonly connections: readonly ConnectionInfo[];
  /** Local workloads with the policies that they name and nobody has sent. */
  readonly missingPolicies: readonly { readonly workload: string; readonly policies: readonly string[] }[];
}

/** The shape of a stock ztunnel's `/config_dump`, and `missingPolicies`. Without private keys and tokens. */
export function dumpConfig(state: DumpedState): object {
  const { tables } = state;
  return {
    certificates: state.certificates.map(dumpCertificate),
    config: dumpSettings(state.config),
    missingPolicies: state.missingPolicies,
    policies: [...tables.policies()].map(dumpPolicy),
    services: [...tables.services()].map((service) => dumpService(tables, service)),
    stagedServices: {},
    staticConfig: { policies: [], services: [], workloads: [] },
    version: { version: state.version, istioVersion: 'unknown', component: 'tulle' },
    workloadState: Object.fromEntries(
      state.pods.map((pod) => [pod.pod.uid, dumpPod(pod, state.connections)]),
    ),
    workloads: [...tables.workloads()].map(dumpWorkload),
  };
}

function dumpCertificate({ identity, state, svid }: CertificateState): object {
  return {
    identity: formatIdentity(identity),
    state,
    certChain: splitPem(svid?.certificateChainPem ?? '').map(dumpX509),
    rootCerts: splitPem(svid?.rootsPem ?? '').map(dumpX509),
  };
}

function dumpX509(pem: string): object {
  const certificate = new X509Certificate(pem);
  return {
    pem: Buffer.from(pem).toString('base64'),
    serialNumber: BigInt(`0x${certificate.serialNumber}`).toString(),
    validFrom: rfc3339(certificate.validFromDate),
    expirationTime: rfc3339(certificate.validToDate),
  };
}

function rfc3339(time: Date): string {
  return time.toISOString().replace(/\.\d+Z$/, 'Z');
}

function dumpPod(
  { pod, state }: DumpedState['pods'][number],
  connections: readonly ConnectionInfo[],
): object {
  const own = connections.filter(({ podUid }) => podUid === pod.uid);
  const near = connections.filter(({ destinationPodUid }) => destinationPodUid === pod.uid);
  const inDirection = (direction: ConnectionInfo['direction']): readonly object[] =>
    own.filter((connection) => connection.direction === direction).map(dumpConnection);
  return {
    state,
    connections: {
      inbound: [...inDirection('inbound'), ...near.map(dumpConnection)],
      outbound: inDirection('outbound'),
    },
    info: { name: pod.name, namespace: pod.namespace, serviceAccount: pod.serviceAccount },
  };
}

function dumpConnection({ source, destination, protocol, identity }: ConnectionInfo): object {
  return { src: source, originalDst: destination, protocol, srcIdentity: identity };
}

/** Settings under the names that a stock ztunnel has for them; others under ours. */
function dumpSettings(config: ZtunnelConfig): object {
  const { hbone, proxy, ports } = config;
  return {
    adminAddr: `127.0.0.1:${ports.admin}`,
    statsAddr: `[::]:${ports.stats}`,
    readinessAddr: `[::]:${ports.readiness}`,
    localNode: config.node,
    network: config.network,
    clusterId: config.clusterId,
    clusterDomain: config.clusterDomain,
    xdsAddress: config.xds.address,
    xdsRootCert: dumpSource(config.xds.roots),
    altXdsHostname: config.xds.alternativeName ?? null,
    caAddress: config.ca.address,
    caRootCert: dumpSource(config.ca.roots),
    altCaHostname: config.ca.alternativeName ?? null,
    dnsProxy: config.dns.enabled,
    nameServers: config.dns.nameServers ?? null,
    preferedServiceNamespace: config.dns.preferredNamespace ?? null,
    inpodUds: config.zdsSocket,
    ipv6Enabled: config.ipv6,
    windowSize: hbone.streamWindowBytes,
    connectionWindowSize: hbone.connectionWindowBytes,
    frameSize: hbone.frameBytes,
    poolMaxStreamsPerConn: hbone.maxStreamsPerConnection,
    poolUnusedReleaseTimeout: duration(hbone.poolIdleMs),
    numWorkerThreads: config.workers,
    proxyMode: 'Shared',
    requireOriginalSource: config.originalSource,
    secretTtl: duration(config.secretTtlMs),
    selfTerminationDeadline: duration(config.drainMs),
    ztunnelWorkload: {
      name: proxy.podName,
      namespace: proxy.podNamespace,
      serviceAccount: proxy.serviceAccount,
    },
    accessLog: config.accessLog ?? null,
    adminSocket: config.adminSocket ?? null,
    egressNetns: config.egressNetns ?? null,
    fabricCidrs: config.fabricCidrs,
    missingPolicy: config.missingPolicy,
  };
}

function dumpSource(source: ZtunnelConfig['xds']['roots']): object {
  switch (source.kind) {
    case 'file':
      return { File: source.path };
    case 'text':
      return { Static: source.pem };
    case 'system':
      return { Default: null };
  }
}

function duration(ms: number): object {
  return { secs: Math.floor(ms / 1000), nanos: (ms % 1000) * 1_000_000 };
}
