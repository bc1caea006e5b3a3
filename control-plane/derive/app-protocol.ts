import type { AppProtocol } from '#api/service.ts';

const BY_NAME: ReadonlyMap<string, AppProtocol> = new Map([
  ['http', 'HTTP11'],
  ['http2', 'HTTP2'],
  ['grpc', 'GRPC'],
  ['tcp', 'TCP'],
  ['tls', 'TLS'],
  ['https', 'TLS'],
]);

const KUBERNETES_NAMES: ReadonlyMap<string, AppProtocol> = new Map([
  ['kubernetes.io/h2c', 'HTTP2'],
  ['kubernetes.io/ws', 'HTTP11'],
  ['kubernetes.io/wss', 'TLS'],
]);

/** Server-speaks-first protocols' ports (SMTP, DNS, MySQL, MongoDB): TCP when nothing names another protocol. */
const TCP_PORTS: ReadonlySet<number> = new Set([25, 53, 3306, 27017]);

/** Protocols that are known and have no value of their own here: never guessed to be TCP. */
const OTHER_NAMES: ReadonlySet<string> = new Set(['udp', 'mongo', 'redis', 'mysql', 'http_proxy', 'hbone']);

/** What a ServiceEntry's `protocol` says. */
export function protocolOfName(name: string): AppProtocol {
  return BY_NAME.get(name.toLowerCase()) ?? 'UNKNOWN';
}

/** What a Service's port says: by its appProtocol, else by the part of its name before the first `-`. */
export function protocolOfPort(port: {
  readonly port: number;
  readonly name: string;
  readonly protocol: string;
  readonly appProtocol?: string;
}): AppProtocol {
  if (port.protocol === 'UDP') return 'UNKNOWN';
  const standard = port.appProtocol === undefined ? undefined : KUBERNETES_NAMES.get(port.appProtocol);
  if (standard !== undefined) return standard;
  const name = (port.appProtocol ?? port.name).toLowerCase();
  if (name.startsWith('grpc-web')) return 'UNKNOWN';
  const prefix = name.split('-', 1)[0] ?? '';
  const known = BY_NAME.get(prefix);
  if (known !== undefined) return known;
  return TCP_PORTS.has(port.port) && !OTHER_NAMES.has(prefix) ? 'TCP' : 'UNKNOWN';
}
