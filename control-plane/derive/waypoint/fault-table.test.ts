import type { JsonValue } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { objectsOf, objectYaml } from '#test/kit/objects.ts';
import type { ObjectSet } from '../../source/objects.ts';
import { deriveSnapshot, type Snapshot } from '../snapshot.ts';
import { allocateVips, NO_VIPS } from '../vips.ts';
import { jsonAt, jsonList, ownMetadataOf, PAY, resourceJson, waypointOf } from './testing.ts';

const NAME = 'inbound-vip|80|http|ledger.pay.svc.cluster.local';
const NOW = Date.parse('2026-06-01T00:00:00Z');
const MINUTES = 60_000;
const SERVICE = '{group: "", kind: Service, name: ledger}';
const RULE = '{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r, sectionName: two}';
const ABORT = '{name: f, abort: {httpStatus: 503}, percent: 12.5, expiresAfter: 10m}';
const ROUTE = objectYaml(
  'HTTPRoute',
  'pay/r',
  '{parentRefs: [{kind: Service, group: "", name: ledger}], rules: [{name: one, matches: [{method: GET}], backendRefs: [{name: ledger, port: 80}]}, {name: two, backendRefs: [{name: ledger, port: 80}]}]}',
);

const policy = (faults: string, target = SERVICE, name = 'pay/chaos'): string =>
  objectYaml('TrafficPolicy', name, `{targetRefs: [${target}], faults: [${faults}]}`).replace(
    /^apiVersion: .*$/m,
    'apiVersion: tulle.dev/v1alpha1',
  );

function derive(text: string, firstSeen?: ReadonlyMap<string, number>): Snapshot {
  return deriveObjects(objectsOf(PAY + text), firstSeen);
}

function deriveObjects(objects: ObjectSet, firstSeen: ReadonlyMap<string, number> = new Map()): Snapshot {
  return deriveSnapshot({ objects, vips: allocateVips(objects, NO_VIPS), faults: { firstSeen, nowMs: NOW } });
}

const routesOf = (snapshot: Snapshot): readonly JsonValue[] =>
  jsonList(resourceJson(waypointOf(snapshot), 'routes', NAME, 'virtualHosts', 0, 'routes'));
const faultsOf = (route: JsonValue | undefined): readonly JsonValue[] =>
  jsonList(jsonAt(ownMetadataOf(route), 'faults'));
const filterOf = (route: JsonValue | undefined): unknown =>
  jsonAt(route, 'typedPerFilterConfig', 'envoy.filters.http.fault');

describe('a fault that Envoy can say stands in its filter', () => {
  test('with what is ours beside it', () => {
    const [route] = routesOf(derive(policy(ABORT)));
    expect(filterOf(route)).toMatchObject({
      abort: { httpStatus: 503, percentage: { numerator: 125_000, denominator: 'MILLION' } },
    });
    expect(faultsOf(route)).toEqual([
      {
        name: 'f',
        policy: 'TrafficPolicy pay/chaos',
        expires_at_ms: NOW + 10 * MINUTES,
        where: 'downstream',
        in_filter: true,
      },
    ]);
  });

  test.each([
    ['{name: f, delay: {fixed: 2s}, expiresAfter: 1m}', { delay: { fixedDelay: '2s' } }],
    ['{name: f, abort: {grpcStatus: 14}, expiresAfter: 1m}', { abort: { grpcStatus: 14 } }],
    [
      '{name: f, responseRate: {kbps: 8}, expiresAfter: 1m}',
      { responseRateLimit: { fixedLimit: { limitKbps: '8' } } },
    ],
    [
      '{name: f, match: {headers: [{name: X-Chaos, value: pay}]}, abort: {httpStatus: 500}, maxConcurrent: 50, expiresAfter: 1m}',
      { headers: [{ name: 'x-chaos', stringMatch: { exact: 'pay' } }], maxActiveFaults: 50 },
    ],
    ['{name: f, delay: {fixed: 1s}, abort: {httpStatus: 500}, expiresAfter: 1m}', { delay: {}, abort: {} }],
  ])('%s', (fault, expected) => {
    const [route] = routesOf(derive(policy(fault)));
    expect(filterOf(route)).toMatchObject(expected);
  });
});

