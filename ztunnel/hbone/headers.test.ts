import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { workload } from '#test/kit/resources.ts';
import { parseAuthority } from './authority.ts';
import {
  formatBaggage,
  formatForwarded,
  newConnectionId,
  newTraceparent,
  parseBaggage,
  parseConnectionId,
  parseForwardedClient,
  parseForwardedHost,
} from './headers.ts';

/** CONNECT headers of a stock client, as a foreign server saw them. */
const recorded = readFileSync(
  new URL('../../test/fixtures/ztunnel/hbone-from-stock-client.jsonl', import.meta.url),
  'utf8',
)
  .split('\n')
  .filter((line) => line.startsWith('["headers"'))
  .map((line) => (JSON.parse(line) as [string, Readonly<Record<string, string>>])[1]);
const stockClient = workload({ name: 'c', canonicalName: 'c', canonicalRevision: '', workloadName: '' });

test('baggage and forwarded are written as a stock client writes them', () => {
  expect(recorded).toHaveLength(3);
  for (const headers of recorded) expect(formatBaggage(stockClient)).toBe(headers['baggage']);
  const service = 's.default.svc.cluster.local';
  expect(formatForwarded({ ip: '10.98.1.5', port: 53170 }, undefined)).toBe(recorded[0]?.['forwarded']);
  expect(formatForwarded({ ip: '10.98.1.5', port: 57984 }, service)).toBe(recorded[1]?.['forwarded']);
});

test('a traceparent has the form of a stock client, and is a new one each time', () => {
  const form = /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/;
  expect(recorded[0]?.['traceparent']).toMatch(form);
  expect(newTraceparent()).toMatch(form);
  const many = new Set(Array.from({ length: 2000 }, () => newConnectionId()));
  expect(many.size).toBe(2000);
});

test('all of a workload goes into the baggage, in order, and comes out again', () => {
  const text = formatBaggage(
    workload({
      canonicalName: 'cart',
      canonicalRevision: 'v2',
      workloadName: 'cart-1',
      workloadType: 'CRONJOB',
      locality: { region: 'r', zone: 'z', subzone: 's' },
    }),
  );
  expect(text).toBe(
    'k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.cronjob.name=cart-1,service.name=cart,service.version=v2,cloud.region=r,cloud.availability_zone=z',
  );
  expect(parseBaggage(text)).toEqual({
    cluster: 'Kubernetes',
    namespace: 'default',
    workloadName: 'cart-1',
    workloadType: 'cronjob',
    service: 'cart',
    revision: 'v2',
    region: 'r',
    zone: 'z',
  });
});

test.each([
  { when: 'it is empty', text: '', baggage: {} },
  { when: 'members are malformed', text: ',,=x,service.name,service.name=,;', baggage: {} },
  { when: 'keys are unknown', text: '__proto__=x,constructor=y,service.name=z', baggage: { service: 'z' } },
  { when: 'there is space around it', text: ' service.name = a ', baggage: { service: 'a' } },
  { when: 'it is too long to be meant', text: `service.name=${'x'.repeat(5000)}`, baggage: {} },
])('baggage is read for what it is worth when $when', ({ text, baggage }) => {
  expect(parseBaggage(text)).toEqual(baggage);
});

test('text that no header may hold stays out of the baggage', () => {
  expect(
    formatBaggage(workload({ canonicalName: 'a\r\nx: y', canonicalRevision: 'ü', workloadName: '' })),
  ).toBe('k8s.cluster.name=Kubernetes,k8s.namespace.name=default');
});

test.each([
  { text: 'for="10.0.0.1:1";host=a.b', host: 'a.b' },
  { text: 'for=x;Host="A.b"', host: 'a.b' },
  { text: 'host=a, host=b', host: 'a' },
  { text: 'for="10.0.0.1:1"', host: undefined },
  { text: 'host=', host: undefined },
  { text: '"', host: undefined },
])('the host of forwarded: $text is $host', ({ text, host }) => {
  expect(parseForwardedHost(text)).toBe(host);
});

test.each([
  { text: 'for="10.0.0.1:40000"', client: { ip: '10.0.0.1', port: 40_000 } },
  { text: 'host=cart; For="[fd00::1]:40000"', client: { ip: 'fd00::1', port: 40_000 } },
  { text: 'for=10.0.0.1:1, for="10.0.0.2:2"', client: { ip: '10.0.0.1', port: 1 } },
  { text: 'for="10.0.0.1"', client: undefined },
  { text: 'for="name:80"', client: undefined },
  { text: 'for="10.0.0.1:65536"', client: undefined },
  { text: 'for=_hidden', client: undefined },
  { text: 'host=cart', client: undefined },
  { text: `for="10.0.0.1:1";x=${'y'.repeat(5000)}`, client: undefined },
])('the client of forwarded: $text is $client', ({ text, client }) => {
  expect(parseForwardedClient(text)).toEqual(client);
});

test.each([
  { text: '10.0.0.1:80', authority: { kind: 'address', address: { ip: '10.0.0.1', port: 80 } } },
  { text: '[FD00::1]:80', authority: { kind: 'address', address: { ip: 'fd00::1', port: 80 } } },
  { text: '[::ffff:10.0.0.1]:80', authority: { kind: 'address', address: { ip: '10.0.0.1', port: 80 } } },
  { text: 'Cart.shop:80', authority: { kind: 'hostname', hostname: 'cart.shop', port: 80 } },
  { text: '10.0.0.1', authority: undefined },
  { text: '10.0.0.1:', authority: undefined },
  { text: '10.0.0.1:0', authority: undefined },
  { text: '10.0.0.1:65536', authority: undefined },
  { text: '10.0.0:80', authority: undefined },
  { text: '010.0.0.1:80', authority: undefined },
  { text: 'fd00::1:80', authority: undefined },
  { text: '[10.0.0.x]:80', authority: undefined },
  { text: 'a@b:80', authority: undefined },
  { text: 'a/b:80', authority: undefined },
  { text: ':80', authority: undefined },
  { text: '', authority: undefined },
])('the authority $text is understood, or refused', ({ text, authority }) => {
  expect(parseAuthority(text)).toEqual(authority);
});

test('a connection ID is 32 hexadecimal digits, anything else is none', () => {
  const id = newConnectionId();
  expect(parseConnectionId(id)).toBe(id);
  expect(parseConnectionId(`${id}0`)).toBeUndefined();
  expect(parseConnectionId(undefined)).toBeUndefined();
});
