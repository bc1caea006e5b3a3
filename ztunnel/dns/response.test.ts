import packet from 'dns-packet';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type DnsQuery, isResponseTo, payloadLimit, readQuery } from './query.ts';
import { encodeAnswer, encodeError, encodeFormatError, RCODE, relayResponse } from './response.ts';

function query(fields: packet.Packet = {}): DnsQuery {
  const message = packet.encode({
    type: 'query',
    id: 4711,
    flags: packet.RECURSION_DESIRED,
    questions: [{ name: 'Catalog.shop', type: 'A' }],
    ...fields,
  });
  const incoming = readQuery(message);
  if (incoming.kind !== 'query') throw new TypeError(`not a query: ${incoming.kind}`);
  return incoming.query;
}

const opt = (udpPayloadSize: number, flag_do = false): packet.Answer => ({
  type: 'OPT',
  name: '.',
  udpPayloadSize,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: flag_do ? packet.DNSSEC_OK : 0,
  flag_do,
  options: [],
});

test('a query is read with its name as written, its type, its EDNS', () => {
  expect(query({ additionals: [opt(1232)] })).toMatchObject({
    name: 'Catalog.shop',
    type: 'A',
    isStandard: true,
    edns: { payload: 1232 },
  });
});

test('an answer repeats the question and carries the addresses, authoritative, for the given time', () => {
  const answer = encodeAnswer(query(), { addresses: ['10.96.1.1', '10.96.1.2'], ttlSeconds: 30 }, 512);
  expect(packet.decode(answer)).toMatchObject({
    type: 'response',
    id: 4711,
    rcode: 'NOERROR',
    flag_aa: true,
    flag_ra: true,
    flag_rd: true,
    flag_tc: false,
    questions: [{ name: 'Catalog.shop', type: 'A' }],
    answers: [
      { name: 'Catalog.shop', type: 'A', ttl: 30, class: 'IN', data: '10.96.1.1' },
      { name: 'Catalog.shop', type: 'A', ttl: 30, class: 'IN', data: '10.96.1.2' },
    ],
    additionals: [],
  });
});

test('an alias comes before the addresses of what it stands for', () => {
  const answer = encodeAnswer(
    query({ questions: [{ name: 'catalog.shop.shop.svc.cluster.local', type: 'AAAA' }] }),
    { alias: 'catalog.shop', addresses: ['fd00:10:96::1'], ttlSeconds: 30 },
    512,
  );
  expect(packet.decode(answer).answers).toMatchObject([
    { name: 'catalog.shop.shop.svc.cluster.local', type: 'CNAME', data: 'catalog.shop' },
    { name: 'catalog.shop', type: 'AAAA', data: 'fd00:10:96::1' },
  ]);
});

test('EDNS is echoed, with at least 512 bytes and the DNSSEC flag', () => {
  const answer = encodeAnswer(
    query({ additionals: [opt(100, true)] }),
    { addresses: [], ttlSeconds: 30 },
    512,
  );
  expect(packet.decode(answer).additionals).toMatchObject([
    { type: 'OPT', udpPayloadSize: 512, flag_do: true },
  ]);
  expect(packet.decode(encodeError(query({ additionals: [opt(4096)] }), RCODE.SERVFAIL))).toMatchObject({
    rcode: 'SERVFAIL',
    additionals: [{ udpPayloadSize: 4096 }],
  });
});

test('that a name does not exist is said with authority', () => {
  expect(packet.decode(encodeError(query(), RCODE.NXDOMAIN))).toMatchObject({
    rcode: 'NXDOMAIN',
    flag_aa: true,
    answers: [],
  });
});

const MANY = Array.from({ length: 100 }, (_, index) => `10.0.0.${index}`);

test.each([
  { when: 'without EDNS', additionals: [], bytes: 512 },
  { when: 'with EDNS', additionals: [opt(1232)], bytes: 1232 },
])('an answer that is too large $when is cut at a record and marked', ({ additionals, bytes }) => {
  const asked = query({ additionals });
  const answer = encodeAnswer(asked, { addresses: MANY, ttlSeconds: 30 }, payloadLimit(asked));
  const decoded = packet.decode(answer);
  expect(answer.length).toBeLessThanOrEqual(bytes);
  expect(answer.length).toBeGreaterThan(bytes - 16);
  expect(decoded.flag_tc).toBe(true);
  expect(decoded.additionals).toHaveLength(additionals.length);
});

