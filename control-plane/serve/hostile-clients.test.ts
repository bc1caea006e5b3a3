import { once } from 'node:events';
import type { TLSSocket } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { expect, test, vi } from 'vitest';
import { CLUSTER_TYPE } from '#api/envoy/types.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import { eventually } from '#test/kit/eventually.ts';
import { openRawChannel, openRawTls, type RawDiscovery } from '#test/kit/raw-grpc.ts';
import { policy, workload } from '#test/kit/resources.ts';
import { openTestServer, type TestServer, tokenOf } from './testing.ts';

/** Whoever it is, and whatever it does: the server lives, and node n2 is served. */

const EXHAUSTED = { code: status.RESOURCE_EXHAUSTED };

/** Node n2, on a connection that was there before, or is made now. */
function good(server: TestServer): { readonly isServed: () => Promise<void> } & Disposable {
  const channel = openRawChannel(server);
  const call = channel.discovery(tokenOf('n2'));
  call.send({ typeUrl: AUTHORIZATION_TYPE });
  let revisions = 0;
  return {
    isServed: async () => {
      revisions += 1;
      const name = `policy-${revisions}`;
      server.publish(policy({ name }));
      await eventually('the good client has what was just published', () =>
        call.responses.some(({ resources }) => resources.some((each) => each.name === `default/${name}`)),
      );
      call.send({ typeUrl: AUTHORIZATION_TYPE, responseNonce: call.responses.at(-1)?.nonce ?? '' });
    },
    [Symbol.dispose]: () => channel[Symbol.dispose](),
  };
}

test('millions of names without a letter are refused before they are decoded', async () => {
  await using server = await openTestServer();
  using served = good(server);
  using channel = openRawChannel(server);
  const call = channel.discovery(tokenOf('n1'));
  call.sendBytes(Buffer.alloc(16 * 1024 * 1024, Buffer.from([0x1a, 0])));
  expect(await call.ended).toEqual({ ...EXHAUSTED, details: 'more than 200000 resource names' });
  await served.isServed();
});

test.each([
  { what: 'a field of four bytes', before: 'fd0a01020304' },
  { what: 'a field of eight bytes', before: 'f90a0102030405060708' },
  { what: 'a number', before: 'f80a01' },
  { what: 'a group', before: 'fb0afc0a' },
  { what: 'a length that is longer than it has to be', before: '1a8080808080808080800061' },
])('names do not hide behind $what', async ({ before }) => {
  await using server = await openTestServer({ limits: { maxNames: 100 } });
  server.publish();
  using channel = openRawChannel(server);
  const call = channel.discovery(tokenOf('n1'));
  call.sendBytes(Buffer.concat([Buffer.from(before, 'hex'), Buffer.alloc(1000, Buffer.from([0x1a, 0]))]));
  expect([status.INVALID_ARGUMENT, status.RESOURCE_EXHAUSTED]).toContain((await call.ended).code);
  expect(server.log.filter(({ msg }) => msg === 'client refused')).toMatchObject([
    { reason: expect.stringMatching(/^(more than 100 resource names|not a DeltaDiscoveryRequest)$/) },
  ]);
});

