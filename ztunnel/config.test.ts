import { expect, test } from 'vitest';
import { parseZtunnelConfig, ZtunnelConfigError } from './config.ts';

function faultsOf(argv: readonly string[], env: Record<string, string>): readonly string[] {
  try {
    parseZtunnelConfig(argv, env);
    return [];
  } catch (error) {
    if (!(error instanceof ZtunnelConfigError)) throw error;
    return error.message.split('\n');
  }
}

test('without settings it is a stock ztunnel’s configuration', () => {
  expect(parseZtunnelConfig([], {})).toMatchObject({
    node: '',
    network: '',
    clusterId: 'Kubernetes',
    clusterDomain: 'cluster.local',
    xds: {
      address: 'https://localhost:15012',
      roots: { kind: 'file', path: './var/run/secrets/istio/root-cert.pem' },
    },
    zdsSocket: '/var/run/ztunnel/ztunnel.sock',
    secretTtlMs: 86_400_000,
    originalSource: true,
    ipv6: true,
    dns: { enabled: true },
    drainMs: 5000,
    workers: 1,
    missingPolicy: 'deny',
    ports: { admin: 15000, stats: 15020, readiness: 15021 },
    hbone: { streamWindowBytes: 4_194_304, connectionWindowBytes: 16_777_216, frameBytes: 1_048_576 },
    logLevel: 'info',
  });
});

test('in a cluster the control plane is found by its service', () => {
  const config = parseZtunnelConfig([], { KUBERNETES_SERVICE_HOST: '10.96.0.1' });
  expect(config.ca.address).toBe('https://istiod.istio-system.svc:15012');
});

test('the state folder gives everything that is not set', () => {
  const config = parseZtunnelConfig(['--state', '/s', '--node', 'n1'], {});
  expect(config).toMatchObject({
    node: 'n1',
    proxy: { podName: 'ztunnel-n1', podNamespace: 'istio-system', serviceAccount: 'ztunnel' },
    xds: { address: 'https://10.240.0.2:15012', roots: { kind: 'file', path: '/s/ca/bundle.pem' } },
    token: { kind: 'file', path: '/s/tokens/n1' },
    zdsSocket: '/s/run/n1/zds.sock',
    adminSocket: '/s/run/n1/ztunnel.sock',
    accessLog: '/s/logs/n1/access.jsonl',
  });
});

test('the environment wins over the state folder, a flag over both', () => {
  const config = parseZtunnelConfig(['--state', '/s', '--node', 'n1', '--access-log', '/a'], {
    NODE_NAME: 'n9',
    INPOD_UDS: '/other.sock',
    XDS_ADDRESS: 'istiod.example:15012',
    AUTH_TOKEN: 'secret',
  });
  expect(config).toMatchObject({
    node: 'n1',
    zdsSocket: '/other.sock',
    xds: { address: 'https://istiod.example:15012' },
    token: { kind: 'literal', token: 'secret' },
    accessLog: '/a',
  });
});

test('flags of its own are read', () => {
  const argv = [
    ...['--egress-netns', '/proc/self/fd/3', '--fabric-cidrs', '10.244.0.0/16, fd00:10:244::/48'],
    ...['--name-servers', '10.0.0.53,[fd00::53]:5353,fd00::54,10.0.0.54:54'],
    ...['--missing-policy', 'allow', '--workers', '2', '--bpf-directory', '/sys/fs/bpf/tulle/m'],
  ];
  expect(parseZtunnelConfig(argv, {})).toMatchObject({
    bpfDirectory: '/sys/fs/bpf/tulle/m',
    egressNetns: '/proc/self/fd/3',
    fabricCidrs: ['10.244.0.0/16', 'fd00:10:244::/48'],
    dns: {
      nameServers: [
        { ip: '10.0.0.53', port: 53 },
        { ip: 'fd00::53', port: 5353 },
        { ip: 'fd00::54', port: 53 },
        { ip: '10.0.0.54', port: 54 },
      ],
    },
    missingPolicy: 'allow',
    workers: 2,
  });
});

