import fc from 'fast-check';
import { expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import type { TunnelStream } from './stream.ts';
import { CONNECT, connectionPair, OK, request, SETTINGS } from './testing.ts';

/** Windows that are always nearly shut, so that every write is cut somewhere. */
const NARROW = { ...SETTINGS, streamWindowBytes: 70_000, connectionWindowBytes: 100_000, frameBytes: 16_384 };

/** Byte at a place of the stream with that number: tells a byte that is lost, twice there, or another stream's. */
function byteAt(stream: number, place: number): number {
  return (place * 31 + (place >> 8) * 7 + stream * 101) & 0xff;
}

function pieceOf(stream: number, from: number, size: number): Buffer {
  const piece = Buffer.alloc(size);
  for (let at = 0; at < size; at++) piece[at] = byteAt(stream, from + at);
  return piece;
}

/** Writes pieces one after the other, as the leg takes them, and then the end. */
function feed(leg: TunnelStream, number: number, sizes: readonly number[]): { readonly onDrain: () => void } {
  let next = 0;
  let place = 0;
  const push = (): void => {
    for (; next < sizes.length; ) {
      const size = sizes[next++] ?? 0;
      const piece = pieceOf(number, place, size);
      place += size;
      const goesOn = leg.write(piece);
      // What was written is the writer's again at once.
      piece.fill(0);
      if (!goesOn) return;
    }
    leg.end();
  };
  queueMicrotask(push);
  return { onDrain: push };
}

test('every byte of every stream arrives once, in order, whatever the sizes, windows and stops', async () => {
  const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 200_000 })), {
    minLength: 1,
    maxLength: 12,
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(sizes, { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 7 }),
      async (streams, stop) => {
        const ended: string[] = [];
        const pair = await connectionPair(
          (stream) => {
            pair.server.respond(stream, OK, false);
            const number = (stream.id - 1) / 2;
            const total = (streams[number] ?? []).reduce((sum, size) => sum + size, 0);
            let received = 0;
            let pieces = 0;
            stream.start({
              onData: (bytes) => {
                const isRight = bytes.equals(pieceOf(number, received, bytes.length));
                if (!isRight) ended.push(`stream ${number} is wrong after ${received}`);
                received += bytes.length;
                pieces += 1;
                if (pieces % stop !== 0) return;
                stream.pause();
                setImmediate(() => stream.resume());
              },
              onEnd: () => ended.push(received === total ? 'whole' : `${received} of ${total}`),
              onDrain: () => undefined,
              onFinish: () => undefined,
              onAbort: (reason) => ended.push(reason),
            });
          },
          { client: NARROW, server: NARROW },
        );
        for (const [number, each] of streams.entries()) {
          const { stream, answer } = request(pair.client, CONNECT);
          void answer.then(() => {
            const { onDrain } = feed(stream, number, each);
            stream.start({
              onData: () => undefined,
              onEnd: () => undefined,
              onDrain,
              onFinish: () => undefined,
              onAbort: (reason) => ended.push(reason),
            });
          });
        }
        await eventually('all have ended', () => ended.length >= streams.length);
        expect(ended).toEqual(streams.map(() => 'whole'));
        pair.client.close('done');
      },
    ),
    { numRuns: 30 },
  );
});

// Around what a connection takes at once: of the first, more or less of it is left to be sent when there is room again.
test.each([500_000, 540_000, 580_000, 640_000])(
  'what a writer of %i bytes writes as soon as there is room again is sent, and its end',
  async (first) => {
    const ended: number[] = [];
    const pair = await connectionPair((stream) => {
      pair.server.respond(stream, OK, false);
      let received = 0;
      stream.start({
        onData: (bytes) => {
          received += bytes.length;
        },
        onEnd: () => ended.push(received),
        onDrain: () => undefined,
        onFinish: () => undefined,
        onAbort: () => undefined,
      });
    });
    const { stream, answer } = request(pair.client, CONNECT);
    await answer;
    const { onDrain } = feed(stream, 0, [first, 10]);
    stream.start({
      onData: () => undefined,
      onEnd: () => undefined,
      onDrain,
      onFinish: () => undefined,
      onAbort: () => undefined,
    });
    await eventually('the end', () => ended.length === 1);
    expect(ended).toEqual([first + 10]);
    pair.client.close('done');
  },
);