test('a relayed response has the client’s ID, is not authoritative and otherwise untouched', () => {
  const response = packet.encode({
    type: 'response',
    id: 1,
    flags: packet.AUTHORITATIVE_ANSWER | 3,
    questions: [{ name: 'catalog.SHOP', type: 'A' }],
    answers: [{ name: 'catalog.shop', type: 'A', ttl: 77, data: '192.0.2.1' }],
  });
  expect(isResponseTo(query(), 1, response)).toBe(true);
  expect(packet.decode(relayResponse(query(), response, 512))).toMatchObject({
    id: 4711,
    flag_aa: false,
    flag_ra: true,
    rcode: 'NXDOMAIN',
    answers: [{ ttl: 77, data: '192.0.2.1' }],
  });
});

test('a relayed response that is too large for the client is replaced by a truncated one', () => {
  const answers = MANY.map((data) => ({ name: 'catalog.shop', type: 'A' as const, data }));
  const response = packet.encode({
    type: 'response',
    questions: [{ name: 'catalog.shop', type: 'A' }],
    answers,
  });
  const relayed = relayResponse(query(), response, 512);
  expect(packet.decode(relayed)).toMatchObject({ id: 4711, flag_tc: true, answers: [] });
});

test.each([
  { when: 'of another ID', id: 2, name: 'catalog.shop', type: 'A' as const },
  { when: 'to another question', id: 1, name: 'other.shop', type: 'A' as const },
  { when: 'of another type', id: 1, name: 'catalog.shop', type: 'AAAA' as const },
])('a response $when is not taken', ({ id, name, type }) => {
  const response = packet.encode({ type: 'response', id, questions: [{ name, type }] });
  expect(isResponseTo(query(), 1, response)).toBe(false);
});

test.each([
  { when: 'it is too short', message: Buffer.alloc(11), kind: 'ignored' },
  { when: 'it is a response', message: packet.encode({ type: 'response', questions: [] }), kind: 'ignored' },
  { when: 'it has no question', message: packet.encode({ type: 'query' }), kind: 'malformed' },
  {
    when: 'it has two questions',
    message: packet.encode({
      type: 'query',
      questions: [
        { name: 'a', type: 'A' },
        { name: 'b', type: 'A' },
      ],
    }),
    kind: 'malformed',
  },
  {
    when: 'its name points at itself',
    message: Buffer.from('000001000001000000000000c00c00010001', 'hex'),
    kind: 'malformed',
  },
  {
    when: 'its records are cut off',
    message: packet
      .encode({
        type: 'query',
        questions: [{ name: 'a', type: 'A' }],
        additionals: [opt(1232)],
      })
      .subarray(0, -4),
    kind: 'malformed',
  },
])('a message is $kind when $when', ({ message, kind }) => {
  expect(readQuery(message).kind).toBe(kind);
});

test('a malformed query gets its ID back with a format error', () => {
  const message = Buffer.from('123401000001000000000000c00c00010001', 'hex');
  expect(packet.decode(encodeFormatError(message))).toMatchObject({
    id: 0x1234,
    rcode: 'FORMERR',
    questions: [],
  });
});

test('whatever bytes come in, reading and answering them does not throw', () => {
  const bytes = fc.uint8Array({ maxLength: 80 });
  const almost = fc.tuple(fc.nat({ max: 40 }), bytes).map(([at, noise]) => {
    const message = Buffer.from(query({ additionals: [opt(1232)] }).message);
    message.set(noise.subarray(0, Math.max(0, message.length - at)), at);
    return message;
  });
  fc.assert(
    fc.property(
      fc.oneof(
        bytes.map((each) => Buffer.from(each)),
        almost,
      ),
      (message) => {
        const incoming = readQuery(message);
        if (incoming.kind === 'malformed') encodeFormatError(message);
        if (incoming.kind !== 'query') return;
        encodeAnswer(
          incoming.query,
          { addresses: ['10.0.0.1'], ttlSeconds: 1 },
          payloadLimit(incoming.query),
        );
        encodeError(incoming.query, RCODE.SERVFAIL);
      },
    ),
    { numRuns: 5000 },
  );
});
