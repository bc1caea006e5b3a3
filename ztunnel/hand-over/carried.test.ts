import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type CarriedConnection, CarriedError, formatCarried, parseCarried } from './carried.ts';

const peer = {
  address: '10.244.1.2:40000',
  identity: 'spiffe://cluster.local/ns/shop/sa/web',
  workload: {
    ...{ name: 'web-1', namespace: 'shop', workloadName: 'web', canonicalName: 'web' },
    ...{ canonicalRevision: 'latest', cluster: 'Kubernetes', region: '', zone: '' },
  },
};
const service = { hostname: 'cart.shop.svc.cluster.local', name: 'cart', namespace: 'shop' };

const connection: CarriedConnection = {
  id: '0123456789abcdef'.repeat(2),
  kind: 'same-node',
  podUid: 'uid-1',
  otherPodUid: 'uid-2',
  record: {
    facts: {
      direction: 'outbound',
      ...{ source: peer, destination: peer, service, impliedService: service },
      ...{ security: 'same_node', policy: 'shop/p', reason: 'allowed', dryRun: 'shop/q would deny' },
    },
    info: {
      podUid: 'uid-1',
      destinationPodUid: 'uid-2',
      ...{ direction: 'outbound', source: 'a', destination: 'b', identity: 'c', protocol: 'SAME_NODE' },
    },
    openedAtMs: 1_700_000_000_000.25,
    told: { received: 2 ** 40, sent: 0 },
  },
  sockets: [
    { fd: 17, hasEnded: true, hasFinished: false, unsent: Buffer.from([0, 255, 10]) },
    { fd: undefined, hasEnded: true, hasFinished: true, unsent: Buffer.alloc(0) },
  ],
  ends: { sourceIp: '10.244.1.2', destinationIp: '10.244.1.3', destinationPort: 8080, expected: ['x'] },
  claimant: 'spiffe://cluster.local/ns/shop/sa/web',
  tunnel: { anything: [1, 'two'] },
};

function asJson(value: unknown): Record<string, unknown> {
  return JSON.parse(JSON.stringify(value)) as Record<string, unknown>;
}

test('a connection comes out of JSON as it went in', () => {
  expect(parseCarried(asJson(formatCarried(connection)))).toEqual(connection);
});

test.for([
  { what: 'another id', change: { id: 'x' }, at: 'id' },
  { what: 'a kind that nobody knows', change: { kind: 'teapot' }, at: 'kind' },
  { what: 'a field more', change: { colour: 'red' }, at: 'colour' },
  { what: 'three sockets', change: { sockets: [1, 2, 3] }, at: 'sockets' },
  { what: 'a descriptor below zero', change: { sockets: [{ fd: -1 }] }, at: 'sockets.0' },
  { what: 'a port too high', change: { ends: { ...connection.ends, destinationPort: 65_536 } }, at: 'ends' },
  {
    what: 'bytes below zero',
    change: { record: { ...connection.record, told: { received: -1 } } },
    at: 'record',
  },
])('$what is refused, and named', ({ change, at }) => {
  expect(() => parseCarried({ ...asJson(formatCarried(connection)), ...change })).toThrow(at);
});

test('whatever comes is a connection or refused as none', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom('', ...Object.keys(connection)), (value, field) => {
      const message = field === '' ? value : { ...asJson(formatCarried(connection)), [field]: value };
      try {
        parseCarried(message);
      } catch (error) {
        expect(error).toBeInstanceOf(CarriedError);
      }
    }),
  );
});
