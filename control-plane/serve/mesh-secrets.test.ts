import pino from 'pino';
import { expect, test } from 'vitest';
import { subscribeWorkloadApi } from '#api/client.ts';
import {
  encodeRevoked,
  encodeRoots,
  REVOKED_SECRET,
  type RevokedNames,
  ROOTS_SECRET,
} from '#api/mesh-secrets.ts';
import { temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { openTestServer, type TestServer, tokenOf } from './testing.ts';

const N1 = { kind: 'node', node: 'n1' } as const;

test('a client that asks for the roots gets them, gets what becomes of them, and is known to have them', async () => {
  await using ca = await temporaryAuthority();
  await using server = await openTestServer();
  const first = ca.authority.bundlePem();
  server.discovery.publishSecrets(new Map([[ROOTS_SECRET, encodeRoots(first)]]));
  server.publish();
  expect(server.discovery.secretState(N1, ROOTS_SECRET)).toBe('none');
  await using client = subscribe(server, true);
  await eventually('the roots are acknowledged', () => state(server) === 'acknowledged');
  expect(client.roots).toEqual([first]);

  server.discovery.publishSecrets(new Map([[ROOTS_SECRET, encodeRoots(first + first)]]));
  expect(state(server)).toBe('pending');
  await eventually('the new ones are, too', () => state(server) === 'acknowledged');
  expect(client.roots).toEqual([first, first + first]);
});

test('a client is told who is revoked, and what is no list of them is refused', async () => {
  await using server = await openTestServer();
  const list = { identities: ['spiffe://cluster.local/ns/a/sa/b'], serials: ['4a'] };
  const publish = (value: Uint8Array): void =>
    server.discovery.publishSecrets(new Map([[REVOKED_SECRET, value]]));
  publish(encodeRevoked(list));
  server.publish();
  await using client = subscribe(server, true);
  await eventually('it is told', () => client.revoked.length === 1);
  publish(encodeRoots('not a list'));
  await eventually('it is rejected', () =>
    server.discovery.clients().some(({ xds }) => xds.some(({ rejected }) => rejected.length > 0)),
  );
  expect(client.revoked).toEqual([list]);
});

test('what is no bundle is refused, and is not taken for acknowledged', async () => {
  await using server = await openTestServer();
  server.discovery.publishSecrets(new Map([[ROOTS_SECRET, encodeRoots('nonsense')]]));
  server.publish();
  await using client = subscribe(server, true);
  await eventually('it is rejected', () =>
    server.discovery.clients().some(({ xds }) => xds.some(({ rejected }) => rejected.length > 0)),
  );
  expect(state(server)).toBe('pending');
  expect(client.roots).toEqual([undefined]);
});

test('a client that does not ask for them is told nothing of them', async () => {
  await using ca = await temporaryAuthority();
  await using server = await openTestServer();
  const roots = encodeRoots(ca.authority.bundlePem());
  server.discovery.publishSecrets(new Map([[ROOTS_SECRET, roots]]));
  server.publish();
  await using _client = subscribe(server, false);
  await eventually('it has the rest', () => server.discovery.clients()[0]?.xds.length === 2);
  expect(state(server)).toBe('none');
});

function state(server: TestServer): string {
  return server.discovery.secretState(N1, ROOTS_SECRET);
}

interface TestClient extends AsyncDisposable {
  readonly roots: (string | undefined)[];
  readonly revoked: RevokedNames[];
}

function subscribe(server: TestServer, wantsRoots: boolean): TestClient {
  const abort = new AbortController();
  const roots: (string | undefined)[] = [];
  const revoked: RevokedNames[] = [];
  const running = subscribeWorkloadApi({
    address: server.address,
    rootsPem: () => server.rootsPem,
    headers: () => ({ authorization: `Bearer ${tokenOf('n1')}`, clusterid: 'Kubernetes' }),
    node: { ip: '10.0.0.1', podName: 'ztunnel-n1', podNamespace: 'istio-system', nodeName: 'n1' },
    onUpdate: () => undefined,
    ...(wantsRoots && {
      secrets: {
        onRoots: (rootsPem) => void roots.push(rootsPem),
        onRevoked: (list) => void (list && revoked.push(list)),
      },
    }),
    logger: pino({ level: 'silent' }),
    signal: abort.signal,
  });
  return {
    roots,
    revoked,
    [Symbol.asyncDispose]: async () => {
      abort.abort();
      await running;
    },
  };
}