describe('a fault that Envoy cannot say stands in the metadata alone', () => {
  test.each([
    [
      '{name: f, where: upstream, abort: {httpStatus: 503}, expiresAfter: 1m}',
      { where: 'upstream', percent: 100 },
    ],
    [
      '{name: f, match: {from: {serviceAccounts: [shop/loadgen]}}, abort: {httpStatus: 503}, expiresAfter: 1m}',
      { from_service_accounts: ['shop/loadgen'], abort_http_status: 503 },
    ],
    [
      '{name: f, delay: {fixed: 1s, jitter: 500ms}, expiresAfter: 1m}',
      { delay_ms: 1000, delay_jitter_ms: 500 },
    ],
    ['{name: f, abort: {httpStatus: 503}, percent: 0.00001, expiresAfter: 1m}', { percent: 0.000_01 }],
    [
      '{name: f, delay: {fixed: 1s}, abort: {grpcStatus: 14}, percent: 50, expiresAfter: 1m}',
      { delay_ms: 1000, abort_grpc_status: 14, percent: 50 },
    ],
  ])('%s', (fault, expected) => {
    const [route] = routesOf(derive(policy(fault)));
    expect(filterOf(route)).toBeUndefined();
    expect(faultsOf(route)).toMatchObject([{ in_filter: false, ...expected }]);
  });

  test('also two that one route has, in their order', () => {
    const second = ABORT.replace('name: f', 'name: g');
    const [route] = routesOf(derive(policy(`${ABORT}, ${second}`)));
    expect(filterOf(route)).toBeUndefined();
    expect(faultsOf(route)).toMatchObject([
      { name: 'f', in_filter: false, percent: 12.5 },
      { name: 'g', in_filter: false },
    ]);
  });
});

describe('a fault holds for the routes that its policy is aimed at', () => {
  const R = '{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r';
  test.each([
    ['a service', SERVICE, [1, 1]],
    ['a route', `${R}}`, [1, 1]],
    ['a rule of it', `${R}, sectionName: two}`, [0, 1]],
    ['the waypoint', '{group: gateway.networking.k8s.io, kind: Gateway, name: wp}', [1, 1]],
    ['a service and its route, once', `${SERVICE}, ${R}}`, [1, 1]],
  ])('%s', (_, target, expected) => {
    const snapshot = derive(ROUTE + policy(ABORT, target));
    expect(routesOf(snapshot).map((route) => faultsOf(route).length)).toEqual(expected);
    expect(snapshot.policies).toMatchObject([
      { object: 'TrafficPolicy pay/chaos', waypoints: ['pay/wp'], ineffective: [] },
    ]);
  });

  test('the most particular one is tried first', () => {
    const other = policy(ABORT.replace('name: f', 'name: g'), `${R}, sectionName: one}`, 'pay/later');
    const [first] = routesOf(derive(ROUTE + policy(ABORT) + other));
    expect(faultsOf(first).map((fault) => jsonAt(fault, 'name'))).toEqual(['g', 'f']);
  });

  test.each([
    ['{group: "", kind: Service, name: none}', 'there is no Service pay/none'],
    [`${R}, sectionName: three}`, 'HTTPRoute pay/r has no rule named three'],
    ['{group: gateway.networking.k8s.io, kind: Gateway, name: gw}', 'there is no Gateway pay/gw'],
  ])('and is reported where that is not there: %s', (target, message) => {
    const snapshot = derive(ROUTE + policy(ABORT, target));
    expect(snapshot.problems.filter(({ object }) => object.startsWith('TrafficPolicy'))).toMatchObject([
      { path: 'spec.targetRefs[0]', message, severity: 'warning' },
    ]);
    expect(snapshot.policies).toMatchObject([{ waypoints: [], ineffective: [{ reason: message }] }]);
  });
});

