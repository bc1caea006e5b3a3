import { expect, test } from 'vitest';
import { makeSigningFiles } from '#certs/make-authority.ts';
import type { Rotation } from '#certs/rotation.ts';
import { authorityReport } from './authority-report.ts';

const NOW = Date.parse('2026-01-02T03:04:05Z');

test('a mesh at rest has one authority, with its root', async () => {
  const signing = await makeSigningFiles('cluster.local', NOW);
  const report = authorityReport({ ...SOURCES, signing, bundlePem: signing.rootPem });
  expect(report.authorities).toEqual([
    {
      role: 'issuing',
      phase: 'signing',
      subject: expect.stringMatching(/^O=Tulle, CN=cluster.local issuing [0-9a-f]{8}$/),
      serial: expect.stringMatching(/^[0-9a-f]{32}$/),
      notBefore: '2026-01-02T03:02:05.000Z',
      notAfter: '2035-12-31T03:04:05.000Z',
      keyType: 'ECDSA P-256',
    },
    expect.objectContaining({ role: 'root', phase: 'signing' }),
  ]);
  expect(report.trusted).toEqual([report.authorities[1]?.serial]);
  expect(report.rotation).toBeNull();
});

test('while a root is distributed, the next authority is shown, and who is waited for', async () => {
  const signing = await makeSigningFiles('cluster.local', NOW);
  const next = await makeSigningFiles('cluster.local', NOW);
  const rotation: Rotation = { kind: 'distributing', startedMs: NOW, next };
  const report = authorityReport({
    ...SOURCES,
    signing,
    bundlePem: signing.rootPem + next.rootPem,
    rotation,
    clients: [
      { name: 'node/n1', kind: 'acknowledged' },
      { name: 'node/n2', kind: 'holds-older', identities: ['spiffe://cluster.local/ns/a/sa/b'] },
    ],
  });
  expect(report.authorities.map(({ role, phase }) => `${phase} ${role}`)).toEqual([
    'signing issuing',
    'signing root',
    'next issuing',
    'next root',
  ]);
  expect(report.trusted).toHaveLength(2);
  expect(report.rotation).toEqual({
    phase: 'distributing',
    started: '2026-01-02T03:04:05.000Z',
    until: null,
    clients: [
      { name: 'node/n1', done: true, state: 'acknowledged', waitsFor: [] },
      {
        name: 'node/n2',
        done: false,
        state: 'holds-older',
        waitsFor: ['spiffe://cluster.local/ns/a/sa/b'],
      },
    ],
  });
});

test('certificates are listed with their serial numbers until they end', async () => {
  const signing = await makeSigningFiles('cluster.local', NOW);
  const times = { issuedMs: NOW, notBeforeMs: NOW };
  const identity = 'spiffe://cluster.local/ns/shop/sa/web';
  const issued = [
    { serial: '4a0b', identity, node: 'n1', ...times, notAfterMs: NOW + 1000 },
    { serial: '4a0c', identity, node: 'n2', ...times, notAfterMs: NOW },
  ];
  const { certificates } = authorityReport({ ...SOURCES, signing, bundlePem: signing.rootPem, issued });
  expect(certificates).toEqual([
    { identity, holder: 'n1', serial: '4a0b', notAfter: '2026-01-02T03:04:06.000Z' },
  ]);
});

const SOURCES = {
  trustDomain: 'cluster.local',
  rotation: { kind: 'none' },
  clients: [],
  revocations: [],
  issued: [],
  nowMs: NOW,
} as const;
