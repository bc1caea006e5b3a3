import { X509Certificate } from 'node:crypto';
import pino from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { temporaryAuthority } from '#certs/testing.ts';
import type { ServerCertificate } from './serve/grpc-listener.ts';
import { issueServerCertificate, renewServerCertificate } from './server-certificate.ts';

const CERTIFICATE: ServerCertificate = { keyPem: 'key', chainPem: 'chain' };

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
afterEach(() => void vi.useRealTimers());

test('the certificate is for the names that clients look for, loopback and the address', async () => {
  await using temporary = await temporaryAuthority();
  const { chainPem } = await issueServerCertificate(temporary.authority, {
    ip: '10.240.0.2',
    rootNamespace: 'mesh',
  });
  const certificate = new X509Certificate(chainPem);
  const names = [
    'istiod.istio-system.svc',
    'istiod.mesh.svc',
    'tulle-control-plane',
    'tulle-control-plane.mesh.svc',
    'localhost',
  ];
  expect(names.filter((name) => certificate.checkHost(name) === undefined)).toEqual([]);
  expect(['10.240.0.2', '127.0.0.1', '::1'].filter((ip) => certificate.checkIP(ip) === undefined)).toEqual(
    [],
  );
  expect(certificate.subjectAltName).not.toContain('URI');
});

test('the certificate is renewed at half of its life, and again', async () => {
  const renewed: ServerCertificate[] = [];
  using _renewal = renew(async () => CERTIFICATE, renewed);
  await vi.advanceTimersByTimeAsync(999);
  expect(renewed).toEqual([]);
  await vi.advanceTimersByTimeAsync(1001);
  expect(renewed).toEqual([CERTIFICATE, CERTIFICATE]);
});

test('a renewal that fails is tried again after a minute', async () => {
  const renewed: ServerCertificate[] = [];
  let attempts = 0;
  using _renewal = renew(async () => {
    attempts += 1;
    if (attempts === 1) throw new Error('no entropy');
    return CERTIFICATE;
  }, renewed);
  await vi.advanceTimersByTimeAsync(1000);
  expect(renewed).toEqual([]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(renewed).toEqual([CERTIFICATE]);
});

function renew(issue: () => Promise<ServerCertificate>, renewed: ServerCertificate[]): Disposable {
  const logger = pino({ level: 'silent' });
  return renewServerCertificate({ issue, onRenewed: (one) => renewed.push(one), logger, everyMs: 1000 });
}
