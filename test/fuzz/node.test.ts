import { Readable } from 'node:stream';
import { encode } from 'dns-packet';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ZodError } from 'zod';
import { AddressError } from '#api/address.ts';
import { decodeCounters, decodePod, encodePod, readEndpoint, SIZES } from '#bpf/layout.ts';
import { readSockaddr } from '#ztunnel/capture/native.ts';
import { framed, readFramed } from '#ztunnel/dns/framing.ts';
import { isResponseTo, payloadLimit, readQuery } from '#ztunnel/dns/query.ts';
import { encodeAnswer, encodeError, encodeFormatError, RCODE, relayResponse } from '#ztunnel/dns/response.ts';
import { CarriedError, formatCarried, parseCarried } from '#ztunnel/hand-over/carried.ts';
import { parseFromRetiring, parseFromSuccessor } from '#ztunnel/hand-over/hand-over-messages.ts';
import { OfferError, parseOffer } from '#ztunnel/hand-over/offer.ts';
import {
  decodeAck,
  decodeHello,
  decodeRequest,
  encodeAck,
  encodeHello,
  encodeRequest,
  ZdsError,
} from '#ztunnel/zds/messages.ts';
import { always, alwaysAsync, bytesNear, inPieces, outcomeOf, textNear } from './fuzz.ts';

test('a message of ZDS is one, or a ZdsError; it is the same when it is written again', () => {
  const pod = { uid: 'u-1', name: 'web-0', namespace: 'shop', serviceAccount: 'web' };
  const samples = [
    encodeRequest({ kind: 'add', pod }),
    encodeRequest({ kind: 'keep', uid: 'u-1' }),
    encodeRequest({ kind: 'del', uid: 'u-1' }),
    encodeRequest({ kind: 'snapshot-sent' }),
    encodeAck({ error: 'no' }),
    encodeHello(),
  ];
  always(bytesNear(...samples), (bytes) => {
    const request = outcomeOf(() => decodeRequest(bytes), ZdsError);
    if (request !== undefined) expect(decodeRequest(encodeRequest(request))).toEqual(request);
    const ack = outcomeOf(() => decodeAck(bytes), ZdsError);
    if (ack !== undefined && ack.error.length < 300) expect(decodeAck(encodeAck(ack))).toEqual(ack);
    outcomeOf(() => decodeHello(bytes), ZdsError);
  });
});

const QUERY = encode({
  type: 'query',
  id: 7,
  flags: 256,
  questions: [{ type: 'A', name: 'catalog.shop' }],
  additionals: [
    {
      type: 'OPT',
      name: '.',
      udpPayloadSize: 1232,
      extendedRcode: 0,
      ednsVersion: 0,
      flags: 0,
      flag_do: false,
      options: [],
    },
  ],
});
const ANSWER = encode({
  type: 'response',
  id: 7,
  flags: 384,
  questions: [{ type: 'A', name: 'catalog.shop' }],
  answers: [{ type: 'A', name: 'catalog.shop', ttl: 30, data: '10.0.0.1' }],
});

test('whatever asks is answered in its own limit, or not at all', () => {
  always(bytesNear(QUERY, ANSWER), (message) => {
    const incoming = readQuery(message);
    if (incoming.kind === 'malformed') expect(encodeFormatError(message)).toHaveLength(12);
    if (incoming.kind !== 'query') return;
    const { query } = incoming;
    const limit = payloadLimit(query);
    expect(query.name.length).toBeLessThanOrEqual(254);
    const addresses = Array.from({ length: 60 }, (_, i) => `10.0.0.${i}`);
    expect(encodeAnswer(query, { addresses, ttlSeconds: 30 }, limit).length).toBeLessThanOrEqual(limit);
    expect(encodeError(query, RCODE.SERVFAIL).length).toBeLessThanOrEqual(limit);
  });
});

test('whatever a name server answers reaches a client only as an answer to what it asked', () => {
  const incoming = readQuery(QUERY);
  if (incoming.kind !== 'query') throw new TypeError('the query is one');
  always(bytesNear(ANSWER), (response) => {
    if (!isResponseTo(incoming.query, 7, response)) return;
    const relayed = relayResponse(incoming.query, response, 512);
    expect(relayed.length).toBeLessThanOrEqual(512);
    expect(relayed.readUInt16BE(0)).toBe(7);
  });
});

