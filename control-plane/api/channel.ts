import { isIP } from 'node:net';
import { checkServerIdentity, createSecureContext } from 'node:tls';
import { Client, credentials } from '@grpc/grpc-js';

/** The address of a control plane is not one that can be dialled. */
export class ControlPlaneAddressError extends Error {
  override readonly name = 'ControlPlaneAddressError';
}

/** SNI where the control plane is dialled by IP address, which TLS does not allow as a name. */
const SERVER_NAME = 'istiod.istio-system.svc';
const LONGEST_MESSAGE_BYTES = 200 * 1024 * 1024;
const WINDOW_BYTES = 4 * 1024 * 1024;

/** Host (IPv6 without brackets) and port of a control plane. */
export interface ControlPlaneAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * A gRPC client of its own connection, over TLS 1.3, without a client certificate. The server has to prove the name or
 * address that is dialled, or `alternativeName`.
 * @throws Error for roots that cannot be read. Closed by the caller.
 */
export function openChannel(options: {
  readonly address: ControlPlaneAddress;
  readonly rootsPem: string;
  readonly alternativeName: string | undefined;
}): Client {
  const { host, port } = options.address;
  const secureContext = createSecureContext({
    ca: options.rootsPem,
    minVersion: 'TLSv1.3',
    ecdhCurve: 'X25519MLKEM768:X25519:P-256',
  });
  const names = options.alternativeName === undefined ? [host] : [host, options.alternativeName];
  const channelCredentials = credentials.createFromSecureContext(secureContext, {
    checkServerIdentity: (_host, certificate) => {
      const errors = names.map((name) => checkServerIdentity(name, certificate));
      return errors.includes(undefined) ? undefined : errors[0];
    },
  });
  const target = isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
  return new Client(`dns:${target}`, channelCredentials, {
    ...(isIP(host) !== 0 && { 'grpc.ssl_target_name_override': SERVER_NAME }),
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_http_proxy': 0,
    'grpc.enable_retries': 0,
    'grpc.enable_channelz': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.max_receive_message_length': LONGEST_MESSAGE_BYTES,
    'grpc.max_send_message_length': LONGEST_MESSAGE_BYTES,
    'grpc-node.flow_control_window': WINDOW_BYTES,
  });
}

/**
 * Parses `https://HOST:PORT`.
 * @throws ControlPlaneAddressError
 */
export function parseControlPlaneAddress(text: string): ControlPlaneAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'https:' || url.hostname === '') {
    throw new ControlPlaneAddressError(
      `not the address of a control plane: ${JSON.stringify(text)}; expected https://HOST:PORT`,
    );
  }
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port === '' ? 443 : Number(url.port) };
}