test('what one client names is bounded over all of its streams and requests, and free again when they end', async () => {
  await using server = await openTestServer({ limits: { maxCharacters: 100_000 } });
  using served = good(server);
  server.publish();
  using channel = openRawChannel(server);
  const calls = Array.from({ length: 4 }, () => channel.discovery(tokenOf('n1')));
  const names = (prefix: string): string[] =>
    Array.from({ length: 30 }, (_, i) => `${prefix}-${i}-`.padEnd(1000, 'x'));
  const [first, second, third, fourth] = calls;
  first?.send({ typeUrl: AUTHORIZATION_TYPE, resourceNamesSubscribe: names('a') });
  await eventually('the first is taken', () => (server.discovery.clients()[0]?.xds.length ?? 0) > 0);
  first?.send({ typeUrl: AUTHORIZATION_TYPE, resourceNamesSubscribe: names('b') });
  second?.send({ typeUrl: AUTHORIZATION_TYPE, resourceNamesSubscribe: names('c') });
  expect(await second?.ended).toMatchObject({
    ...EXHAUSTED,
    details: expect.stringMatching(/100000 characters, in 4 streams/),
  });
  third?.send({ typeUrl: AUTHORIZATION_TYPE, resourceNamesSubscribe: ['short'] });
  await eventually('the third is taken', () => (third?.responses.length ?? 0) > 0);
  first?.stream.close();
  await eventually(
    'it is free',
    () => server.log.filter(({ msg }) => msg === 'client disconnected').length >= 2,
  );
  fourth?.send({ typeUrl: AUTHORIZATION_TYPE, resourceNamesSubscribe: names('d') });
  await eventually('the fourth is taken', () => (fourth?.responses.length ?? 0) > 0);
  await served.isServed();
});

test.each([
  {
    what: 'a giant node',
    request: { node: { id: 'x'.repeat(2_000_000) } },
    details: /^node has more than 1048576 bytes$/,
  },
  {
    what: 'a giant name',
    request: { resourceNamesSubscribe: ['x'.repeat(3000)] },
    details: /resource name has more than 2048/,
  },
  {
    what: 'a giant nonce',
    request: { responseNonce: 'x'.repeat(3000) },
    details: /the nonce has more than 2048/,
  },
  { what: 'a giant type', request: { typeUrl: 'x'.repeat(3000) }, details: /the type has more than 2048/ },
])('$what is refused by name', async ({ request, details }) => {
  await using server = await openTestServer();
  server.publish();
  using channel = openRawChannel(server);
  const call = channel.discovery(tokenOf('n1'));
  call.send({ typeUrl: AUTHORIZATION_TYPE, ...request });
  expect(await call.ended).toMatchObject({ ...EXHAUSTED, details: expect.stringMatching(details) });
});

test('what a client says of itself is taken however deep it is, or refused as malformed', async () => {
  await using server = await openTestServer();
  using served = good(server);
  using channel = openRawChannel(server);
  for (const depth of [10, 90, 200, 3000]) {
    const call = channel.discovery(tokenOf('n1'));
    call.sendBytes(nestedNode(depth));
    expect((await call.ended).code).toBe(status.INVALID_ARGUMENT); // Shallow enough: then it is the type that is missing.
  }
  await served.isServed();
});

test('of a thousand streams of one client some are open, and others are told', async () => {
  await using server = await openTestServer();
  using served = good(server);
  using channels = new DisposableStack();
  const calls = Array.from({ length: 10 }, () => channels.use(openRawChannel(server))).flatMap((channel) =>
    Array.from({ length: 100 }, () => channel.discovery(tokenOf('n1'))),
  );
  for (const call of calls) call.send({ typeUrl: AUTHORIZATION_TYPE });
  const refused: { code: number; details: string }[] = [];
  for (const call of calls) void call.ended.then((end) => refused.push(end));
  await eventually('all but 64 are refused', () => refused.length === 936);
  expect(new Set(refused.map(({ code }) => code))).toEqual(new Set([status.RESOURCE_EXHAUSTED]));
  await served.isServed();
});

test('a storm of subscriptions is ended when it has used its share of the processor', async () => {
  await using server = await openTestServer({ limits: { processorMs: { most: 50, perSecond: 1 } } });
  using served = good(server);
  using channel = openRawChannel(server);
  const call = channel.discovery(tokenOf('n1'));
  const names = Array.from({ length: 1000 }, (_, i) => `name-${i}`);
  const storm = setInterval(() => {
    call.send({ typeUrl: ADDRESS_TYPE, resourceNamesSubscribe: [...names, '*'] });
    call.send({ typeUrl: ADDRESS_TYPE, resourceNamesUnsubscribe: [...names, '*'] });
  });
  expect(await call.ended).toMatchObject({
    ...EXHAUSTED,
    details: expect.stringMatching(/take too much time/),
  });
  clearInterval(storm);
  const again = channel.discovery(tokenOf('n1'));
  expect(await again.ended).toMatchObject({
    ...EXHAUSTED,
    details: expect.stringMatching(/node\/n1 take too much time/),
  });
  await served.isServed();
});

