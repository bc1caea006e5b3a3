/** Least severe messages that are logged. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** A setting: as a flag, and where the environment may say it too. */
export interface SettingFlag {
  /** Without dashes. */
  readonly flag: string;
  readonly argument: string;
  readonly variable?: string;
  readonly usual?: string;
  readonly description: string;
}

/** All of them, for `--help` and docs/operations.md. */
export const SETTING_FLAGS: readonly SettingFlag[] = [
  {
    flag: 'state',
    argument: 'DIR',
    description: "folder of a mesh on one machine: gives what is not set here, and the mesh's own ports",
  },
  {
    flag: 'namespace',
    argument: 'NS',
    variable: 'POD_NAMESPACE',
    description: "the Gateway's namespace",
  },
  { flag: 'name', argument: 'NAME', variable: 'GATEWAY_NAME', description: "the Gateway's name" },
  {
    flag: 'service-account',
    argument: 'NAME',
    variable: 'SERVICE_ACCOUNT',
    usual: "the Gateway's name",
    description: 'service account: with the namespace it is the identity',
  },
  { flag: 'instance', argument: 'N', usual: '0', description: 'which of the replicas, for names of files' },
  {
    flag: 'control-plane',
    argument: 'URL',
    variable: 'XDS_ADDRESS',
    description: 'https address of the control plane: configuration and certificates',
  },
  {
    flag: 'control-plane-name',
    argument: 'NAME',
    variable: 'ALT_XDS_HOSTNAME',
    description: "another name that the control plane's certificate may have",
  },
  {
    flag: 'roots-file',
    argument: 'FILE',
    variable: 'XDS_ROOT_CA',
    description: 'roots with which the control plane is verified, PEM; SYSTEM: those of this machine',
  },
  {
    flag: 'token-file',
    argument: 'FILE',
    variable: 'AUTH_TOKEN',
    description: "the waypoint's credential, read again for each request",
  },
  {
    flag: 'trust-domain',
    argument: 'NAME',
    variable: 'TRUST_DOMAIN',
    usual: "the roots'",
    description: 'trust domain of its own identity, and of all that may call',
  },
  { flag: 'cluster-id', argument: 'ID', variable: 'CLUSTER_ID', usual: 'Kubernetes', description: 'cluster' },
  {
    flag: 'listen',
    argument: 'IP:PORT',
    usual: '[::]:15008',
    description: 'where callers come in: HBONE',
  },
  {
    flag: 'admin-port',
    argument: 'PORT',
    usual: '15000',
    description: 'what is in force, on loopback; 0: any',
  },
  { flag: 'metrics-port', argument: 'PORT', usual: '15020', description: 'metrics; 0: any' },
  { flag: 'readiness-port', argument: 'PORT', usual: '15021', description: 'readiness; 0: any' },
  {
    flag: 'access-log',
    argument: 'FILE',
    usual: 'standard output; logs/waypoints/NS_NAME/access.jsonl in the state folder',
    description: 'a line of JSON for each request and TCP connection',
  },
  {
    flag: 'admin-socket',
    argument: 'PATH',
    usual: 'none; run/waypoints/NS_NAME-N.sock in the state folder',
    description: 'socket on which the supervisor asks for readiness and splits',
  },
  {
    flag: 'predecessor',
    argument: 'PATH',
    usual: 'none',
    description:
      "the admin socket of the process that this one replaces: it shares that one's listening socket",
  },
  {
    flag: 'secret-ttl',
    argument: 'DURATION',
    variable: 'SECRET_TTL',
    usual: '24h',
    description: 'life of certificates that are asked for',
  },
  {
    flag: 'memory-budget',
    argument: 'SIZE',
    variable: 'MEMORY_BUDGET',
    usual: '256Mi',
    description: 'memory in which something may wait for callers; beyond it, who holds most is shed',
  },
  {
    flag: 'drain',
    argument: 'DURATION',
    variable: 'DRAIN_DURATION',
    usual: '25s',
    description: 'how long requests and connections may go on after SIGTERM',
  },
  {
    flag: 'log-level',
    argument: 'LEVEL',
    variable: 'LOG_LEVEL',
    usual: 'info',
    description: LOG_LEVELS.join(', '),
  },
];
