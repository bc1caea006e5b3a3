import { expect, test } from 'vitest';
import type { Cluster, Endpoint } from '../model.ts';
import { createBalancer, type PickOptions } from './balance.ts';
import { keyOfEndpoint } from './target.ts';
import { cluster, endpoint } from './testing.ts';

const ANY: PickOptions = { hashKey: undefined, exclude: new Set() };
const three = [endpoint(1), endpoint(2), endpoint(3)];

function portsOf(to: Cluster, count: number, options: (index: number) => PickOptions = () => ANY): number[] {
  const balancer = createBalancer();
  return Array.from({ length: count }, (_, index) => balancer.pick(to, options(index))?.address.port ?? 0);
}

function share(ports: readonly number[], port: number): number {
  return ports.filter((each) => each === port).length / ports.length;
}

test('round robin goes round', () => {
  expect(portsOf(cluster(three), 6)).toEqual([1, 2, 3, 1, 2, 3]);
});

test('round robin keeps weights exactly', () => {
  const ports = portsOf(cluster([endpoint(1, { weight: 3 }), endpoint(2)]), 8);
  expect(share(ports, 1)).toBe(0.75);
});

test('least request prefers the endpoint that has fewer', () => {
  const to = cluster(three, { balancing: 'least-request' });
  const balancer = createBalancer();
  for (let count = 0; count < 50; count++) balancer.begin(to, three[0] as Endpoint);
  const ports = Array.from({ length: 600 }, () => balancer.pick(to, ANY)?.address.port ?? 0);
  // Only when both of two draws fall on it.
  expect(share(ports, 1)).toBeLessThan(0.2);
});

test('what is over counts no more, told once or twice', () => {
  const to = cluster([endpoint(1), endpoint(2)], { balancing: 'least-request' });
  const draws = [0, 0.9];
  const balancer = createBalancer(() => draws.shift() ?? 0);
  const end = balancer.begin(to, to.endpoints[0] as Endpoint);
  end();
  end();
  expect(balancer.pick(to, ANY)?.address.port).toBe(1);
});

test('only what is healthy is picked, and nothing where nothing is', () => {
  const ill = [endpoint(1, { health: 'unhealthy' }), endpoint(2, { health: 'draining' })];
  expect(portsOf(cluster([...ill, endpoint(3)]), 3)).toEqual([3, 3, 3]);
  expect(createBalancer().pick(cluster(ill), ANY)).toBeUndefined();
});

test.each(['least-request', 'round-robin', 'ring-hash'] as const)(
  '%s leaves out endpoints of earlier tries, as far as it can',
  (balancing) => {
    const exclude = new Set([1, 2].map((port) => keyOfEndpoint(endpoint(port))));
    const ports = portsOf(cluster(three, { balancing }), 60, (index) => ({
      hashKey: `key ${index}`,
      exclude,
    }));
    expect(share(ports, 3)).toBe(1);
    const alone = portsOf(cluster([endpoint(1)], { balancing }), 1, () => ({ hashKey: 'x', exclude }));
    expect(alone).toEqual([1]);
  },
);

test('ring hash keeps keys where they are, and spreads them', () => {
  const keys = Array.from({ length: 3_000 }, (_, index) => `user-${index}`);
  const options = (index: number): PickOptions => ({ ...ANY, hashKey: keys[index] });
  const before = portsOf(cluster(three, { balancing: 'ring-hash' }), keys.length, options);
  const after = portsOf(cluster(three.slice(0, 2), { balancing: 'ring-hash' }), keys.length, options);
  const moved = keys.filter((_, index) => before[index] !== 3 && before[index] !== after[index]);
  expect(moved.length).toBe(0);
  for (const port of [1, 2, 3]) expect(share(before, port)).toBeGreaterThan(0.25);
});

test('ring hash gives more keys to more weight', () => {
  const to = cluster([endpoint(1, { weight: 3 }), endpoint(2)], { balancing: 'ring-hash' });
  const ports = portsOf(to, 4_000, (index) => ({ ...ANY, hashKey: `user-${index}` }));
  expect(share(ports, 1)).toBeGreaterThan(0.68);
  expect(share(ports, 1)).toBeLessThan(0.82);
});

test('a new version of a cluster keeps what is under way', () => {
  const balancer = createBalancer();
  const to = cluster(three);
  const end = balancer.beginRequest(to);
  expect(balancer.load(cluster(three.slice(1))).requests).toBe(1);
  end();
  expect(balancer.load(to).requests).toBe(0);
});
