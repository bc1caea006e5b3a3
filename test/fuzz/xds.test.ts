import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeResource, encodeResource } from '#api/codec.ts';
import {
  decodeRequest,
  decodeResponse,
  encodeRequest,
  encodeResourceField,
  encodeResponse,
} from '#api/discovery.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE } from '#api/envoy/types.ts';
import { ResourceError } from '#api/faults.ts';
import { readResponse, rejectionMessage } from '#api/held-versions.ts';
import { decodeRevoked, decodeRoots, encodeRevoked, encodeRoots, SecretError } from '#api/mesh-secrets.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import { readRejections } from '#control-plane/serve/rejections.ts';
import { shapeOf } from '#control-plane/serve/request-shape.ts';
import { policy, port, rule, service, workload } from '#test/kit/resources.ts';
import { createConfigStore } from '#waypoint/config/store.ts';
import {
  clusterBytes,
  endpointsBytes,
  LEDGER,
  listenerBytes,
  routesBytes,
  routeTo,
  tellLedger,
} from '#waypoint/config/testing.ts';
import { always, bytesNear, outcomeOf, textNear } from './fuzz.ts';

const WORKLOAD = workload({ addresses: ['10.0.0.1', 'fd00::1'], authorizationPolicies: ['default/p'] });
const RESOURCES = [
  encodeResource(WORKLOAD),
  encodeResource(service({ ports: [port(80, 8080)] })),
  encodeResource(policy({ rules: [rule({ namespaces: [{ kind: 'exact', value: 'shop' }] })] })),
];
const PEM = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';
const LIMITS = { maxNames: 100, longestName: 300, largestNode: 10_000 };

test('a resource for a ztunnel is one, or a ResourceError; it is the same when it is written again', () => {
  const type = fc.constantFrom(ADDRESS_TYPE, AUTHORIZATION_TYPE);
  always(fc.tuple(type, bytesNear(...RESOURCES)), ([of, bytes]) => {
    const resource = outcomeOf(() => decodeResource(of, bytes), ResourceError);
    if (resource !== undefined) expect(decodeResource(of, encodeResource(resource))).toEqual(resource);
  });
});

test('what a waypoint is told is taken, or rejected by name, and what it holds can be served from', () => {
  const secret = encodeRoots(PEM);
  const samples = [
    [LISTENER_TYPE, listenerBytes(LEDGER)],
    [ROUTE_TYPE, routesBytes(LEDGER, [routeTo(LEDGER)])],
    [CLUSTER_TYPE, clusterBytes(LEDGER)],
    [ENDPOINT_TYPE, endpointsBytes(LEDGER, [1, 2])],
    [SECRET_TYPE, secret],
  ] as const;
  const update = fc
    .constantFrom(...samples)
    .chain(([type, bytes]) => bytesNear(bytes).map((value) => ({ type, value })));
  always(fc.array(update, { minLength: 1, maxLength: 6 }), (updates) => {
    const store = createConfigStore();
    tellLedger(store);
    for (const { type, value } of updates) {
      const before = store.current();
      const rejected = store.apply({ type, updated: [{ name: LEDGER, value }], removed: [] });
      if (rejected.length > 0) expect([rejected[0]?.name, store.current()]).toEqual([LEDGER, before]);
      store.interest();
      store.missing();
    }
  });
});

test('a response is read resource by resource', () => {
  const field = (name: string): Uint8Array =>
    encodeResourceField({
      name,
      version: 'v',
      typeUrl: ADDRESS_TYPE,
      value: RESOURCES[0] ?? new Uint8Array(),
    });
  const sample = encodeResponse({
    typeUrl: ADDRESS_TYPE,
    nonce: '1',
    resources: [field('a'), field('b')],
    removed: ['c'],
  });
  always(bytesNear(sample), (bytes) => {
    const response = outcomeOf(() => decodeResponse(bytes), Error); // Not tagged: its caller ends the stream for any.
    if (response === undefined) return;
    const { updated, rejected } = readResponse(ADDRESS_TYPE, response);
    expect(updated.length + rejected.length).toBe(response.resources.length);
    rejectionMessage(rejected, response);
  });
});

test('a request that is not too much holds no more than it may', () => {
  const sample = encodeRequest({
    typeUrl: ADDRESS_TYPE,
    resourceNamesSubscribe: ['*', 'a', 'b'],
    initialResourceVersions: { x: 'v', ['__proto__']: 'v' },
    responseNonce: '7',
    node: { id: 'n', metadata: { NODE_NAME: 'n1' } },
    errorDetail: { message: 'no' },
  });
  always(bytesNear(sample), (bytes) => {
    if (shapeOf(bytes, LIMITS).kind !== 'fits') return;
    const request = outcomeOf(() => decodeRequest(bytes), Error); // The stream refuses whatever cannot be decoded.
    if (request === undefined) return;
    const names = [...request.resourceNamesSubscribe, ...request.resourceNamesUnsubscribe];
    const versions = Object.keys(request.initialResourceVersions);
    expect(names.length + versions.length).toBeLessThanOrEqual(LIMITS.maxNames + 16);
    for (const name of names) expect(name.length).toBeLessThanOrEqual(LIMITS.longestName);
  });
});

test('what a client says that it rejects is about resources of the response, and short', () => {
  const resource = (name: string) => ({ name, version: 'v', value: Buffer.alloc(0), field: Buffer.alloc(0) });
  const resources = ['default/a', 'default/b', ''].map(resource);
  always(
    textNear('default/a: bad; default/b: worse', 'Error adding cluster(s) default/b: no, default/a: no'),
    (text) => {
      const rejections = readRejections(resources, text);
      for (const [rejected, reason] of rejections) {
        expect(resources).toContain(rejected);
        expect(reason.length).toBeLessThanOrEqual(2048);
      }
      expect(rejections.size).toBeGreaterThan(0);
    },
  );
});

test('a secret of the mesh is what its name says, or a SecretError', () => {
  const revoked = encodeRevoked({ identities: ['spiffe://a/ns/b/sa/c'], serials: ['01'] });
  always(bytesNear(revoked, encodeRoots(PEM)), (bytes) => {
    const names = outcomeOf(() => decodeRevoked(bytes), SecretError);
    if (names !== undefined) expect(decodeRevoked(encodeRevoked(names))).toEqual(names);
    const roots = outcomeOf(() => decodeRoots(bytes), SecretError);
    if (roots !== undefined) expect(roots).toContain('-----BEGIN CERTIFICATE-----');
  });
});
