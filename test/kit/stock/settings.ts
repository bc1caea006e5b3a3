import { existsSync, readFileSync } from 'node:fs';

/** The settings of a stock ztunnel, from the environment names that it reads (fact sheet ambient-wire.md 2.3). */
export interface Settings {
  readonly xdsAddress: string;
  readonly caAddress: string;
  /** Files are read anew: roots for each connection, the token for each request. */
  readonly xdsRoots: () => string;
  readonly caRoots: () => string;
  readonly token: () => string;
  readonly nodeName: string;
  readonly clusterId: string;
  readonly zdsPath: string;
  readonly instanceIp: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly secretTtlSeconds: number;
}

/** @throws Error naming what a ztunnel in shared mode cannot do without */
export function readSettings(environment: Readonly<Record<string, string | undefined>>): Settings {
  const get = (name: string): string => {
    const value = environment[name];
    if (value === undefined || value === '') throw new Error(`${name} is not set`);
    return value;
  };
  if (environment['PROXY_MODE'] !== 'shared') throw new Error('PROXY_MODE has to be "shared"');
  const fileOf = (name: string): (() => string) => {
    const value = get(name);
    return () => textOrFile(value);
  };
  return {
    xdsAddress: httpsAddress(get('XDS_ADDRESS')),
    caAddress: httpsAddress(get('CA_ADDRESS')),
    xdsRoots: fileOf('XDS_ROOT_CA'),
    caRoots: fileOf('CA_ROOT_CA'),
    token: fileOf('AUTH_TOKEN'),
    nodeName: get('NODE_NAME'),
    clusterId: environment['CLUSTER_ID'] ?? 'Kubernetes',
    zdsPath: get('INPOD_UDS'),
    instanceIp: get('INSTANCE_IP'),
    podName: get('POD_NAME'),
    podNamespace: get('POD_NAMESPACE'),
    secretTtlSeconds: parseSeconds(get('SECRET_TTL')),
  };
}

/** What xDS and the CA are sent to say who calls; without a token nothing says so. */
export function callMetadata(settings: Settings, token: string): Readonly<Record<string, string>> {
  return { ...(token !== '' && { authorization: `Bearer ${token}` }), clusterid: settings.clusterId };
}

function httpsAddress(address: string): string {
  if (!address.startsWith('https://')) throw new Error(`${address}: only https is spoken`);
  return address;
}

function textOrFile(value: string): string {
  return existsSync(value) ? readFileSync(value, 'utf8') : value;
}

/** One number and one unit. */
function parseSeconds(text: string): number {
  const [, amount = '', unit = ''] = /^(\d+)([smhd])$/.exec(text) ?? [];
  const seconds = new Map([
    ['s', 1],
    ['m', 60],
    ['h', 3600],
    ['d', 86_400],
  ]).get(unit);
  if (seconds === undefined) throw new Error(`SECRET_TTL ${text} is no duration`);
  return Number(amount) * seconds;
}