test('a client that rejects all and for ever is told nothing twice', async () => {
  await using server = await openTestServer();
  using served = good(server);
  server.publish(workload({}), policy({}));
  using channel = openRawChannel(server);
  const call = channel.discovery(tokenOf('n1'));
  call.send({ typeUrl: AUTHORIZATION_TYPE });
  const nonce = await eventually('it is answered', () => call.responses[0]?.nonce);
  for (let i = 0; i < 1000; i += 1)
    call.send({
      typeUrl: AUTHORIZATION_TYPE,
      responseNonce: nonce,
      errorDetail: { message: 'x'.repeat(10_000) },
    });
  await served.isServed();
  await eventually('what else was published has come', () => call.responses.length === 2);
  expect(server.discovery.clients()[0]?.xds[0]?.rejected.every(({ message }) => message.length <= 2048)).toBe(
    true,
  );
});

test('who does not read is cut after a while, and what waits for it is given up', async () => {
  await using server = await openTestServer({ limits: { longestStallMs: 300, slowestLine: 2 ** 30 } });
  using served = good(server);
  server.publish(...Array.from({ length: 20_000 }, (_, i) => workload({ name: `pod-${i}` })));
  using channel = openRawChannel(server);
  const call = channel.discovery(tokenOf('n1'));
  call.stream.pause();
  call.send({ typeUrl: AUTHORIZATION_TYPE });
  call.send({ typeUrl: ADDRESS_TYPE });
  expect((await call.ended).code).toBe(-1);
  expect(server.log).toContainEqual(
    expect.objectContaining({ msg: 'client cut, as it does not read what it is sent', caller: 'node/n1' }),
  );
  await served.isServed();
});

test('what the streams of one client leave unread is bounded, whatever is published', async () => {
  const limits = { maxUnreadBytes: 40_000_000 };
  await using server = await openTestServer({ limits });
  using served = good(server);
  const large = (revision: string): Workload[] =>
    Array.from({ length: 2000 }, (_, i) =>
      workload({ name: `pod-${i}`, hostname: `${revision}.`.padEnd(10_000, 'x') }),
    );
  server.publish(...large('a'));
  const before = process.memoryUsage();
  using channels = new DisposableStack();
  const calls = Array.from({ length: 64 }, () => {
    const call = channels.use(openRawChannel(server)).discovery(tokenOf('n1'));
    call.stream.pause();
    call.send({ typeUrl: AUTHORIZATION_TYPE });
    // All of it, again and again.
    for (let i = 0; i < 10; i += 1) call.send({ typeUrl: ADDRESS_TYPE, resourceNamesSubscribe: ['*'] });
    return call;
  });
  const refused: string[] = [];
  for (const call of calls) void call.ended.then(({ details }) => refused.push(details));
  await eventually('those beyond the bound are refused', () => refused.length === 62);
  server.publish(...large('b'));
  await served.isServed();
  const { rss, arrayBuffers } = process.memoryUsage();
  // Two hold twenty million bytes each; the other 62 would hold as much, and more each time they ask.
  expect(arrayBuffers - before.arrayBuffers).toBeLessThan(200_000_000);
  expect(rss - before.rss).toBeLessThan(500_000_000);
  const reason = 'node/n1 leaves more than 40000000 bytes unread, in 2 streams';
  expect(new Set(refused)).toEqual(new Set([reason]));
  expect(server.log).toContainEqual(expect.objectContaining({ msg: 'client refused', node: 'n1', reason }));
  expect(server.shortages.current()).toMatchObject([{ subject: 'streams of node/n1', error: reason }]);
  const [held] = calls.filter(({ stream }) => !stream.closed);
  held?.stream.resume();
  await eventually('one that reads again gets what it missed, and nothing twice', () => {
    const addresses = held?.responses.filter(({ typeUrl }) => typeUrl === ADDRESS_TYPE) ?? [];
    const counts = addresses.map(({ resources, removedResources }) => [
      resources.length,
      removedResources.length,
    ]);
    return JSON.stringify(counts) === '[[2000,0],[0,2000]]';
  });
}, 60_000);

