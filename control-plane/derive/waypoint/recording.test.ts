import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { JsonValue } from '@bufbuild/protobuf';
import { beforeAll, describe, expect, test } from 'vitest';
import { parseFiles } from '../../source/parse-files.ts';
import { deriveSnapshot } from '../snapshot.ts';
import { allocateVips, NO_VIPS } from '../vips.ts';
import { jsonAt, jsonList, ownMetadataOf, resourceJson, waypointOf } from './testing.ts';
import type { WaypointResources } from './waypoint-resources.ts';

/** What a stock istiod gave an Envoy waypoint for the objects from which ours is derived here. */
const FIXTURES = join(import.meta.dirname, '../../../test/fixtures/istiod');
const LEDGER = 'inbound-vip|80|http|ledger.pay.svc.cluster.local';
/** Its clusters name a protocol; ours are of a port, whoever leads to it. */
const OURS: ReadonlyMap<string, string> = new Map([
  [LEDGER, 'inbound-vip|80|ledger.pay.svc.cluster.local'],
  ['inbound-vip|80|http|ledger-v2.pay.svc.cluster.local', 'inbound-vip|80|ledger-v2.pay.svc.cluster.local'],
]);

let waypoint: WaypointResources;
let recorded: JsonValue;

beforeAll(async () => {
  const objects = await parseFiles([join(FIXTURES, 'objects.yaml')]);
  waypoint = waypointOf(deriveSnapshot({ objects, vips: allocateVips(objects, NO_VIPS) }));
  recorded = JSON.parse(await readFile(join(FIXTURES, 'waypoint-config.json'), 'utf8'));
});

describe('routes are those of a stock istiod', () => {
  test('in their matches, in the same order', () => {
    // It writes out that case matters, which Envoy takes for granted.
    const matches = recordedRoutes().map((route) => {
      const { caseSensitive: _, ...match } = objectOf(jsonAt(route, 'match'));
      return match;
    });
    expect(ownRoutes().map((route) => jsonAt(route, 'match'))).toEqual(matches);
  });

  test('in the clusters that they lead to, and their weights', () => {
    expect(ownRoutes().map(clusterOf)).toEqual(recordedRoutes().map(clusterOf).map(withOurNames));
  });

  test('in what they do to headers', () => {
    const editsOf = (route: JsonValue): unknown => [
      jsonAt(route, 'requestHeadersToAdd'),
      jsonAt(route, 'responseHeadersToAdd'),
    ];
    expect(ownRoutes().map(editsOf)).toEqual(recordedRoutes().map(editsOf));
  });

  test('in what is answered where a cluster is not there', () => {
    const codeOf = (route: JsonValue): unknown => jsonAt(route, 'route', 'clusterNotFoundResponseCode');
    expect(ownRoutes().map(codeOf)).toEqual(recordedRoutes().map(codeOf));
  });

  test('but for timeouts: of the request and of one try each has its own', () => {
    const timesOf = (route: JsonValue | undefined): unknown => [
      jsonAt(route, 'route', 'timeout'),
      jsonAt(route, 'route', 'retryPolicy', 'perTryTimeout'),
    ];
    // `{request: 2s, backendRequest: 500ms}`, of which it makes the shorter one for the whole request.
    expect(timesOf(recordedRoutes()[1])).toEqual(['0.500s', undefined]);
    expect(timesOf(ownRoutes()[1])).toEqual(['2s', '0.500s']);
  });

  test('but for retries: only what was not sent is sent again, once', () => {
    const retryOf = (route: JsonValue | undefined): unknown => [
      jsonAt(route, 'route', 'retryPolicy', 'retryOn'),
      jsonAt(route, 'route', 'retryPolicy', 'numRetries'),
    ];
    expect(retryOf(recordedRoutes()[0])).toEqual([
      'connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes',
      2,
    ]);
    expect(retryOf(ownRoutes()[0])).toEqual(['connect-failure,refused-stream', 1]);
    expect(jsonAt(ownRoutes()[0], 'route', 'retryPolicy', 'hostSelectionRetryMaxAttempts')).toBe('5');
  });
});

