import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  ControlError,
  type ControlMessage,
  ControlReader,
  encodeControlMessage,
} from './control-messages.ts';

const id = fc.stringMatching(/^[0-9a-f]{32}$/);
const message: fc.Arbitrary<ControlMessage> = fc.oneof(
  fc.record({
    kind: fc.constant('announce' as const),
    number: fc.maxSafeNat(),
    ids: fc.array(id, { maxLength: 200 }),
  }),
  fc.record(
    {
      kind: fc.constant('rested' as const),
      id,
      sent: fc.maxSafeNat(),
      fin: fc.boolean(),
      follows: fc.maxSafeNat(),
    },
    { requiredKeys: ['kind', 'id', 'sent', 'fin'] },
  ),
  fc.record({ kind: fc.constantFrom('commit' as const, 'revert' as const), id }),
);

/** Reads bytes in pieces of these sizes, over and over. */
function readInPieces(bytes: Buffer, sizes: readonly number[]): readonly ControlMessage[] {
  const reader = new ControlReader();
  const messages: ControlMessage[] = [];
  for (let at = 0, piece = 0; at < bytes.length; piece++) {
    const size = sizes[piece % sizes.length] ?? 1;
    const view = Buffer.from(bytes.subarray(at, at + size));
    messages.push(...reader.read(view));
    // What was read is its owner's again at once.
    view.fill(0);
    at += size;
  }
  return messages;
}

function framed(text: string): Buffer {
  const frame = Buffer.alloc(4 + text.length);
  frame.writeUInt32BE(text.length, 0);
  frame.write(text, 4);
  return frame;
}

test('messages come out as they went in, however their bytes are cut', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }),
      (messages, sizes) => {
        expect(readInPieces(Buffer.concat(messages.map(encodeControlMessage)), sizes)).toEqual(messages);
      },
    ),
  );
});

test('whatever bytes come, there are messages or an error that says so', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 100 })), (pieces) => {
      const reader = new ControlReader();
      try {
        for (const piece of pieces) reader.read(Buffer.from(piece));
      } catch (error) {
        expect(error).toBeInstanceOf(ControlError);
      }
    }),
  );
});

test('a message of a kind that is not known is passed over', () => {
  const known: ControlMessage = { kind: 'commit', id: 'a'.repeat(32) };
  const bytes = Buffer.concat([framed('{"kind":"later","x":[1]}'), encodeControlMessage(known)]);
  expect(new ControlReader().read(bytes)).toEqual([known]);
});

test('messages are counted, whatever their kind, before they are looked at', () => {
  let left = 3;
  const reader = new ControlReader(() => {
    if (left-- === 0) throw new RangeError('too many');
  });
  const unknown = framed('{"kind":"later"}');
  expect(reader.read(Buffer.concat([unknown, unknown, unknown]))).toEqual([]);
  expect(() => reader.read(unknown)).toThrow('too many');
});

test.each([
  { what: 'not JSON', text: '{' },
  { what: 'no object', text: '7' },
  { what: 'null', text: 'null' },
  { what: 'without a kind', text: '{}' },
  { what: 'with an ID that is too short', text: '{"kind":"commit","id":"abc"}' },
  { what: 'with an ID that is a list', text: '{"kind":"revert","id":["a"]}' },
  { what: 'with no list of IDs', text: '{"kind":"announce","number":1,"ids":"abc"}' },
  { what: 'with no number', text: '{"kind":"announce","ids":[]}' },
  {
    what: 'with too many IDs',
    text: `{"kind":"announce","number":1,"ids":${JSON.stringify(Array(257).fill('a'))}}`,
  },
  {
    what: 'with fewer bytes than none',
    text: `{"kind":"rested","id":"${'a'.repeat(32)}","sent":-1,"fin":true}`,
  },
  {
    what: 'that follows something else',
    text: `{"kind":"rested","id":"${'a'.repeat(32)}","sent":1,"fin":true,"follows":"1"}`,
  },
  { what: 'without an end', text: `{"kind":"rested","id":"${'a'.repeat(32)}","sent":1}` },
])('a message $what is refused', ({ text }) => {
  expect(() => new ControlReader().read(framed(text))).toThrow(ControlError);
});

test('a message that would be long is refused before it has come', () => {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(16 * 1024 + 1, 0);
  expect(() => new ControlReader().read(head)).toThrow('16385 bytes');
});
