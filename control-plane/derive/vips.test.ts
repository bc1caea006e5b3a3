import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { objectsOf, objectYaml } from '#test/kit/objects.ts';
import { allocateVips, NO_VIPS, readVips, type VipAllocations, writeVips } from './vips.ts';

const service = (name: string, spec = '{}', fields = ''): string =>
  objectYaml('Service', `shop/${name}`, spec, fields);
const allocate = (text: string, previous: VipAllocations = NO_VIPS): VipAllocations =>
  allocateVips(objectsOf(text), previous);
const of = (vips: VipAllocations, name: string) => vips.addresses.get(`Service shop/${name}`);

describe('a Service without a clusterIP', () => {
  test('is given an address of each family, in the order of the text', () => {
    const vips = allocate(service('b') + service('a'));
    expect(of(vips, 'b')).toEqual(['10.96.1.0', 'fd00:10:96::100']);
    expect(of(vips, 'a')).toEqual(['10.96.1.1', 'fd00:10:96::101']);
  });

  test('is served before younger ones', () => {
    const at = (name: string, year: number): string =>
      service(name, '{}', `creationTimestamp: "${year}-01-01T00:00:00Z"`);
    expect(of(allocate(at('a', 2026) + at('b', 2025)), 'b')?.[0]).toBe('10.96.1.0');
  });

  test('keeps its address whatever else comes and goes', () => {
    const first = allocate(service('a') + service('b'));
    const second = allocate(service('c') + service('b'), first);
    expect(of(second, 'b')).toEqual(of(first, 'b'));
    expect(of(second, 'a')).toBeUndefined();
  });

  test('is not given what another has just left', () => {
    const second = allocate(service('b'), allocate(service('a')));
    expect(of(second, 'b')).toEqual(['10.96.1.1', 'fd00:10:96::101']);
  });

  test('is not given what another writes, and gives it back when it has it', () => {
    const first = allocate(service('a'));
    const second = allocate(
      service('a') + service('w', '{clusterIP: 10.96.1.0}') + service('v', '{clusterIP: 10.96.1.1}'),
      first,
    );
    expect(of(second, 'a')).toEqual(['10.96.1.2', 'fd00:10:96::100']);
  });
});

test.each([
  ['headless', '{clusterIP: None}'],
  ['headless in its list', '{clusterIPs: [None]}'],
  ['ExternalName', '{type: ExternalName}'],
  ['with a clusterIP', '{clusterIP: 10.97.0.1}'],
])('a Service that is %s is given nothing', (_, spec) => {
  expect(allocate(service('a', spec)).addresses.size).toBe(0);
});

test('a range that is full starts again with what is free, and then gives nothing', () => {
  const previous = { addresses: new Map(), next: new Map([['10.96.0.0/16', 65_534]]) };
  const vips = allocate(service('a') + service('b'), previous);
  expect([of(vips, 'a')?.[0], of(vips, 'b')?.[0]]).toEqual(['10.96.255.254', '10.96.1.0']);
});

test('hosts of ServiceEntries leave out what others write or have in their status', () => {
  const entry = (name: string, spec: string, status = ''): string =>
    objectYaml('ServiceEntry', `shop/${name}`, `{resolution: DNS, ${spec}}`, '', status);
  const vips = allocate(
    entry('a', 'hosts: [a.example, b.example]') +
      entry('w', 'hosts: [w.example], addresses: [240.240.0.1]') +
      entry('s', 'hosts: [s.example]', '{addresses: [{host: s.example, value: "2001:2::2"}]}'),
  );
  expect([...vips.addresses]).toEqual([
    ['ServiceEntry shop/a a.example', ['240.240.0.2', '2001:2::1']],
    ['ServiceEntry shop/a b.example', ['240.240.0.3', '2001:2::3']],
  ]);
});

describe('as JSON', () => {
  test('allocations come back', () => {
    const vips = allocate(service('a') + service('b'));
    expect(readVips(JSON.parse(JSON.stringify(writeVips(vips))))).toEqual(vips);
  });

  test('anything else is as good as nothing, never an error', () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => void allocate(service('a'), readVips(value))));
    expect(readVips({ addresses: { x: ['no address', 7] }, next: { y: 'z' } })).toEqual(NO_VIPS);
  });
});

test('no two objects ever have one address', () => {
  const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'), { minLength: 1 });
  const steps = fc.array(fc.tuple(names, fc.boolean()), { maxLength: 8 });
  fc.assert(
    fc.property(steps, (list) => {
      let vips = NO_VIPS;
      for (const [present, clash] of list) {
        const text = present.map((name) => service(name)).join('');
        vips = allocate(text + (clash ? service('w', '{clusterIP: 10.96.1.1}') : ''), vips);
        const given = [...vips.addresses.values()].flat();
        expect(new Set(given).size).toBe(given.length);
        expect(given).toHaveLength(present.length * 2);
        expect(clash && given.includes('10.96.1.1')).toBe(false);
      }
    }),
    { numRuns: 30 },
  );
});
