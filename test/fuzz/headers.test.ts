import fc from 'fast-check';
import { expect, test } from 'vitest';
import { AddressError, formatHostPort, ipFromBytes, ipToBytes, parseCidr, parseIp } from '#api/address.ts';
import { formatIdentity, IdentityError, parseIdentity } from '#certs/identity.ts';
import { parseAuthority } from '#ztunnel/hbone/authority.ts';
import {
  newTraceparent,
  parseBaggage,
  parseConnectionId,
  parseForwardedClient,
  parseForwardedHost,
} from '#ztunnel/hbone/headers.ts';
import { proxyHeader } from '#ztunnel/proxy-protocol.ts';
import { always, outcomeOf, textNear } from './fuzz.ts';

test('an authority is an address or a name with a port, and is the same when it is written again', () => {
  always(
    textNear('10.0.0.1:80', '[fd00::1]:65535', 'catalog.shop:8080', '*.example:1', '[::ffff:10.0.0.1]:80'),
    (text) => {
      const authority = parseAuthority(text);
      if (authority === undefined) return;
      const again =
        authority.kind === 'address'
          ? formatHostPort(authority.address)
          : `${authority.hostname}:${authority.port}`;
      expect(parseAuthority(again)).toEqual(authority);
      expect(again).not.toMatch(/[\s/@\0]/);
    },
  );
});

test('an address is one, and is the same when it is written again', () => {
  always(textNear('10.0.0.1', 'fd00::1', '::ffff:1.2.3.4', '1::', '010.1.1.1'), (text) => {
    const ip = outcomeOf(() => parseIp(text), AddressError);
    if (ip !== undefined) expect([parseIp(ip), ipFromBytes(ipToBytes(ip))]).toEqual([ip, ip]);
  });
});

test('a network is one, or an AddressError', () => {
  always(textNear('10.0.0.0/8', 'fd00::/64', '0.0.0.0/0', '10.0.0.1'), (text) => {
    const cidr = outcomeOf(() => parseCidr(text), AddressError);
    if (cidr !== undefined) expect(cidr.length).toBeLessThanOrEqual(128);
  });
});

test('a SPIFFE ID keeps to its grammar, and is the same when it is written again', () => {
  const samples = [
    'spiffe://cluster.local/ns/shop/sa/web',
    'spiffe://a/ns/../sa/b',
    `spiffe://${'a'.repeat(255)}/ns/a/sa/b`,
  ];
  always(textNear(...samples), (text) => {
    const identity = outcomeOf(() => parseIdentity(text), IdentityError);
    if (identity === undefined) return;
    expect(formatIdentity(identity)).toBe(text);
    expect(text).toMatch(/^spiffe:\/\/[a-z0-9._-]{1,255}\/ns\/[\w.-]+\/sa\/[\w.-]+$/);
    expect(text.length).toBeLessThanOrEqual(2048);
  });
});

test('baggage is short text under known names', () => {
  const sample =
    'k8s.cluster.name=c,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,cloud.region=r';
  always(textNear(sample, '=,=,,='), (text) => {
    for (const value of Object.values(parseBaggage(text))) expect(value.length).toBeLessThanOrEqual(253);
  });
});

test('a forwarded header has a host, an address, or nothing', () => {
  always(
    textNear('for="10.0.0.1:40000";host=catalog.shop', 'for="[fd00::1]:1";proto=http, for=x'),
    (text) => {
      const client = parseForwardedClient(text);
      if (client !== undefined)
        expect(parseAuthority(formatHostPort(client))).toMatchObject({ kind: 'address' });
      expect(parseForwardedHost(text)?.length ?? 0).toBeLessThanOrEqual(4096);
    },
  );
});

test('an ID is 32 hexadecimal digits, or none; one of ours never is a traceparent', () => {
  always(textNear('0123456789abcdef0123456789abcdef', newTraceparent()), (text) => {
    const id = parseConnectionId(text);
    if (id !== undefined) expect(id).toMatch(/^[0-9a-f]{32}$/);
  });
});

test('a PROXY header says who called, and its lengths fit', () => {
  const address = fc.record({ ip: fc.oneof(fc.ipV4(), fc.ipV6()).map(parseIp), port: fc.nat(65_535) });
  const identity = fc.stringMatching(/^spiffe:\/\/[a-z.]{1,60}\/ns\/[a-z]{1,63}\/sa\/[a-z]{1,253}$/);
  always(fc.tuple(address, address, identity), ([source, destination, text]) => {
    const header = proxyHeader(source, destination, text);
    expect(header.readUInt16BE(14)).toBe(header.length - 16);
    const addresses = header[13] === 0x11 ? 12 : 36;
    expect(header.readUInt16BE(16 + addresses - 4)).toBe(source.port);
    expect(header.readUInt16BE(16 + addresses + 1)).toBe(text.length);
    expect(header.subarray(16 + addresses + 3).toString()).toBe(text);
  });
});