test('connections for which there is no room are counted in the log, and a shortage', async () => {
  await using server = await openTestServer({ limits: { maxConnections: 3 } });
  using served = good(server);
  await served.isServed();
  const idle = Array.from({ length: 2 }, () => openRawTls(server).resume());
  for (const socket of idle) await once(socket, 'secureConnect');
  const more = Array.from({ length: 5 }, () => openRawTls(server).resume());
  const error = 'all 3 connections are in use: 2 have shown no token, most are of node/n2 (1)';
  await eventually('they are refused', () => more.every(({ destroyed }) => destroyed));
  expect(server.log.filter(({ msg }) => msg === 'connection refused')).toHaveLength(5);
  expect(server.log).toContainEqual(
    expect.objectContaining({ msg: 'connection refused', peer: '127.0.0.1', reason: error }),
  );
  expect(server.shortages.current()).toMatchObject([{ subject: 'connections', error }]);
  await served.isServed();
  for (const socket of idle) socket.destroy();
});

test('who reads a long message over a slow line gets it', async () => {
  await using server = await openTestServer({ limits: { longestStallMs: 300, slowestLine: 64 * 1024 } });
  server.publish(...Array.from({ length: 20_000 }, (_, i) => workload({ name: `pod-${i}` })));
  using channel = openRawChannel(server);
  const call = channel.discovery(tokenOf('n1'));
  call.stream.pause();
  const isCut = vi.waitFor(
    () => {
      expect(server.log).toContainEqual(
        expect.objectContaining({ caller: 'node/n1', unread: expect.any(Number) }),
      );
    },
    { timeout: 1500 },
  );
  call.send({ typeUrl: AUTHORIZATION_TYPE });
  call.send({ typeUrl: ADDRESS_TYPE });
  await expect(isCut).rejects.toThrow();
  call.stream.resume();
  await eventually('all has come', () => call.responses.some(({ resources }) => resources.length === 20_000));
});

test('messages that never end are bounded over all calls of a caller', async () => {
  await using server = await openTestServer({ limits: { maxPartialBytes: 1_000_000 } });
  using served = good(server);
  using channel = openRawChannel(server);
  const calls = Array.from({ length: 30 }, () => channel.discovery(tokenOf('n1')));
  const begun = Buffer.concat([Buffer.from([0, 1, 0, 0, 0]), Buffer.alloc(60_000)]);
  for (const call of calls) call.stream.write(begun);
  const end = await Promise.race(calls.map((call) => call.ended));
  expect(end).toMatchObject({
    ...EXHAUSTED,
    details: expect.stringMatching(/begun messages of more than 1000000 bytes/),
  });
  await served.isServed();
});

test('connections without a token make room for those with one', async () => {
  await using server = await openTestServer({ limits: { maxUnknownOfAddress: 8, longestUnknownMs: 2000 } });
  const idle: TLSSocket[] = [];
  for (let i = 0; i < 30; i += 1) {
    idle.push(openRawTls(server).resume());
    await once(idle.at(-1) as TLSSocket, 'secureConnect');
  }
  await eventually('the oldest have gone', () => idle.filter(({ destroyed }) => destroyed).length >= 22);
  using served = good(server);
  await served.isServed();
  await eventually('the others go in time', () => idle.every(({ destroyed }) => destroyed));
  await served.isServed();
});

