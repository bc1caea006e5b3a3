import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { envoyBinary } from '#test/kit/envoy.ts';
import type { Bed, BenchPod } from './bed.ts';
import { BULK_PORT, HTTP_PORT } from './rows.ts';

/** A pair of pods with something in between, ready to be measured. */
export interface Path {
  readonly name: PathName;
  readonly client: BenchPod;
  readonly server: BenchPod;
  /** Processes that carry the bytes: their CPU and memory are reported. */
  readonly proxies: readonly number[];
}

/** What can stand between a client and a server. */
export type PathName = 'direct' | 'nginx' | 'envoy' | 'tulle';
export const PATH_NAMES: readonly PathName[] = ['direct', 'nginx', 'envoy', 'tulle'];

/** Credentials that the peers' proxies use: one CA, one certificate a side. PEM files. */
export interface Credentials {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/** nginx has no HTTP/2 CONNECT: a TLS port for each application port. */
const TUNNEL_PORTS = { [HTTP_PORT]: 15008, [BULK_PORT]: 15009 } as const;
const CAPTURE_PORTS = { [HTTP_PORT]: 15001, [BULK_PORT]: 15002 } as const;

/** Starts server, proxies and redirection of one path between two nodes, or on one. */
export async function openPath(
  bed: Bed,
  name: PathName,
  nodes: readonly [string, string],
  credentials: Credentials,
): Promise<Path> {
  const suffix = nodes[0] === nodes[1] ? 'one' : 'two';
  const client = await bed.pod(`${name}-${suffix}-c`, nodes[0], name === 'tulle');
  const server = await bed.pod(`${name}-${suffix}-s`, nodes[1], name === 'tulle');
  startServer(bed, server);
  const proxies = await startProxies(bed, name, client, server, credentials);
  await until(bed, client, [
    'curl',
    '-sf',
    '-m',
    '2',
    '-o',
    '/dev/null',
    `http://${server.ip}:${HTTP_PORT}/`,
  ]);
  const pids = name === 'tulle' ? await bed.ztunnelPids() : proxies.map((child) => child.pid ?? 0);
  return { name, client, server, proxies: pids };
}

function startServer(bed: Bed, pod: BenchPod): void {
  const conf = file(bed, `${pod.name}-server.conf`, SERVER_CONF(bed.directory, pod.name));
  bed.start(pod, `${pod.name}-server`, ['nginx', '-e', '/dev/null', '-c', conf]);
  bed.start(pod, `${pod.name}-iperf`, ['iperf3', '-s', '-p', `${BULK_PORT}`]);
}

async function startProxies(
  bed: Bed,
  name: PathName,
  client: BenchPod,
  server: BenchPod,
  credentials: Credentials,
): Promise<readonly ChildProcess[]> {
  switch (name) {
    case 'direct':
    case 'tulle':
      return [];
    case 'nginx': {
      const out = file(bed, `${client.name}.conf`, nginxClient(bed.directory, client, server, credentials));
      const inn = file(bed, `${server.name}.conf`, nginxServer(bed.directory, server, credentials));
      await redirect(bed, client, server);
      const start = (pod: BenchPod, conf: string): ChildProcess =>
        bed.start(pod, `${pod.name}-nginx`, ['nginx', '-e', '/dev/null', '-c', conf]);
      return [start(client, out), start(server, inn)];
    }
    case 'envoy': {
      const binary = await envoyBinary();
      const out = file(
        bed,
        `${client.name}.json`,
        JSON.stringify(envoyClient(bed.directory, server, credentials)),
      );
      const inn = file(
        bed,
        `${server.name}.json`,
        JSON.stringify(envoyServer(bed.directory, server, credentials)),
      );
      await redirect(bed, client, server);
      const start = (pod: BenchPod, conf: string, id: string): ChildProcess =>
        bed.start(pod, `${pod.name}-envoy`, [
          binary,
          '-c',
          conf,
          '--base-id',
          id,
          '--concurrency',
          '1',
          '-l',
          'warn',
        ]);
      const base = client.node === server.node ? 710 : 700;
      return [start(client, out, `${base}`), start(server, inn, `${base + 1}`)];
    }
  }
}

/** The client pod's connections to the server go to the proxy beside it, by packet rules in the pod, as the mesh's do. */
async function redirect(bed: Bed, client: BenchPod, server: BenchPod): Promise<void> {
  const rules = Object.entries(CAPTURE_PORTS).map(
    ([port, to]) => `ip daddr ${server.ip} tcp dport ${port} redirect to :${to}\n`,
  );
  const text = `table ip bench {\n chain output {\n type nat hook output priority -105; policy accept;\n ${rules.join(' ')} }\n}\n`;
  await bed.run(client, ['nft', '-f', file(bed, `${client.name}.nft`, text)], 10_000);
}

async function until(bed: Bed, pod: BenchPod, command: readonly string[]): Promise<void> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      await bed.run(pod, command, 10_000);
      return;
    } catch (cause) {
      if (Date.now() > deadline) throw new Error(`${pod.name} never got an answer:\n${logs(bed)}`, { cause });
      await delay(200);
    }
  }
}

/** What the processes of the bench have said, for an error. */
function logs(bed: Bed): string {
  return readdirSync(bed.directory)
    .filter((name) => name.endsWith('.log'))
    .map((name) => `${name}:\n${readFileSync(join(bed.directory, name), 'utf8').slice(-2000)}`)
    .join('\n');
}

function file(bed: Bed, name: string, text: string): string {
  const path = join(bed.directory, name);
  writeFileSync(path, text);
  return path;
}