test.each([...OURS])('cluster %s is that of a stock istiod in its type and balancing', (theirs, ours) => {
  const partsOf = (cluster: JsonValue | undefined): unknown =>
    ['type', 'lbPolicy', 'commonLbConfig'].map((part) => jsonAt(cluster, part));
  const cluster = resourceJson(waypoint, 'cluster', ours);
  expect(partsOf(cluster)).toEqual(partsOf(recordedCluster(theirs)));
  expect(jsonAt(cluster, 'connectTimeout')).toBe('5s'); // Its own waits 10 s.
});

test('the listener normalizes paths as that of a stock istiod, and more', () => {
  const manager = recordedManager();
  const own = resourceJson(waypoint, 'listener', LEDGER, 'filterChains', 0, 'filters', 0, 'typedConfig');
  expect(jsonAt(own, 'normalizePath')).toBe(jsonAt(manager, 'normalizePath'));
  expect(jsonAt(own, 'upgradeConfigs')).toEqual(jsonAt(manager, 'upgradeConfigs'));
  // One path for routes and policies: what is ambiguous is refused.
  expect(jsonAt(manager, 'pathWithEscapedSlashesAction')).toBe('KEEP_UNCHANGED');
  expect(jsonAt(own, 'pathWithEscapedSlashesAction')).toBe('REJECT_REQUEST');
  expect(jsonAt(own, 'mergeSlashes')).toBe(true);
});

test('it stands before the same addresses', () => {
  expect(ownMetadataOf(resourceJson(waypoint, 'listener', LEDGER))).toMatchObject({
    addresses: ['10.97.2.1', 'ledger.pay.svc.cluster.local'],
    port: 80,
  });
});

function ownRoutes(): readonly JsonValue[] {
  return jsonList(resourceJson(waypoint, 'routes', LEDGER, 'virtualHosts', 0, 'routes'));
}

function recordedRoutes(): readonly JsonValue[] {
  return jsonList(jsonAt(recordedManager(), 'routeConfig', 'virtualHosts', 0, 'routes'));
}

/** The connection manager of `pay/ledger`, in the one listener behind all tunnels. */
function recordedManager(): JsonValue | undefined {
  const listeners = jsonList(configsOf('ListenersConfigDump', 'dynamicListeners'));
  const main = listeners.find((listener) => jsonAt(listener, 'name') === 'main_internal');
  const chains = jsonList(jsonAt(main, 'activeState', 'listener', 'filterChains'));
  const chain = chains.find((each) => jsonAt(each, 'name') === LEDGER);
  return jsonAt(chain, 'filters', 0, 'typedConfig');
}

function recordedCluster(name: string): JsonValue | undefined {
  const clusters = jsonList(configsOf('ClustersConfigDump', 'dynamicActiveClusters'));
  return jsonAt(
    clusters.find((each) => jsonAt(each, 'cluster', 'name') === name),
    'cluster',
  );
}

function configsOf(type: string, field: string): JsonValue | undefined {
  const configs = jsonList(jsonAt(recorded, 'configs'));
  const config = configs.find((each) => String(jsonAt(each, '@type')).endsWith(`.${type}`));
  return jsonAt(config, field);
}

/** Name and weight of each cluster of a route. */
function clusterOf(route: JsonValue): readonly (readonly [name: unknown, weight: unknown])[] {
  const one = jsonAt(route, 'route', 'cluster');
  if (one !== undefined) return [[one, undefined]];
  const clusters = jsonList(jsonAt(route, 'route', 'weightedClusters', 'clusters'));
  return clusters.map((cluster) => [jsonAt(cluster, 'name'), jsonAt(cluster, 'weight')] as const);
}

function withOurNames(clusters: ReturnType<typeof clusterOf>): ReturnType<typeof clusterOf> {
  return clusters.map(([name, weight]) => [OURS.get(String(name)) ?? name, weight] as const);
}

function objectOf(json: JsonValue | undefined): Readonly<Record<string, unknown>> {
  return typeof json === 'object' && json !== null && !Array.isArray(json) ? json : {};
}
