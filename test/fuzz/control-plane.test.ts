import { once } from 'node:events';
import type { TLSSocket } from 'node:tls';
import type { MessageInitShape } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DELTA_METHOD, encodeRequest } from '#api/discovery.ts';
import { CLUSTER_TYPE, SECRET_TYPE } from '#api/envoy/types.ts';
import type { DeltaDiscoveryRequestSchema } from '#api/gen/envoy/service/discovery/v3/discovery_pb.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import { openTestServer, type TestServer, tokenOf } from '#control-plane/serve/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { openRawChannel, openRawTls, type RawChannel, type RawDiscovery } from '#test/kit/raw-grpc.ts';
import { policy, workload } from '#test/kit/resources.ts';
import {
  FLAG,
  FRAME,
  headersFrames,
  PREFACE,
  pingFrame,
  resetFrame,
  settingsFrame,
  windowUpdateFrame,
  writeFrameHeader,
} from '#ztunnel/hbone/frames.ts';
import { alwaysAsync, bytesNear } from './fuzz.ts';

/** The real server, over TLS: whatever node n1 says, node n2 is served. */

let server: TestServer;
let channel: RawChannel;
let n2: RawDiscovery;
let revision = 0;
beforeAll(async () => {
  server = await openTestServer({
    limits: { processorMs: { most: 1e9, perSecond: 1 }, calls: { most: 1e9, perSecond: 1 }, maxRefused: 1e9 },
  });
  channel = openRawChannel(server);
  n2 = channel.discovery(tokenOf('n2'));
  n2.send({ typeUrl: AUTHORIZATION_TYPE });
});
afterAll(async () => {
  channel[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
});

async function n2IsServed(): Promise<void> {
  revision += 1;
  const name = `policy-${revision}`;
  server.publish(workload({}), policy({ name }));
  await eventually('node n2 has what was just published', () =>
    n2.responses.some(({ resources }) => resources.some((each) => each.name === `default/${name}`)),
  );
  n2.send({ typeUrl: AUTHORIZATION_TYPE, responseNonce: n2.responses.at(-1)?.nonce ?? '' });
}

type Request = MessageInitShape<typeof DeltaDiscoveryRequestSchema>;
const name = fc.oneof(
  fc.constantFrom('*', '', 'default/p', '__proto__', 'Kubernetes//Pod/default/echo-1'),
  fc.string(),
);
const names = fc.array(name, { maxLength: 5 });
const request: fc.Arbitrary<Request> = fc.record(
  {
    typeUrl: fc.constantFrom(
      ADDRESS_TYPE,
      AUTHORIZATION_TYPE,
      SECRET_TYPE,
      CLUSTER_TYPE,
      '',
      'type.googleapis.com/x',
    ),
    resourceNamesSubscribe: names,
    resourceNamesUnsubscribe: names,
    initialResourceVersions: fc.dictionary(name, fc.string(), { maxKeys: 4 }),
    responseNonce: fc.constantFrom('', '1', '2', '3', '99999999999999999999', 'x'),
    errorDetail: fc.record({ message: fc.string({ maxLength: 60 }) }),
    node: fc.record({
      id: fc.string(),
      metadata: fc.constantFrom({}, { NODE_NAME: 'n1' }, { NODE_NAME: 'n2' }, { NODE_NAME: 7 }),
    }),
  },
  { requiredKeys: ['typeUrl'] },
);
const sample = encodeRequest({ typeUrl: ADDRESS_TYPE, resourceNamesSubscribe: ['*'], responseNonce: '1' });

test('any requests in any order end a stream with a status, or are answered', async () => {
  const message = fc.oneof(
    { weight: 4, arbitrary: request.map((each) => encodeRequest(each)) },
    { weight: 1, arbitrary: bytesNear(sample) },
  );
  await alwaysAsync(
    fc.array(message, { minLength: 1, maxLength: 12 }),
    async (messages) => {
      using client = openRawChannel(server);
      const call = client.discovery(tokenOf('n1'));
      for (const bytes of messages) call.sendBytes(bytes);
      call.stream.end();
      const { code } = await call.ended;
      expect([0, 3, 7, 8]).toContain(code); // OK, INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED.
      await n2IsServed();
    },
    30,
  );
});

test('any bytes in the place of gRPC end a call with a status', async () => {
  await alwaysAsync(
    fc.tuple(
      bytesNear(Buffer.concat([Buffer.from([0, 0, 0, 0, sample.length]), sample])),
      fc.constantFrom('gzip', 'deflate', 'identity', 'x'),
    ),
    async ([bytes, encoding]) => {
      using client = openRawChannel(server);
      const headers = { authorization: `Bearer ${tokenOf('n1')}`, 'grpc-encoding': encoding };
      const call = client.call(DELTA_METHOD, headers);
      call.stream.resume();
      call.stream.end(bytes);
      expect((await call.ended).code).toBeGreaterThanOrEqual(-1);
    },
    60,
  );
  await n2IsServed();
});

const CALL = [
  [':method', 'POST'],
  [':scheme', 'https'],
  [':path', DELTA_METHOD],
  [':authority', 'a'],
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
  ['authorization', `Bearer ${tokenOf('n1')}`],
] as const;
const headers = (streamId: number): Buffer =>
  headersFrames(streamId, CALL, { endStream: false, maxFrameSize: 16_384 });

function frame(type: number, flags: number, streamId: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(9 + payload.length);
  writeFrameHeader(bytes, 0, { length: payload.length, type, flags, streamId });
  payload.copy(bytes, 9);
  return bytes;
}

const odd = (i: number): number => 2 * i + 1;

test.each<{ what: string; times: number; piece: (i: number) => Buffer; endsIt: boolean }>([
  {
    what: 'streams that are reset at once',
    times: 20_000,
    endsIt: true,
    piece: (i) => Buffer.concat([headers(odd(i)), resetFrame(odd(i), 'CANCEL')]),
  },
  { what: 'pings', times: 50_000, endsIt: false, piece: () => pingFrame(Buffer.alloc(8), false) },
  { what: 'settings', times: 50_000, endsIt: false, piece: () => settingsFrame([[4, 65_535]]) },
  {
    what: 'empty data',
    times: 50_000,
    endsIt: true,
    piece: (i) => (i === 0 ? headers(1) : frame(FRAME.DATA, 0, 1)),
  },
  {
    what: 'a header block that never ends',
    times: 20_000,
    endsIt: true,
    piece: (i) => frame(i === 0 ? FRAME.HEADERS : FRAME.CONTINUATION, 0, 1, Buffer.alloc(100, 0x82)),
  },
  {
    what: 'windows that overflow',
    times: 4,
    endsIt: true,
    piece: (i) => (i === 0 ? headers(1) : windowUpdateFrame(0, 0x7fffffff)),
  },
  { what: 'streams without number', times: 20_000, endsIt: false, piece: (i) => headers(odd(i)) },
  {
    what: 'frames of unknown types',
    times: 50_000,
    endsIt: false,
    piece: () => frame(0xfe, 0xff, 0, Buffer.alloc(20)),
  },
  {
    what: 'padding longer than its frame',
    times: 2,
    endsIt: true,
    piece: (i) => (i === 0 ? headers(1) : frame(FRAME.DATA, FLAG.PADDED, 1, Buffer.from([200]))),
  },
  {
    what: 'priorities',
    times: 50_000,
    endsIt: false,
    piece: () => frame(FRAME.PRIORITY, 0, 1, Buffer.from([0, 0, 0, 3, 1])),
  },
])('a flood of $what leaves the server to others', async ({ times, piece, endsIt }) => {
  const socket = openRawTls(server);
  await once(socket, 'secureConnect');
  socket.resume();
  const closed = once(socket, 'close');
  socket.write(Buffer.concat([PREFACE, settingsFrame([])]));
  const flood = pour(socket, times, piece);
  await n2IsServed();
  await flood;
  if (endsIt) await closed;
  await n2IsServed();
  socket.destroy();
});

/** Writes as fast as it is read; resolves when all is written or the other end has gone. */
async function pour(socket: TLSSocket, times: number, piece: (i: number) => Buffer): Promise<void> {
  for (let at = 0; at < times && !socket.destroyed; at += 500) {
    const pieces = Array.from({ length: Math.min(500, times - at) }, (_, i) => piece(at + i));
    if (socket.write(Buffer.concat(pieces))) continue;
    await Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => undefined);
  }
}
