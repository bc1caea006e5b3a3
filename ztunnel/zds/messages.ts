import type { PodInfo } from '../worker-messages.ts';

/**
 * The messages of ZDS, ambient's protocol between node agent and ztunnel (zds.proto; fact sheet ambient-wire.md, 6.1). Each
 * is one packet of a SEQPACKET socket, at most {@link MAX_MESSAGE_BYTES}, without a length in front.
 */

/** Both ends of the field read into buffers of this size. */
export const MAX_MESSAGE_BYTES: number = 1024;
/** The only version there is: `V1`. */
export const ZDS_VERSION: number = 1;

/** Node agent to ztunnel; each is answered by one {@link Ack}. */
export type WorkloadRequest =
  /** A pod to serve. Its network namespace travels with the packet, as the only descriptor. */
  | { readonly kind: 'add'; readonly pod: PodInfo }
  /** A pod that is to be left as it is; only before `snapshot-sent`. */
  | { readonly kind: 'keep'; readonly uid: string }
  | { readonly kind: 'del'; readonly uid: string }
  /** Every pod of the node has been named. */
  | { readonly kind: 'snapshot-sent' };

/** Ztunnel to node agent. `error` empty: done. */
export interface Ack {
  readonly error: string;
}

/** What went wrong between node agent and ztunnel; `code` is stable. */
export class ZdsError extends Error {
  override readonly name = 'ZdsError';
  readonly code: ZdsErrorCode;

  constructor(message: string, options: { readonly code: ZdsErrorCode; readonly cause?: unknown }) {
    super(message, options);
    this.code = options.code;
  }
}

/**
 * `malformed`: not a message of that kind. `protocol`: not now. `timeout`: no answer. `closed`: the other end went away.
 * `not-connected`: no ztunnel is there. `refused`: the other end answered with an error, which is the message.
 * `address`: the socket's path cannot be used.
 */
export type ZdsErrorCode =
  | 'malformed'
  | 'protocol'
  | 'timeout'
  | 'closed'
  | 'not-connected'
  | 'refused'
  | 'address';

/** The ztunnel's first packet. */
export function encodeHello(version: number = ZDS_VERSION): Uint8Array {
  return Uint8Array.from([0x08, version]);
}

/** The version that a hello names; 0 when it names none. @throws ZdsError */
export function decodeHello(bytes: Uint8Array): number {
  return (
    fieldsOf(bytes, 'ZdsHello').findLast((field) => field.number === 1 && 'varint' in field)?.varint ?? 0
  );
}

/** @throws ZdsError when it would be too long */
export function encodeRequest(request: WorkloadRequest): Uint8Array {
  const bytes = requestBytes(request);
  if (bytes.length <= MAX_MESSAGE_BYTES) return bytes;
  throw malformed(`the ${request.kind} message has ${bytes.length} bytes; ${MAX_MESSAGE_BYTES} are allowed`);
}

function requestBytes(request: WorkloadRequest): Uint8Array {
  switch (request.kind) {
    case 'add': {
      const { uid, name, namespace, serviceAccount } = request.pod;
      const info = Buffer.concat([text(1, name), text(2, namespace), text(3, serviceAccount)]);
      return message(1, Buffer.concat([text(1, uid), message(2, info)]));
    }
    case 'del':
      return message(2, text(2, request.uid));
    case 'snapshot-sent':
      return message(3, new Uint8Array());
    case 'keep':
      return message(5, text(1, request.uid));
  }
}

/** @throws ZdsError */
export function decodeRequest(bytes: Uint8Array): WorkloadRequest {
  const payload = fieldsOf(bytes, 'WorkloadRequest').findLast(({ number }) => [1, 2, 3, 5].includes(number));
  const body = payload?.bytes;
  if (payload === undefined || body === undefined)
    throw malformed('WorkloadRequest has no payload that is known here');
  switch (payload.number) {
    case 1:
      return { kind: 'add', pod: decodePod(body) };
    case 2:
      return { kind: 'del', uid: required(body, 2, 'DelWorkload.uid') };
    case 3:
      return { kind: 'snapshot-sent' };
    default:
      return { kind: 'keep', uid: required(body, 1, 'KeepWorkload.uid') };
  }
}

function decodePod(bytes: Uint8Array): PodInfo {
  const info = fieldsOf(bytes, 'AddWorkload').findLast(({ number }) => number === 2)?.bytes;
  if (info === undefined) throw malformed('AddWorkload.workload_info is missing');
  return {
    uid: required(bytes, 1, 'AddWorkload.uid'),
    name: required(info, 1, 'WorkloadInfo.name'),
    namespace: required(info, 2, 'WorkloadInfo.namespace'),
    serviceAccount: required(info, 3, 'WorkloadInfo.service_account'),
  };
}

/** An error that is too long is cut. */
export function encodeAck(ack: Ack): Uint8Array {
  const error = Buffer.from(ack.error, 'utf8').subarray(0, MAX_MESSAGE_BYTES - 32);
  return message(
    1,
    ack.error === '' ? new Uint8Array() : text(1, error.toString('utf8').replace(/\uFFFD+$/, '')),
  );
}

/** @throws ZdsError */
export function decodeAck(bytes: Uint8Array): Ack {
  const ack = fieldsOf(bytes, 'WorkloadResponse').findLast(({ number }) => number === 1)?.bytes;
  if (ack === undefined) throw malformed('WorkloadResponse.ack is missing');
  return { error: textField(ack, 1, 'Ack.error') };
}

/** A field of a protobuf message: a number or bytes (text, a message); other wire types are skipped. */
interface Field {
  readonly number: number;
  readonly varint?: number;
  readonly bytes?: Uint8Array;
}

function required(bytes: Uint8Array, number: number, what: string): string {
  const value = textField(bytes, number, what);
  if (value === '') throw malformed(`${what} is missing`);
  return value;
}

function textField(bytes: Uint8Array, number: number, what: string): string {
  const field = fieldsOf(bytes, what).findLast((candidate) => candidate.number === number);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(field?.bytes);
  } catch (cause) {
    throw new ZdsError(`${what} is not UTF-8`, { code: 'malformed', cause });
  }
}

const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

function fieldsOf(bytes: Uint8Array, what: string): readonly Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw malformed(`${what} ends within a number`);
  };
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) throw malformed(`${what} ends within a field`);
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = varint();
    const number = Math.floor(key / 8);
    if (key % 8 === VARINT) fields.push({ number, varint: varint() });
    else if (key % 8 === LENGTH_DELIMITED) fields.push({ number, bytes: take(varint()) });
    else if (key % 8 === FIXED64) take(8);
    else if (key % 8 === FIXED32) take(4);
    else throw malformed(`${what} has a field of wire type ${key % 8}`);
  }
  return fields;
}

function text(number: number, value: string): Uint8Array {
  return message(number, Buffer.from(value, 'utf8'));
}

function message(number: number, body: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from([number * 8 + LENGTH_DELIMITED, ...lengthBytes(body.length)]), body]);
}

function lengthBytes(length: number): readonly number[] {
  return length < 0x80 ? [length] : [(length & 0x7f) | 0x80, ...lengthBytes(Math.floor(length / 0x80))];
}

function malformed(message: string): ZdsError {
  return new ZdsError(message, { code: 'malformed' });
}