describe('a fault ends by itself', () => {
  const keyOf = (text: string): string => derive(text).faults.keys[0] ?? '';
  const seenBefore = (minutes: number): Snapshot =>
    derive(policy(ABORT), new Map([[keyOf(policy(ABORT)), NOW - minutes * MINUTES]]));

  test('counted from when it was first seen', () => {
    expect(seenBefore(4).faults.nextExpiryMs).toBe(NOW + 6 * MINUTES);
    expect(faultsOf(routesOf(seenBefore(4))[0])).toMatchObject([{ expires_at_ms: NOW + 6 * MINUTES }]);
  });

  test('and is then left out, but remembered, so that it does not begin again', () => {
    const ended = seenBefore(10);
    expect(faultsOf(routesOf(ended)[0])).toEqual([]);
    expect(filterOf(routesOf(ended)[0])).toBeUndefined();
    const keys = [keyOf(policy(ABORT))];
    expect(ended.faults).toEqual({ keys, over: new Set(keys), inForce: [] });
    expect(ended.policies).toMatchObject([
      { ineffective: [{ reason: 'fault f has ended, at 2026-06-01T00:00:00.000Z' }] },
    ]);
  });

  test('for good, whatever the clock says afterwards', () => {
    const objects = objectsOf(PAY + policy(ABORT));
    const over = new Set([keyOf(policy(ABORT))]);
    const faults = { firstSeen: new Map(), over, nowMs: NOW };
    const snapshot = deriveSnapshot({ objects, vips: allocateVips(objects, NO_VIPS), faults });
    expect(faultsOf(routesOf(snapshot)[0])).toEqual([]);
    expect(snapshot.faults).toEqual({ keys: [...over], over, inForce: [] });
  });

  test('an edited one is another one', () => {
    expect(keyOf(policy(ABORT.replace('503', '500')))).not.toBe(keyOf(policy(ABORT)));
    expect(keyOf(policy(ABORT, '{group: "", kind: Service, name: x}'))).toBe(keyOf(policy(ABORT)));
  });
});

describe('a policy that no waypoint comes upon is reported, and not called in force', () => {
  const bare = PAY.replace(', labels: {istio.io/use-waypoint: wp}', '');
  const tcp = PAY.replace('{name: http, port: 80', '{name: tcp, port: 80');
  const R = '{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}';
  const remedy = 'label it, or its namespace, with istio.io/use-waypoint';
  test.each([
    ['a service without a waypoint', bare, SERVICE, `Service pay/ledger has no waypoint; ${remedy}`],
    ['a route to it', bare, R, 'HTTPRoute pay/r is attached to no service that has a waypoint'],
    [
      'a waypoint of nothing',
      bare,
      '{group: gateway.networking.k8s.io, kind: Gateway, name: wp}',
      'nothing is bound to Gateway pay/wp',
    ],
    [
      'a service of TCP',
      tcp,
      SERVICE,
      'the waypoint pay/wp of Service pay/ledger takes what comes for it as TCP or TLS, not as requests',
    ],
  ])('%s', (_, objects, target, message) => {
    const text = objects + (target === R ? ROUTE : '') + policy(ABORT, target);
    const snapshot = deriveObjects(objectsOf(text));
    expect(snapshot.problems.filter(({ object }) => object.startsWith('TrafficPolicy'))).toMatchObject([
      { path: 'spec.targetRefs[0]', message, severity: 'warning', effect: 'it has no effect there' },
    ]);
    expect(snapshot.policies).toMatchObject([{ waypoints: [], ineffective: [{ reason: message }] }]);
    expect(snapshot.faults.inForce).toEqual([]);
  });
});

test('what is in force is what waypoints are told', () => {
  const two = policy(`${ABORT}, ${ABORT.replace('name: f', 'name: g')}`, `${SERVICE}, ${RULE}`);
  const first = derive(ROUTE + two);
  const [seen = ''] = first.faults.keys;
  const snapshot = derive(ROUTE + two, new Map([[seen, NOW - 10 * MINUTES]]));
  expect(snapshot.faults.inForce).toEqual([
    {
      key: first.faults.keys[1],
      policy: 'TrafficPolicy pay/chaos',
      name: 'g',
      targets: ['Service pay/ledger', 'HTTPRoute pay/r rule two'],
      endsAtMs: NOW + 10 * MINUTES,
    },
  ]);
});

test('the switch leaves out all faults, and says so; none of them begins again after it', () => {
  const settings =
    'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: "tulle: {faults: off}"}\n---\n';
  const snapshot = derive(policy(ABORT) + settings);
  expect(faultsOf(routesOf(snapshot)[0])).toEqual([]);
  expect(snapshot.faults.keys).toHaveLength(1);
  expect(snapshot.problems.filter(({ object }) => object.startsWith('TrafficPolicy'))).toMatchObject([
    {
      severity: 'warning',
      message: expect.stringContaining('faults are off'),
      effect: 'none of them is injected',
    },
  ]);
});
