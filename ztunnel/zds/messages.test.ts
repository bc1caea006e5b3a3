import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  decodeAck,
  decodeHello,
  decodeRequest,
  encodeAck,
  encodeHello,
  encodeRequest,
  MAX_MESSAGE_BYTES,
  type WorkloadRequest,
  ZdsError,
} from './messages.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytes = (text: string): Uint8Array => Buffer.from(text, 'hex');

test("a stock ztunnel's hello, byte by byte", () => {
  expect(hex(encodeHello())).toBe('0801');
  expect(decodeHello(bytes('0801'))).toBe(1);
  expect(decodeHello(bytes(''))).toBe(0);
});

// Recorded between a stock ztunnel and a node agent.
test.each<{ request: WorkloadRequest; recorded: string }>([
  {
    request: { kind: 'add', pod: { uid: 'u-c', name: 'c', namespace: 'default', serviceAccount: 'c' } },
    recorded: '0a160a03752d63120f0a0163120764656661756c741a0163',
  },
  {
    request: { kind: 'add', pod: { uid: 'u-s1', name: 's1', namespace: 'default', serviceAccount: 's' } },
    recorded: '0a180a04752d733112100a027331120764656661756c741a0173',
  },
  { request: { kind: 'snapshot-sent' }, recorded: '1a00' },
  // Not recorded; from zds.proto: the uid of a deletion is field 2.
  { request: { kind: 'del', uid: 'u-c' }, recorded: '12051203752d63' },
  { request: { kind: 'keep', uid: 'u-c' }, recorded: '2a050a03752d63' },
])('$request.kind as a stock ztunnel was sent it', ({ request, recorded }) => {
  expect(hex(encodeRequest(request))).toBe(recorded);
  expect(decodeRequest(bytes(recorded))).toEqual(request);
});

const BIND_ERROR =
  'failure to start proxy : Bind([::]:15008, Os { code: 98, kind: AddrInUse, message: "Address already in use" })';

test.each([
  { ack: { error: '' }, recorded: '0a00' },
  {
    ack: { error: BIND_ERROR },
    recorded:
      '0a700a6e6661696c75726520746f2073746172742070726f7879203a2042696e64285b3a3a5d3a31353030382c204f73207b20636f64653a2039382c206b696e643a2041646472496e5573652c206d6573736167653a20224164647265737320616c726561647920696e2075736522207d29',
  },
])("a stock ztunnel's ack, byte by byte: $ack.error", ({ ack, recorded }) => {
  expect(hex(encodeAck(ack))).toBe(recorded);
  expect(decodeAck(bytes(recorded))).toEqual(ack);
});

test('a long error is cut to fit, not within a character', () => {
  const encoded = encodeAck({ error: 'ä'.repeat(2000) });
  expect(encoded.length).toBeLessThanOrEqual(MAX_MESSAGE_BYTES);
  expect(decodeAck(encoded).error).toMatch(/^ä{400,}$/);
});

test('fields that are not known are skipped', () => {
  expect(decodeRequest(bytes('30013a0161390000000000000000450000000012051203752d63'))).toEqual({
    kind: 'del',
    uid: 'u-c',
  });
});

test.each([
  { what: 'nothing', message: '', says: 'no payload' },
  { what: 'a payload that is not known', message: '3a00', says: 'no payload' },
  { what: 'a truncated field', message: '0a160a03', says: 'ends within a field' },
  { what: 'a truncated number', message: '0a80', says: 'ends within a number' },
  { what: 'an endless number', message: 'ff'.repeat(20), says: 'ends within a number' },
  { what: 'a wrong wire type', message: '0b', says: 'wire type 3' },
  { what: 'no workload_info', message: '0a050a03752d63', says: 'workload_info is missing' },
  { what: 'no uid', message: '1200', says: 'DelWorkload.uid is missing' },
  { what: 'text that is not UTF-8', message: '12041202c328', says: 'not UTF-8' },
])('$what is malformed', ({ message, says }) => {
  expect(() => decodeRequest(bytes(message))).toThrow(says);
});

test('a pod whose names do not fit is refused by the sender', () => {
  const pod = { uid: 'u', name: 'n'.repeat(1100), namespace: 'd', serviceAccount: 's' };
  expect(() => encodeRequest({ kind: 'add', pod })).toThrow('1024 are allowed');
});

test('any bytes decode or are refused as malformed', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (message) => {
      for (const decode of [decodeRequest, decodeAck, decodeHello]) {
        try {
          decode(message);
        } catch (error) {
          expect(error).toBeInstanceOf(ZdsError);
        }
      }
    }),
  );
});