test('messages over TCP are the same in whatever pieces they come', async () => {
  const bytes = bytesNear(Buffer.concat([framed(QUERY), framed(ANSWER)]));
  const read = async (pieces: readonly Buffer[]): Promise<readonly string[]> => {
    const messages: string[] = [];
    for await (const message of readFramed(Readable.from(pieces))) messages.push(message.toString('hex'));
    return messages;
  };
  await alwaysAsync(inPieces(bytes), async ({ whole, pieces }) => {
    expect(await read(pieces)).toEqual(await read([whole]));
  });
});

test('an offer of sockets is one, or an OfferError', () => {
  const sockets = [{ protocol: 'tcp', address: { ip: '10.0.0.1', port: 15_001 }, fd: 7 }];
  const sample = JSON.stringify({ pid: 12, netns: '4:4026532', sockets });
  always(textNear(sample, '[]', 'null', '[['), (text) => {
    const offer = outcomeOf(() => parseOffer(text), OfferError);
    for (const { fd } of offer?.sockets ?? []) expect(fd).toBeGreaterThanOrEqual(0);
  });
});

test('a carried connection is one, or a CarriedError; it is the same when it is written again', () => {
  const end = { address: '10.0.0.1:80', identity: 'spiffe://a/ns/b/sa/c' };
  const written = formatCarried({
    id: '0123456789abcdef0123456789abcdef',
    kind: 'passthrough',
    podUid: 'u-1',
    record: {
      facts: { direction: 'outbound', source: end, destination: end, security: 'unknown' },
      info: {
        podUid: 'u-1',
        direction: 'outbound',
        source: '10.0.0.1:1',
        destination: '10.0.0.2:2',
        protocol: 'TCP',
      },
      openedAtMs: 1,
      told: { received: 0, sent: 0 },
    },
    sockets: [{ fd: 9, hasEnded: false, hasFinished: true, unsent: Buffer.from('rest') }],
  });
  const sample = JSON.stringify(written);
  expect(formatCarried(parseCarried(JSON.parse(sample)))).toEqual(written);
  always(textNear(sample, '{}', 'null'), (text) => {
    const value: unknown = outcomeOf(() => JSON.parse(text), SyntaxError);
    const carried = outcomeOf(() => parseCarried(value), CarriedError);
    if (carried !== undefined)
      expect(parseCarried(JSON.parse(JSON.stringify(formatCarried(carried))))).toEqual(carried);
  });
});

test('what two processes tell each other of connections is one of their messages, or a ZodError', () => {
  const id = '0123456789abcdef0123456789abcdef';
  const samples = [
    { type: 'hello', pid: 1 },
    { type: 'offer', cookies: ['1', null], connection: { id } },
    { type: 'go', id },
    { type: 'outcome', of: 'passthrough', outcome: 'drained_late' },
    { type: 'taken', id },
    { type: 'refused', id, reason: 'no' },
  ];
  always(textNear(...samples.map((sample) => JSON.stringify(sample))), (text) => {
    const value: unknown = outcomeOf(() => JSON.parse(text), SyntaxError);
    for (const parse of [parseFromRetiring, parseFromSuccessor]) {
      const message = outcomeOf(() => parse(value), ZodError);
      if (message !== undefined) expect(parse(JSON.parse(JSON.stringify(message)))).toEqual(message);
    }
  });
});

test('records of eBPF maps and addresses of the kernel are read whatever they hold', () => {
  const whole = (bytes: number) =>
    fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((each) => Buffer.from(each));
  always(
    fc.tuple(whole(SIZES.pod), whole(SIZES.ztunnelSocket), whole(4096), whole(28)),
    ([pod, socket, counters, from]) => {
      const read = decodePod(pod);
      expect(decodePod(encodePod(read))).toEqual(read);
      readEndpoint(socket, 0);
      for (const count of decodeCounters(counters).values()) expect(count).toBeGreaterThanOrEqual(0n);
      outcomeOf(() => readSockaddr(from), AddressError);
    },
  );
});
