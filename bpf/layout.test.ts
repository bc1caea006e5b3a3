import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import * as layout from './layout.ts';
import { readObject } from './objects.ts';
import { Btf } from './testing-btf.ts';

const objects = [new Btf(readObject('cgroup')), new Btf(readObject('pod'))];
const header = readFileSync(join(import.meta.dirname, 'layout.h'), 'utf8');

describe('as the compiled programs have it', () => {
  test.each([
    ['endpoint', layout.SIZES.endpoint],
    ['flow', layout.SIZES.flow],
    ['pod', layout.SIZES.pod],
    ['listener_key', layout.SIZES.listenerKey],
    ['ztunnel_socket', layout.SIZES.ztunnelSocket],
    ['probe_key', layout.SIZES.probeKey],
    ['counters', layout.SIZES.counters],
  ] as const)('struct %s', (name, size) => {
    const found = objects.map((btf) => btf.struct(name)).filter((struct) => struct !== undefined);
    expect(found.length).toBeGreaterThan(0);
    for (const struct of found) expect(struct).toEqual({ size, offsets: layout.OFFSETS[name] });
  });

  test.each(Object.entries(layout.MAPS))('map %s', (name, expected) => {
    const found = objects.map((btf) => btf.maps().get(name)).filter((map) => map !== undefined);
    expect(found.length).toBeGreaterThan(0);
    for (const map of found)
      expect({
        type: map['type'],
        key: map['key'],
        value: map['value'],
        maxEntries: map['max_entries'] ?? 0,
        flags: map['map_flags'] ?? 0,
      }).toEqual(expected);
  });

  test('no other maps', () => {
    const names = new Set(objects.flatMap((btf) => [...btf.maps().keys()]));
    expect([...names].sort()).toEqual(Object.keys(layout.MAPS).sort());
  });
});

describe('as layout.h has it', () => {
  test.each([
    ['ABI', layout.ABI],
    ['LISTENER_SLOTS', layout.LISTENER_SLOTS],
  ])('%s', (name, value) => {
    expect(Number(new RegExp(`#define ${name} (\\d+)`).exec(header)?.[1])).toBe(value);
  });

  test('flags of a pod', () => {
    const found = [...enumBody('pod_flag').matchAll(/(POD_\w+) = (\d+)/g)].map(([, name, value]) => [
      name,
      Number(value),
    ]);
    expect(Object.fromEntries(found)).toEqual(
      Object.fromEntries(Object.entries(layout).filter(([name]) => name.startsWith('POD_'))),
    );
  });

  test('reasons', () => {
    const found = [...enumBody('reason').matchAll(/^\s*([A-Z_]+),/gm)].map(([, name]) => name?.toLowerCase());
    expect(found).toEqual(layout.REASONS);
  });

  test('kinds of listeners', () => {
    const found = [...enumBody('listener_kind').matchAll(/LISTENER_([A-Z]+)/g)].map(([, name]) => name);
    const kinds = found.map((name) => name?.toLowerCase() as layout.ListenerKind);
    expect(kinds.map((kind) => layout.listenerKey(1n, kind, 0).readUInt32LE(8))).toEqual([0, 1, 2]);
  });

  function enumBody(name: string): string {
    return new RegExp(`enum ${name} \\{([^}]*)\\}`).exec(header)?.[1] ?? '';
  }
});

describe('bytes', () => {
  test('a pod comes back as it was', () => {
    const pod = { flags: layout.POD_STRICT | layout.POD_DNS, ip4: '10.1.2.3', ip6: 'fd00::7' };
    const value = layout.encodePod(pod);
    expect(value.toString('hex')).toBe(
      `1400000000000000${'0'.repeat(20)}ffff0a010203fd00${'0'.repeat(24)}0007`,
    );
    expect(layout.decodePod(value)).toEqual(pod);
    const ofOneFamily = { flags: 0, ip4: undefined, ip6: '::2' };
    expect(layout.decodePod(layout.encodePod(ofOneFamily))).toEqual(ofOneFamily);
  });

  test('keys', () => {
    expect(layout.podKey(0x1122334455667788n).toString('hex')).toBe('8877665544332211');
    expect(layout.listenerKey(5n, 'hbone', 7).toString('hex')).toBe('05000000000000000200000007000000');
    const probe = layout.probeKey(5n, '192.0.2.1', 8080);
    expect(probe.toString('hex')).toBe(`0500000000000000${'0'.repeat(20)}ffffc0000201901f000000000000`);
    expect(layout.podOfKey(probe)).toBe(5n);
  });

  test.each([
    { ip: '10.1.2.3', port: 80 },
    { ip: 'fd00::1', port: 65535 },
  ])('an endpoint comes back as it was: $ip', (address) => {
    const buffer = Buffer.alloc(24, 0xff);
    layout.writeEndpoint(buffer, 2, address);
    buffer.writeUInt16LE(10, 2 + layout.OFFSETS.endpoint.family);
    expect(layout.readEndpoint(buffer, 2)).toEqual(address);
    expect(buffer.readUInt16LE(0)).toBe(0xffff);
  });

  test('a tag shows somebody, or nobody', () => {
    const somebody = layout.encodeZtunnelSocket({ ip: '10.1.2.3', port: 443 });
    expect(layout.readEndpoint(somebody, layout.OFFSETS.ztunnel_socket.shown)).toEqual({
      ip: '10.1.2.3',
      port: 443,
    });
    const nobody = layout.encodeZtunnelSocket();
    expect(layout.readEndpoint(nobody, layout.OFFSETS.ztunnel_socket.shown)).toBeUndefined();
    expect(nobody.readUInt32LE(0)).toBe(1);
  });

  test('counters by reason', () => {
    const value = Buffer.alloc(layout.SIZES.counters);
    value.writeBigUInt64LE(7n, 8 * layout.REASONS.indexOf('egress_raw'));
    const counters = layout.decodeCounters(value);
    expect(counters.size).toBe(layout.REASONS.length);
    expect(counters.get('egress_raw')).toBe(7n);
    expect(counters.get('egress_tcp')).toBe(0n);
  });
});
