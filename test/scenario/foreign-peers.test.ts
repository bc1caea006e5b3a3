import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { type ForeignClient, startForeignClient } from '#test/kit/foreign-client.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import type { Question } from '#test/kit/programs/foreign-hbone.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';

describe('a foreign HBONE client, from a pod outside the mesh', () => {
  let mesh: Mesh;
  let server: WorkloadStatus;
  let outsider: WorkloadStatus;
  let client: ForeignClient;
  const ask: ForeignClient['ask'] = (question) => client.ask(question);

  beforeAll(async () => {
    const policies =
      peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}') +
      policyYaml('shop', 'p', '{rules: [{from: [{source: {principals: ["*/ns/shop/sa/web"]}}]}]}');
    mesh = await openMesh({
      files: {
        'mesh.yaml':
          namespaceYaml('shop', true) +
          namespaceYaml('outside', false) +
          serviceYaml('shop', 'catalog') +
          policies,
      },
    });
    server = await mesh.run(
      {
        namespace: 'shop',
        name: 'catalog-1',
        node: 'n2',
        labels: { app: 'catalog' },
        command: serverCommand('c'),
      },
      true,
    );
    outsider = await mesh.run(
      { namespace: 'outside', name: 'o', node: 'n1', command: ['sleep', 'infinity'] },
      false,
    );
    client = startForeignClient(mesh.state, outsider.netns, server.addresses[0] ?? '');
  });

  afterAll(async () => {
    client?.[Symbol.dispose]();
    await mesh?.[Symbol.asyncDispose]();
  });

  const to = (authority: string, more: Record<string, string> = {}): Partial<Question> => ({
    headers: { ':method': 'CONNECT', ':authority': authority, ...more },
  });
  const http = 'GET /bytes/5 HTTP/1.0\r\n\r\n';

  test('with the right certificate and authority it reaches the application', async () => {
    const answer = await ask({ ...to(`${server.addresses[0]}:8080`), body: http });
    expect(answer).toMatchObject({ kind: 'response', status: 200, group: 'X25519MLKEM768' });
    expect(answer.kind === 'response' && answer.body).toMatch(/xxxxx$/);
    expect(answer.kind === 'response' && answer.headers['baggage']).toContain(
      'k8s.cluster.name=Kubernetes,k8s.namespace.name=shop',
    );
  });

  test.each([
    { authority: 'a hostname', of: () => 'catalog.shop.svc.cluster.local:8080', status: 200 },
    { authority: 'the VIP of its own service', of: (vip: string) => `${vip}:8080`, status: 400 },
    { authority: 'another pod', of: () => '10.244.1.77:8080', status: 400 },
    { authority: 'loopback', of: () => '127.0.0.1:8080', status: 400 },
    { authority: 'a closed port', of: (_: string, ip: string) => `${ip}:9999`, status: 503 },
    { authority: 'port 15008', of: (_: string, ip: string) => `${ip}:15008`, status: 503 },
    { authority: 'port 15001', of: (_: string, ip: string) => `${ip}:15001`, status: 503 },
    { authority: 'port 15006', of: (_: string, ip: string) => `${ip}:15006`, status: 503 },
    { authority: 'no port', of: (_: string, ip: string) => ip, status: 400 },
  ])('to $authority it is answered $status, as a stock ztunnel does', async ({ of, status }) => {
    const { services } = await mesh.status();
    const answer = await ask(to(of(services[0]?.addresses[0] ?? '', server.addresses[0] ?? '')));
    expect(answer).toMatchObject({ kind: 'response', status });
  });

  test('a method other than CONNECT is a bad request', async () => {
    const headers = {
      ':method': 'GET',
      ':scheme': 'https',
      ':authority': `${server.addresses[0]}:8080`,
      ':path': '/',
    };
    expect(await ask({ headers })).toMatchObject({ kind: 'response', status: 400 });
  });

  test('an identity that no policy allows gets 401', async () => {
    const answer = await ask({
      ...to(`${server.addresses[0]}:8080`),
      uris: ['spiffe://cluster.local/ns/shop/sa/other'],
    });
    expect(answer).toMatchObject({ kind: 'response', status: 401 });
  });

  test('headers that claim another identity change nothing', async () => {
    const forged = {
      forwarded: 'for="10.244.1.2:1"',
      'x-forwarded-client-cert': `URI=${WEB}`,
      'x-tulle-caller': WEB,
      baggage: 'k8s.namespace.name=shop,service.name=web',
    };
    const question = {
      ...to(`${server.addresses[0]}:8080`, forged),
      uris: ['spiffe://cluster.local/ns/pay/sa/pay'],
    };
    expect(await ask(question)).toMatchObject({ kind: 'response', status: 401 });
  });

  test.each<{ certificate: string; of: Partial<Question> }>([
    { certificate: 'of another trust domain', of: { uris: ['spiffe://evil.example/ns/shop/sa/web'] } },
    { certificate: 'that has expired', of: { notAfterMs: Date.now() - 60_000 } },
    { certificate: 'of a CA that is not ours', of: { foreignCa: true } },
    { certificate: 'with two identities', of: { uris: [WEB, 'spiffe://cluster.local/ns/shop/sa/other'] } },
    { certificate: 'without an identity', of: { uris: ['https://cluster.local/ns/shop/sa/web'] } },
  ])(
    'a certificate $certificate is refused before any request is heard, and written down',
    async ({ of }) => {
      const strangers = (): readonly unknown[] =>
        mesh
          .accessLog('n2')
          .filter(({ error }) => String(error).startsWith('TLS handshake failed: '))
          .map((record) => record['src.addr']);
      const before = strangers().length;
      expect(await ask({ ...to(`${server.addresses[0]}:8080`), ...of, body: http })).toMatchObject({
        kind: 'failed',
      });
      await eventually('its record', () => strangers().length > before);
      expect(strangers().at(-1)).toContain(`${outsider.addresses[0]}:`);
    },
  );
});