test('two hundred clients behind one address come back at once, and are served', async () => {
  const limits = { maxOfCaller: 1000, maxCalls: 1000, maxStreams: 1000 };
  await using server = await openTestServer({ limits });
  server.publish(policy({}));
  using channels = new DisposableStack();
  const calls = Array.from({ length: 200 }, () => {
    const call = channels.use(openRawChannel(server)).discovery(tokenOf('n1'));
    call.send({ typeUrl: AUTHORIZATION_TYPE });
    return call;
  });
  await eventually('all have it', () => calls.every(({ responses }) => responses.length > 0));
});

test('a connection ends after twenty calls without a valid token', async () => {
  await using server = await openTestServer();
  using served = good(server);
  using channel = openRawChannel(server);
  const ends: number[] = [];
  for (let i = 0; i < 20; i += 1)
    ends.push((await channel.discovery('guess'.padEnd(43, String(i))).ended).code);
  expect(new Set(ends.slice(0, 19))).toEqual(new Set([status.UNAUTHENTICATED]));
  await eventually('it is closed', () => channel.session.destroyed);
  await served.isServed();
});

test.each([
  { of: 'another audience', token: jwtLike({ aud: ['other'] }) },
  { of: 'another cluster', token: jwtLike({ iss: 'https://other.cluster' }) },
  { of: 'the past', token: jwtLike({ exp: 1 }) },
  { of: 'nobody: it is longer than any', token: 'x'.repeat(5000) },
  { of: 'nobody: it is empty', token: '' },
  { of: 'n1, and something more', token: `${tokenOf('n1')}x` },
  { of: 'n1, without its end', token: tokenOf('n1').slice(0, -1) },
  { of: 'n1, with a NUL for its end', token: encodeURIComponent(`${tokenOf('n1')}\0`) },
])('a token of $of opens nothing', async ({ token }) => {
  await using server = await openTestServer();
  server.publish(policy({}));
  using channel = openRawChannel(server);
  const call = channel.discovery(token);
  call.send({ typeUrl: AUTHORIZATION_TYPE });
  expect((await call.ended).code).toBe(status.UNAUTHENTICATED);
  expect(call.responses).toEqual([]);
});

test('a waypoint named by a node and a node named by a waypoint get nothing of each other', async () => {
  await using server = await openTestServer();
  server.publish(workload({}));
  using channel = openRawChannel(server);
  const calls: readonly [RawDiscovery, string][] = [
    [channel.discovery(tokenOf('n1')), CLUSTER_TYPE],
    [channel.discovery(tokenOf('alpha/gate')), ADDRESS_TYPE],
  ];
  for (const [call, typeUrl] of calls) {
    call.send({ typeUrl, node: { metadata: { NODE_NAME: 'n2' } } });
    expect((await call.ended).code).toBe(status.PERMISSION_DENIED);
  }
});

/** What a Kubernetes API server signs looks so; here it is signed by nobody. */
function jwtLike(claims: Readonly<Record<string, unknown>>): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part({ sub: 'system:serviceaccount:istio-system:ztunnel', ...claims })}.`;
}

/** A request with a node whose metadata is lists in lists, written from the inside out. */
function nestedNode(depth: number): Buffer {
  const field = (tag: number, content: Uint8Array): Buffer =>
    Buffer.concat([Uint8Array.of(tag, ...varint(content.length)), content]);
  let value: Buffer = Buffer.from([0x08, 0x00]);
  for (let level = 0; level < depth; level += 1) value = field(0x32, field(0x0a, value));
  const entry = field(0x0a, Buffer.concat([field(0x0a, Buffer.from('k')), field(0x12, value)]));
  return field(0x0a, field(0x1a, entry));
}

function varint(value: number): readonly number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >> 7)];
}