export const SERVER_CONF = (
  directory: string,
  name: string,
): string => `daemon off; worker_processes 1; pid ${directory}/${name}.pid; error_log /dev/null;
events { worker_connections 8192; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  server { listen ${HTTP_PORT} backlog=4096; listen [::]:${HTTP_PORT} backlog=4096; location / { return 200 '${'x'.repeat(84)}'; } } }
`;

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';

function nginxClient(directory: string, client: BenchPod, server: BenchPod, c: Credentials): string {
  const servers = ([HTTP_PORT, BULK_PORT] as const).map(
    (
      port,
    ) => `server { listen ${CAPTURE_PORTS[port]} backlog=4096; proxy_pass ${server.ip}:${TUNNEL_PORTS[port]}; proxy_ssl on; proxy_ssl_protocols TLSv1.3;
    proxy_ssl_certificate ${c.certificate}; proxy_ssl_certificate_key ${c.key}; proxy_ssl_trusted_certificate ${c.ca}; proxy_ssl_verify on; proxy_ssl_name bench; }`,
  );
  return nginxStream(directory, client, servers);
}

function nginxServer(directory: string, server: BenchPod, c: Credentials): string {
  const servers = ([HTTP_PORT, BULK_PORT] as const).map(
    (
      port,
    ) => `server { listen ${TUNNEL_PORTS[port]} ssl backlog=4096; ssl_protocols TLSv1.3; ssl_certificate ${c.certificate}; ssl_certificate_key ${c.key};
    ssl_client_certificate ${c.ca}; ssl_verify_client on; ssl_session_tickets off; proxy_pass ${server.ip}:${port}; }`,
  );
  return nginxStream(directory, server, servers);
}

function nginxStream(directory: string, pod: BenchPod, servers: readonly string[]): string {
  return `load_module ${STREAM_MODULE};
daemon off; master_process off; worker_processes 1; pid ${directory}/${pod.name}-proxy.pid; error_log /dev/null;
events { worker_connections 16384; }
stream { log_format l '$remote_addr $protocol $status $bytes_sent $bytes_received $session_time'; access_log ${directory}/${pod.name}-access.log l buffer=32k flush=1s;
  tcp_nodelay on; proxy_buffer_size 64k; ${servers.join('\n')} }
`;
}

function envoyClient(directory: string, server: BenchPod, c: Credentials): unknown {
  return envoy(
    ([HTTP_PORT, BULK_PORT] as const).map((port) =>
      listener(CAPTURE_PORTS[port], {
        name: 'envoy.filters.network.tcp_proxy',
        typed_config: {
          '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
          stat_prefix: 'out',
          cluster: 'tunnel',
          tunneling_config: { hostname: `${server.ip}:${port}` },
          access_log: accessLog(`${directory}/envoy-out.log`),
        },
      }),
    ),
    [
      {
        ...cluster('tunnel', server.ip, 15008),
        typed_extension_protocol_options: {
          'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
            '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
            explicit_http_config: {
              http2_protocol_options: {
                initial_stream_window_size: 4194304,
                initial_connection_window_size: 16777216,
              },
            },
          },
        },
        transport_socket: {
          name: 'tls',
          typed_config: {
            '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
            common_tls_context: tls(c),
          },
        },
      },
    ],
  );
}

function envoyServer(directory: string, server: BenchPod, c: Credentials): unknown {
  const ports = [HTTP_PORT, BULK_PORT] as const;
  const connection = {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type':
        'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
      stat_prefix: 'in',
      access_log: accessLog(`${directory}/envoy-in.log`),
      upgrade_configs: [{ upgrade_type: 'CONNECT' }],
      http2_protocol_options: {
        allow_connect: true,
        initial_stream_window_size: 4194304,
        initial_connection_window_size: 16777216,
      },
      stream_idle_timeout: '0s',
      route_config: {
        virtual_hosts: ports.map((port) => ({
          name: `p${port}`,
          domains: [`${server.ip}:${port}`],
          routes: [
            {
              match: { connect_matcher: {} },
              route: {
                cluster: `app${port}`,
                timeout: '0s',
                upgrade_configs: [{ upgrade_type: 'CONNECT', connect_config: {} }],
              },
            },
          ],
        })),
      },
      http_filters: [
        {
          name: 'router',
          typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' },
        },
      ],
    },
  };
  const inbound = listener(15008, connection, {
    name: 'tls',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
      require_client_certificate: true,
      common_tls_context: tls(c),
    },
  });
  return envoy(
    [inbound],
    ports.map((port) => cluster(`app${port}`, server.ip, port)),
  );
}

function envoy(listeners: readonly unknown[], clusters: readonly unknown[]): unknown {
  return { static_resources: { listeners, clusters } };
}

function listener(port: number, filter: unknown, transportSocket?: unknown): unknown {
  const chain = {
    filters: [filter],
    ...(transportSocket === undefined ? {} : { transport_socket: transportSocket }),
  };
  return { address: socketAddress('0.0.0.0', port), tcp_backlog_size: 4096, filter_chains: [chain] };
}

function cluster(name: string, ip: string, port: number): object {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    circuit_breakers: {
      thresholds: [{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }],
    },
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: socketAddress(ip, port) } }] }],
    },
  };
}

function socketAddress(address: string, port: number): unknown {
  return { socket_address: { address, port_value: port } };
}

function tls(c: Credentials): unknown {
  return {
    alpn_protocols: ['h2'],
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    tls_certificates: [{ certificate_chain: { filename: c.certificate }, private_key: { filename: c.key } }],
    validation_context: { trusted_ca: { filename: c.ca } },
  };
}

/** The usual line, and what TLS had to say. */
const ENVOY_LOG =
  '[%START_TIME%] %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %UPSTREAM_HOST% %UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n';

function accessLog(path: string): unknown {
  return [
    {
      name: 'file',
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog',
        path,
        log_format: { text_format_source: { inline_string: ENVOY_LOG } },
      },
    },
  ];
}
