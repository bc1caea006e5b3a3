import { networkInterfaces } from 'node:os';
import type { Logger } from 'pino';
import type { Ip } from '#api/address.ts';
import type { Authority } from '#certs/authority.ts';
import type { ServerCertificate } from './serve/grpc-listener.ts';

const TTL_MS = 24 * 3_600_000;
const RETRY_MS = 60_000;

/** Names under which stock and own clients look for a control plane. */
function serverNames(rootNamespace: string): readonly string[] {
  const names = [`istiod.${rootNamespace}.svc`, `tulle-control-plane.${rootNamespace}.svc`];
  return [...new Set(['istiod.istio-system.svc', ...names, 'tulle-control-plane', 'localhost'])];
}

/** Issues the control plane's own certificate, for its names, loopback and the address that it listens on. */
export async function issueServerCertificate(
  authority: Authority,
  options: { readonly ip: Ip; readonly rootNamespace: string },
): Promise<ServerCertificate> {
  const isAny = options.ip === '0.0.0.0' || options.ip === '::';
  const ips = new Set(['127.0.0.1', '::1', ...(isAny ? ownAddresses() : [options.ip])]);
  const dnsNames = serverNames(options.rootNamespace);
  const { keyPem, chainPem } = await authority.issueServer({ dnsNames, ips: [...ips], ttlMs: TTL_MS });
  return { keyPem, chainPem: chainPem.join('') };
}

/** Ends when it is disposed of. */
export interface ServerCertificateRenewal extends Disposable {
  /** Does not wait for the time: another authority signs. */
  readonly renewNow: () => void;
}

/** Renews the certificate at half of its life, and soon again when that fails, until disposed of. */
export function renewServerCertificate(options: {
  readonly issue: () => Promise<ServerCertificate>;
  readonly onRenewed: (certificate: ServerCertificate) => void;
  readonly logger: Logger;
  /** Default: half of the certificate's life. */
  readonly everyMs?: number;
}): ServerCertificateRenewal {
  const { issue, onRenewed, logger, everyMs = TTL_MS / 2 } = options;
  let timer: NodeJS.Timeout | undefined;
  let isOver = false;
  const renew = async (): Promise<void> => {
    try {
      onRenewed(await issue());
      logger.info('server certificate renewed');
      schedule(everyMs);
    } catch (error) {
      logger.error({ err: error }, 'server certificate not renewed');
      schedule(RETRY_MS);
    }
  };
  const schedule = (delayMs: number): void => {
    clearTimeout(timer);
    if (!isOver) timer = setTimeout(() => void renew(), delayMs);
  };
  schedule(everyMs);
  return {
    renewNow: () => {
      clearTimeout(timer);
      void renew();
    },
    [Symbol.dispose]: () => {
      isOver = true;
      clearTimeout(timer);
    },
  };
}

function ownAddresses(): readonly Ip[] {
  return Object.values(networkInterfaces()).flatMap((addresses) =>
    (addresses ?? []).filter(({ scopeid }) => !scopeid).map(({ address }) => address),
  );
}
