import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ENVOY_TYPES } from '#api/envoy/types.ts';
import { deriveText, objectYaml } from '#test/kit/objects.ts';
import { createConfigStore } from '#waypoint/config/store.ts';
import { PAY, waypointOf } from './testing.ts';
import type { WaypointResources } from './waypoint-resources.ts';

const RECORDED = join(import.meta.dirname, '../../../test/fixtures/istiod/objects.yaml');
const PARENT = 'parentRefs: [{kind: Service, group: "", name: ledger, port: 80}]';
const TO = 'backendRefs: [{name: ledger, port: 80, weight: 3}, {name: none, port: 80}]';

const RULES = [
  `{name: a, matches: [{path: {type: RegularExpression, value: "/a/[0-9]+"}, method: GET, queryParams: [{name: q, type: RegularExpression, value: "x.*"}]}], ${TO}}`,
  `{matches: [{path: {value: /b}}], filters: [{type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], ${TO}}`,
  `{matches: [{path: {value: /c}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, path: {type: ReplaceFullPath, replaceFullPath: /d}}}]}`,
  `{matches: [{path: {value: /e}}], filters: [{type: RequestMirror, requestMirror: {percent: 7, backendRef: {name: ledger, port: 80}}}, {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-p, value: "100%"}]}}], ${TO}}`,
  `{matches: [{path: {value: /f}}], filters: [{type: CORS, cors: {allowOrigins: ["*"]}}], timeouts: {request: 1s, backendRequest: 250ms}, retry: {codes: [503], attempts: 2, backoff: 10ms}, ${TO}}`,
  `{matches: [{path: {value: /g}}], sessionPersistence: {sessionName: s, idleTimeout: 5m}, ${TO}}`,
  `{matches: [{path: {value: /h}}], filters: [{type: Later}], ${TO}}`,
  '{matches: [{path: {value: /i}}]}',
  `{matches: [{path: {value: /j}}], sessionPersistence: {type: Header, sessionName: Host}, ${TO}}`,
];

const MORE = [
  objectYaml(
    'Service',
    'pay/many',
    '{clusterIP: 10.97.2.8, selector: {app: ledger}, ports: [{name: any, port: 1}, {name: tcp, port: 2}, {name: tls, port: 3}, {name: grpc, port: 4}]}',
    'annotations: {tulle.dev/load-balancing: ring-hash, tulle.dev/hash-on: "cookie:sid"}',
  ),
  objectYaml(
    'TCPRoute',
    'pay/t',
    `{${PARENT.replace('ledger, port: 80', 'many, port: 2')}, rules: [{${TO}}]}`,
  ),
  objectYaml(
    'TLSRoute',
    'pay/s',
    `{${PARENT.replace('ledger, port: 80', 'many, port: 3')}, hostnames: [a.example, "*.b.example"], rules: [{${TO}}]}`,
  ),
  objectYaml(
    'GRPCRoute',
    'pay/g',
    `{${PARENT.replace('ledger, port: 80', 'many, port: 4')}, rules: [{matches: [{method: {service: a.B}}], ${TO}}]}`,
  ),
  objectYaml('HTTPRoute', 'shop/c', `{${PARENT.replace('name:', 'namespace: pay, name:')}, rules: [{}]}`),
  objectYaml(
    'TrafficPolicy',
    'pay/chaos',
    '{targetRefs: [{group: "", kind: Service, name: ledger}], faults: [{name: f, match: {headers: [{name: a, value: b}]}, delay: {fixed: 1s, jitter: 1s}, where: upstream, percent: 0.5, maxConcurrent: 3, expiresAfter: 1m}, {name: g, abort: {grpcStatus: 14}, expiresAfter: 1m}]}',
  ).replace(/^apiVersion: .*$/m, 'apiVersion: tulle.dev/v1alpha1'),
  objectYaml(
    'TrafficPolicy',
    'pay/slow',
    '{targetRefs: [{group: "", kind: Service, name: many}], faults: [{name: f, delay: {fixed: 1s}, percent: 12.5, expiresAfter: 1m}, {name: h, match: {headers: [{name: Host, value: b}]}, delay: {fixed: 1s}, expiresAfter: 1m}]}',
  ).replace(/^apiVersion: .*$/m, 'apiVersion: tulle.dev/v1alpha1'),
].join('');

test.each([
  ['of the recorded objects', readFileSync(RECORDED, 'utf8')],
  [
    'of every kind of route',
    PAY + objectYaml('HTTPRoute', 'pay/r', `{${PARENT}, rules: [${RULES.join(', ')}]}`) + MORE,
  ],
])('a waypoint takes all resources %s, and lacks none', (_, text) => {
  const waypoint = waypointOf(deriveText(text));
  const store = createConfigStore();
  const rejections = ENVOY_TYPES.flatMap((type) =>
    store.apply({ type, updated: resourcesOf(waypoint, type), removed: [] }),
  );
  expect(rejections).toEqual([]);
  expect(store.missing()).toEqual([]);
  expect(store.interest().authorizations).toEqual(waypoint.authorizations);
});

function resourcesOf(
  { resources }: WaypointResources,
  type: (typeof ENVOY_TYPES)[number],
): readonly { readonly name: string; readonly value: Uint8Array }[] {
  return [...(resources.get(type)?.values() ?? [])];
}