test('the directory of eBPF maps may be in the environment, and there is no usual one', () => {
  expect(parseZtunnelConfig([], { TULLE_BPF_DIRECTORY: '/bpf/m' }).bpfDirectory).toBe('/bpf/m');
  expect(parseZtunnelConfig(['--state', '/s', '--node', 'n1'], {}).bpfDirectory).toBeUndefined();
});

test('headers and metadata come from prefixed variables', () => {
  const config = parseZtunnelConfig([], {
    XDS_HEADER_tenant: 'a',
    CA_HEADER_tenant: 'b',
    ISTIO_META_CLUSTER_ID: 'east',
  });
  expect(config.xds.headers).toEqual(new Map([['tenant', 'a']]));
  expect(config.ca.headers).toEqual(new Map([['tenant', 'b']]));
  expect(config.proxy.metadata).toEqual(new Map([['CLUSTER_ID', 'east']]));
  expect(config.clusterId).toBe('east');
});

test.each([
  { env: { TERMINATION_GRACE_PERIOD_SECONDS: '30' }, drainMs: 25_000 },
  { env: { TERMINATION_GRACE_PERIOD_SECONDS: '10' }, drainMs: 9000 },
  { env: { TERMINATION_GRACE_PERIOD_SECONDS: '1' }, drainMs: 1000 },
  {
    env: { TERMINATION_GRACE_PERIOD_SECONDS: '30', CONNECTION_TERMINATION_DEADLINE: '1m30s' },
    drainMs: 90_000,
  },
])('with $env connections may go on for $drainMs ms', ({ env, drainMs }) => {
  expect(parseZtunnelConfig([], env).drainMs).toBe(drainMs);
});

test.each([
  { value: 'SYSTEM', roots: { kind: 'system' } },
  { value: '-----BEGIN CERTIFICATE-----\n', roots: { kind: 'text', pem: '-----BEGIN CERTIFICATE-----\n' } },
  { value: '/ca.pem', roots: { kind: 'file', path: '/ca.pem' } },
])('roots $value are taken as $roots.kind', ({ value, roots }) => {
  expect(parseZtunnelConfig([], { XDS_ROOT_CA: value }).xds.roots).toEqual(roots);
});

test('all that is wrong is told at once, each with the name of its setting', () => {
  const faults = faultsOf(
    [
      '--missing-policy',
      'perhaps',
      '--fabric-cidrs',
      '10.0.0.0/33',
      '--name-servers',
      'dns.example',
      '--workers',
      '0',
    ],
    {
      XDS_ADDRESS: 'http://plain:15010',
      SECRET_TTL: 'soon',
      IPV6_ENABLED: 'maybe',
      HTTP2_FRAME_SIZE: '1',
      PROXY_MODE: 'dedicated',
      RUST_LOG: 'loud',
    },
  );
  expect(faults.map((fault) => fault.split(':')[0])).toEqual([
    'PROXY_MODE',
    'XDS_ADDRESS',
    'SECRET_TTL',
    'IPV6_ENABLED',
    '--name-servers',
    '--workers',
    'HTTP2_FRAME_SIZE',
    '--fabric-cidrs',
    '--missing-policy',
    'RUST_LOG',
  ]);
});

test.each([
  { argv: ['--no-such-flag'], told: '--no-such-flag' },
  { argv: ['--state', '/s'], told: '--state needs --node' },
  { argv: ['--bpf-directory', 'bpf/m'], told: '--bpf-directory: "bpf/m" is not an absolute path' },
])('flags $argv are refused', ({ argv, told }) => {
  expect(faultsOf(argv, {}).join()).toContain(told);
});

test('a stock setting without effect is noted, and one that cannot be met is refused', () => {
  expect(parseZtunnelConfig([], { COMPLIANCE_POLICY: 'pqc', PROXY_MODE: 'shared' }).ignored).toEqual([
    'COMPLIANCE_POLICY',
  ]);
  expect(faultsOf([], { CRL_PATH: '/crl.pem' })).toEqual(['CRL_PATH: "/crl.pem" is not supported; unset it']);
});
