import type { JsonValue } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { deriveText, objectYaml } from '#test/kit/objects.ts';
import { jsonAt, PAY, resourceJson, waypointOf } from './testing.ts';

const CLUSTER = 'inbound-vip|80|ledger.pay.svc.cluster.local';
const PEM = '-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----';
const ROOTS = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: roots, namespace: pay}\ndata: {ca.crt: ${JSON.stringify(PEM)}}\n---\n`;
const TARGET = '{group: "", kind: Service, name: ledger}';

function policy(name: string, hostname: string, more = '', target = TARGET, fields = ''): string {
  const refs = more === '' ? 'caCertificateRefs: [{group: "", kind: ConfigMap, name: roots}]' : more;
  const spec = `{targetRefs: [${target}], validation: {${refs}, hostname: ${hostname}}}`;
  return objectYaml('BackendTLSPolicy', `pay/${name}`, spec, fields).replace(
    /^apiVersion: .*$/m,
    'apiVersion: gateway.networking.k8s.io/v1',
  );
}

const tlsOf = (text: string): JsonValue | undefined =>
  jsonAt(
    resourceJson(waypointOf(deriveText(PAY + ROOTS + text)), 'cluster', CLUSTER),
    'transportSocket',
    'typedConfig',
  );

test('a backend is spoken to in TLS, and has to be who the policy says', () => {
  expect(tlsOf('')).toBeUndefined();
  expect(tlsOf(policy('p', 'ledger.example'))).toEqual({
    '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
    sni: 'ledger.example',
    commonTlsContext: {
      validationContext: {
        trustedCa: { inlineString: `${PEM}\n` },
        matchTypedSubjectAltNames: [{ sanType: 'DNS', matcher: { exact: 'ledger.example' } }],
      },
    },
  });
});

test('names that are written take the place of the host name', () => {
  const names =
    'caCertificateRefs: [{group: "", kind: ConfigMap, name: roots}], subjectAltNames: [{type: URI, uri: "spiffe://a/b"}]';
  expect(
    jsonAt(tlsOf(policy('p', 'ledger.example', names)), 'commonTlsContext', 'validationContext'),
  ).toMatchObject({
    matchTypedSubjectAltNames: [{ sanType: 'URI', matcher: { exact: 'spiffe://a/b' } }],
  });
});

describe('of several policies', () => {
  const aged = (age: string): string => `creationTimestamp: "2026-01-0${age}T00:00:00Z"`;

  test('the oldest holds, and the other one says so', () => {
    const text =
      policy('young', 'y.example', '', TARGET, aged('2')) + policy('old', 'o.example', '', TARGET, aged('1'));
    expect(tlsOf(text)).toMatchObject({ sni: 'o.example' });
    const { policies } = deriveText(PAY + ROOTS + text);
    expect(policies).toMatchObject([
      { object: 'BackendTLSPolicy pay/old', waypoints: ['pay/wp'], ineffective: [] },
      {
        object: 'BackendTLSPolicy pay/young',
        waypoints: [],
        ineffective: [{ reason: expect.stringContaining('BackendTLSPolicy pay/old') }],
      },
    ]);
  });

  test('one for a port goes before one for the service', () => {
    const named = '{group: "", kind: Service, name: ledger, sectionName: http}';
    const text =
      policy('all', 'a.example', '', TARGET, aged('1')) + policy('port', 'p.example', '', named, aged('2'));
    expect(tlsOf(text)).toMatchObject({ sni: 'p.example' });
  });
});

describe('a backend whose policy cannot be enforced is not connected to', () => {
  test.each([
    [
      'no such ConfigMap',
      'caCertificateRefs: [{group: "", kind: ConfigMap, name: none}]',
      'there is no ConfigMap pay/none',
    ],
    [
      'something else than a ConfigMap',
      'caCertificateRefs: [{group: "", kind: Secret, name: x}]',
      'cannot be read',
    ],
    ['the roots of the system', 'wellKnownCACertificates: System', 'is not supported'],
  ])('%s', (_, refs, message) => {
    const snapshot = deriveText(PAY + ROOTS + policy('p', 'ledger.example', refs));
    expect(resourceJson(waypointOf(snapshot), 'endpoints', CLUSTER)).toEqual({ clusterName: CLUSTER });
    expect(snapshot.problems.filter(({ severity }) => severity === 'error')).toMatchObject([
      {
        object: 'BackendTLSPolicy pay/p',
        message: expect.stringContaining(message),
        effect: 'what it is aimed at is not connected to',
      },
    ]);
  });
});

test('a policy that is aimed at nothing says so', () => {
  const { policies } = deriveText(
    PAY + ROOTS + policy('p', 'a.example', '', '{group: "", kind: Service, name: none}'),
  );
  expect(policies).toMatchObject([{ ineffective: [{ reason: 'there is no Service pay/none' }] }]);
});
