import { describe, expect, test } from 'vitest';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from '#api/envoy/types.ts';
import { createConfigStore } from './store.ts';
import {
  clusterBytes,
  endpointsBytes,
  LEDGER,
  listenerBytes,
  routesBytes,
  routeTo,
  tellLedger,
  updateOf,
} from './testing.ts';

describe('a config store', () => {
  test('joins what it is told, whatever comes first', () => {
    const store = createConfigStore();
    expect(tellLedger(store)).toEqual([]);
    const { frontends, routes, clusters } = store.current();
    expect(frontends.find('10.96.0.1', 80, 'shop')?.routeTable).toBe(LEDGER);
    expect(routes.get(LEDGER)?.routes[0]?.action).toMatchObject({
      kind: 'forward',
      backends: [{ cluster: LEDGER, weight: 1 }],
      timeoutMs: 0,
    });
    expect(clusters.get(LEDGER)).toMatchObject({
      backend: 'pay/ledger:80',
      balancing: 'least-request',
      endpoints: [
        { address: { ip: '10.1.0.1', port: 8080 }, tunnel: 'HBONE', health: 'healthy' },
        { address: { ip: '10.1.0.2', port: 8080 } },
      ],
    });
    expect(store.missing()).toEqual([]);
  });

  test('keeps the last good version of what it rejects, and takes the rest', () => {
    const store = createConfigStore();
    tellLedger(store);
    const before = store.current();
    const other = 'inbound-vip|81|http|ledger.pay.svc.cluster.local';
    const rejections = store.apply({
      type: ROUTE_TYPE,
      updated: [
        { name: LEDGER, value: Uint8Array.of(255, 255, 255) },
        { name: other, value: routesBytes(other, [routeTo(LEDGER)]) },
      ],
      removed: [],
    });
    expect(rejections).toEqual([
      { name: LEDGER, reason: expect.stringContaining(`RouteConfiguration ${LEDGER}: the bytes are no`) },
    ]);
    expect(store.current().routes.get(LEDGER)).toBe(before.routes.get(LEDGER));
    expect(store.current().routes.has(other)).toBe(true);
  });

  test('compiles only what an update names', () => {
    const store = createConfigStore();
    tellLedger(store);
    const other = 'inbound-vip|81|http|ledger.pay.svc.cluster.local';
    store.apply(updateOf(CLUSTER_TYPE, other, clusterBytes(other)));
    const before = store.current();
    store.apply(updateOf(ENDPOINT_TYPE, other, endpointsBytes(other, [7])));
    const after = store.current();
    expect(after.clusters.get(LEDGER)).toBe(before.clusters.get(LEDGER));
    expect(after.clusters.get(other)).not.toBe(before.clusters.get(other));
    expect(after.routes).toBe(before.routes);
    expect(after.frontends).toBe(before.frontends);
  });

  test('says what else to ask for, and what of it is not there', () => {
    const store = createConfigStore();
    store.apply(
      updateOf(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER, { authorizations: ['pay/allow-web'] })),
    );
    store.apply(updateOf(CLUSTER_TYPE, LEDGER, clusterBytes(LEDGER)));
    expect(store.interest()).toEqual({
      routes: [LEDGER],
      endpoints: [LEDGER],
      secrets: [],
      authorizations: ['pay/allow-web'],
    });
    expect(store.missing()).toEqual([LEDGER, LEDGER]);
    store.apply({ type: ENDPOINT_TYPE, updated: [], removed: [LEDGER] });
    expect(store.missing()).toEqual([LEDGER]);
    store.apply(updateOf(ROUTE_TYPE, LEDGER, Uint8Array.of(255)));
    expect(store.missing()).toEqual([]);
  });

  test('waits again for a name that was gone and is mentioned anew', () => {
    const store = createConfigStore();
    store.apply(updateOf(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER)));
    store.apply({ type: ROUTE_TYPE, updated: [], removed: [LEDGER] });
    store.apply({ type: LISTENER_TYPE, updated: [], removed: [LEDGER] });
    store.apply(updateOf(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER)));
    expect(store.missing()).toEqual([LEDGER]);
  });

  test('finds the frontend of the caller’s namespace before that of all', () => {
    const store = createConfigStore();
    const consumer = `${LEDGER}|from|shop`;
    store.apply(updateOf(LISTENER_TYPE, consumer, listenerBytes(consumer, { consumer_namespace: 'shop' })));
    store.apply(updateOf(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER)));
    const { frontends } = store.current();
    expect(frontends.find('Ledger.pay.svc.cluster.local.', 80, 'shop')?.name).toBe(consumer);
    expect(frontends.find('10.96.0.1', 80, 'pay')?.name).toBe(LEDGER);
    expect(frontends.find('10.96.0.1', 80, undefined)?.name).toBe(LEDGER);
    expect(frontends.find('10.96.0.1', 81, 'pay')).toBeUndefined();
    expect(frontends.named(consumer)?.consumerNamespace).toBe('shop');
  });

  test('finds a workload at every port', () => {
    const store = createConfigStore();
    const name = 'inbound-pod||auto|fd00::7';
    store.apply(updateOf(LISTENER_TYPE, name, listenerBytes(name, { addresses: ['fd00::7'], port: 0 })));
    const { frontends } = store.current();
    expect(frontends.find('fd00:0:0::7', 9090, 'shop')?.name).toBe(name);
  });
});
