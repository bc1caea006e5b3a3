import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, resourceName } from '#api/resource.ts';
import { objectsOf, objectYaml, podYaml } from '#test/kit/objects.ts';
import type { MeshObject, ObjectSet } from '../source/objects.ts';
import { deriveSnapshot, type Snapshot } from './snapshot.ts';
import { allocateVips, NO_VIPS } from './vips.ts';

const RECORDED = join(import.meta.dirname, '../../test/fixtures/istiod/objects.yaml');

const derive = (objects: ObjectSet): Snapshot =>
  deriveSnapshot({ objects, vips: allocateVips(objects, NO_VIPS) });
const withObjects = (list: readonly MeshObject[]): ObjectSet => ({
  objects: new Map(list.map((object, index) => [`${index}`, object])),
  broken: [],
  problems: [],
  unread: [],
});

describe('the recorded objects', () => {
  const all = [...objectsOf(readFileSync(RECORDED, 'utf8')).objects.values()];

  test('give the same in whatever order they come', () => {
    const expected = derive(withObjects(all));
    const order = fc.shuffledSubarray(all, { minLength: all.length });
    fc.assert(
      fc.property(order, (shuffled) => {
        const snapshot = derive(withObjects(shuffled));
        expect(snapshot).toEqual(expected);
        expect([...(snapshot.resources.get(ADDRESS_TYPE)?.keys() ?? [])]).toEqual([
          ...(expected.resources.get(ADDRESS_TYPE)?.keys() ?? []),
        ]);
      }),
      { numRuns: 20 },
    );
  });

  test('give something whichever of them are missing, and all that is named is there', () => {
    fc.assert(
      fc.property(fc.subarray(all), (some) => {
        const { resources } = derive(withObjects(some));
        const policies = resources.get(AUTHORIZATION_TYPE);
        const addresses = resources.get(ADDRESS_TYPE);
        for (const [name, { resource }] of addresses ?? []) {
          expect(resourceName(resource)).toBe(name);
          if (resource.kind !== 'workload') continue;
          for (const policy of resource.authorizationPolicies) expect(policies?.has(policy)).toBe(true);
          for (const service of resource.services.keys()) expect(addresses?.has(service)).toBe(true);
        }
      }),
      { numRuns: 60 },
    );
  });
});

test('ten thousand pods behind a thousand services do not derive in quadratic time', () => {
  const { objects } = objectsOf(
    objectYaml(
      'Service',
      'shop/s',
      '{clusterIP: 10.97.0.1, selector: {app: a, tier: b}, ports: [{name: a, port: 80}]}',
    ) +
      objectYaml('AuthorizationPolicy', 'shop/p', '{selector: {matchLabels: {app: a}}, rules: [{}]}') +
      podYaml('shop/pod', '10.1.0.1', 'labels: {app: a, tier: b}'),
  );
  const many = [...objects.values()].flatMap((object) =>
    Array.from({ length: object.kind === 'Pod' ? 10_000 : 1_000 }, (_, index) => copy(object, index)),
  );
  const set = withObjects(many);
  const before = process.cpuUsage();
  const snapshot = deriveSnapshot({ objects: set, vips: NO_VIPS });
  const { user, system } = process.cpuUsage(before);
  expect(snapshot.resources.get(ADDRESS_TYPE)?.size).toBe(11_000);
  // Some 0.5 s here; of CPU, as others may have it as well.
  expect((user + system) / 1e6).toBeLessThan(3);
});

/** A copy among ten namespaces and a thousand apps. */
function copy(object: MeshObject, index: number): MeshObject {
  const app = new Map([
    ['app', `a${index % 1_000}`],
    ['tier', 'b'],
  ]);
  const metadata = {
    ...object.metadata,
    name: `${object.kind.toLowerCase()}-${index}`,
    namespace: `ns${index % 10}`,
  };
  switch (object.kind) {
    case 'Service':
      return { ...object, metadata, spec: { ...object.spec, selector: app } };
    case 'AuthorizationPolicy':
      return { ...object, metadata, spec: { ...object.spec, selector: { matchLabels: app } } };
    default:
      return { ...object, metadata: { ...metadata, labels: app } } as MeshObject;
  }
}
