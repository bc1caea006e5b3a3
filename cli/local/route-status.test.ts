import { expect, test } from 'vitest';
import type { RouteSplit } from '#control-plane/route-splits.ts';
import type { StatusRoute } from '#control-plane/status-waypoints.ts';
import { routeStatuses } from './route-status.ts';
import type { SplitCount } from './waypoint-report.ts';

const OBJECT = 'HTTPRoute pay/ledger';
const share = (rule: number, backend: string, weight: number): RouteSplit => ({ rule, backend, weight });
const ROUTE: StatusRoute = {
  object: OBJECT,
  parents: [],
  split: [
    share(0, 'pay/ledger-v1:80', 70),
    share(0, 'pay/ledger-v2:80', 30),
    share(1, 'pay/ledger-v2:80', 1),
  ],
};

test('the wanted split is shown beside the observed one, summed over replicas', () => {
  const count = (backend: string, requests: number, rule = 0): SplitCount => ({
    object: OBJECT,
    rule,
    backend,
    requests,
  });
  const counts = [
    count('pay/ledger-v1:80', 300),
    count('pay/ledger-v2:80', 140),
    count('pay/ledger-v1:80', 41),
    count('pay/ledger-v2:80', 7, 1),
  ];
  expect(routeStatuses([ROUTE], counts)).toEqual([
    {
      object: OBJECT,
      parents: [],
      split: [
        { rule: 0, backend: 'pay/ledger-v1:80', weight: 70, requests: 341, observed: 0.7089 },
        { rule: 0, backend: 'pay/ledger-v2:80', weight: 30, requests: 140, observed: 0.2911 },
        { rule: 1, backend: 'pay/ledger-v2:80', weight: 1, requests: 7, observed: 1 },
      ],
    },
  ]);
});

test('before the first request of a rule nothing of it has been observed', () => {
  const counts = [{ object: 'HTTPRoute pay/other', rule: 0, backend: 'pay/ledger-v1:80', requests: 3 }];
  const [first] = routeStatuses([ROUTE], counts);
  expect(first?.split.map(({ requests, observed }) => [requests, observed])).toEqual([
    [0, null],
    [0, null],
    [0, null],
  ]);
});

test('a backend that cannot be is known by its place', () => {
  const split = [share(0, 'pay/ledger-v1:80', 1), share(0, 'pay/nobody:80', 1)];
  const counts = [
    { object: OBJECT, rule: 0, backend: 'pay/ledger-v1:80', requests: 6 },
    { object: OBJECT, rule: 0, backend: 'invalid (backend 1)', requests: 6 },
  ];
  const [first] = routeStatuses([{ ...ROUTE, split }], counts);
  expect(first?.split.map(({ requests, observed }) => [requests, observed])).toEqual([
    [6, 0.5],
    [6, 0.5],
  ]);
});
