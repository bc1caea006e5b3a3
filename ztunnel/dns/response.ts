import { type Ip, ipToBytes } from '#api/address.ts';
import {
  CLASS_IN,
  type DnsQuery,
  FLAG_RESPONSE,
  FLAG_TRUNCATED,
  HEADER_BYTES,
  MASK_OPCODE,
  payloadLimit,
  TYPE,
} from './query.ts';

/** Response codes: RFC 1035 (4.1.1). */
export const RCODE: {
  readonly NOERROR: 0;
  readonly FORMERR: 1;
  readonly SERVFAIL: 2;
  readonly NXDOMAIN: 3;
  readonly NOTIMP: 4;
} = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4 };
export type Rcode = (typeof RCODE)[keyof typeof RCODE];

const FLAG_AUTHORITATIVE = 0x0400;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;
const FLAG_CHECKING_DISABLED = 0x0010;
/** What goes from the query into its response. */
const FLAGS_ECHOED = MASK_OPCODE | FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED;
const DNSSEC_OK = 0x8000;
/** Bytes of a record before its data, with a compressed owner. */
const RECORD_BYTES = 12;

/** Addresses to answer with; `alias`: what the asked name is an alias of. */
export interface AddressAnswer {
  readonly alias?: string;
  readonly addresses: readonly Ip[];
  readonly ttlSeconds: number;
}

/** A response of our own, authoritative; truncated, and marked so, where it exceeds `limit` bytes. */
export function encodeAnswer(query: DnsQuery, answer: AddressAnswer, limit: number): Buffer {
  const question = query.message.subarray(HEADER_BYTES, query.questionEnd);
  const opt = encodeOpt(query);
  const cname = answer.alias === undefined ? [] : [encodeCname(answer.alias, answer.ttlSeconds)];
  const owner = answer.alias === undefined ? HEADER_BYTES : query.questionEnd + RECORD_BYTES;
  const records = [...cname, ...answer.addresses.map((ip) => encodeAddress(owner, ip, answer.ttlSeconds))];
  const fitting = fittingInto(limit - HEADER_BYTES - question.length - opt.length, records);
  const truncated = fitting.length < records.length ? FLAG_TRUNCATED : 0;
  const flags = FLAG_AUTHORITATIVE | truncated;
  return Buffer.concat([
    header(query.message, flags, RCODE.NOERROR, 1, fitting.length, opt.length > 0 ? 1 : 0),
    question,
    ...fitting,
    opt,
  ]);
}

/** A response that says why there is none; that a name does not exist is said with authority. */
export function encodeError(query: DnsQuery, rcode: Rcode): Buffer {
  const opt = encodeOpt(query);
  const flags = rcode === RCODE.NXDOMAIN ? FLAG_AUTHORITATIVE : 0;
  return Buffer.concat([
    header(query.message, flags, rcode, 1, 0, opt.length > 0 ? 1 : 0),
    query.message.subarray(HEADER_BYTES, query.questionEnd),
    opt,
  ]);
}

/** An upstream's response as the client gets it: its ID, not authoritative, cut to what the client takes. */
export function relayResponse(query: DnsQuery, response: Buffer, limit: number): Buffer {
  if (response.length > limit) {
    const opt = encodeOpt(query);
    const rcode = response.readUInt16BE(2) & 0x000f;
    return Buffer.concat([
      header(query.message, FLAG_TRUNCATED, rcode, 1, 0, opt.length > 0 ? 1 : 0),
      query.message.subarray(HEADER_BYTES, query.questionEnd),
      opt,
    ]);
  }
  const relayed = Buffer.from(response);
  relayed.writeUInt16BE(query.message.readUInt16BE(0), 0);
  relayed.writeUInt16BE((response.readUInt16BE(2) & ~FLAG_AUTHORITATIVE) | FLAG_RECURSION_AVAILABLE, 2);
  return relayed;
}

/** A response to a message that could not be read but for its ID. */
export function encodeFormatError(message: Buffer): Buffer {
  return header(message, 0, RCODE.FORMERR, 0, 0, 0);
}

function header(query: Buffer, flags: number, rcode: number, qd: number, an: number, ar: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const echoed = query.readUInt16BE(2) & FLAGS_ECHOED;
  bytes.writeUInt16BE(query.readUInt16BE(0), 0);
  bytes.writeUInt16BE(FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | echoed | flags | rcode, 2);
  bytes.writeUInt16BE(qd, 4);
  bytes.writeUInt16BE(an, 6);
  bytes.writeUInt16BE(ar, 10);
  return bytes;
}

function fittingInto(bytes: number, records: readonly Buffer[]): readonly Buffer[] {
  let total = 0;
  const cut = records.findIndex((each) => {
    total += each.length;
    return total > bytes;
  });
  return cut < 0 ? records : records.slice(0, cut);
}

function encodeAddress(owner: number, ip: Ip, ttlSeconds: number): Buffer {
  const data = ipToBytes(ip);
  return Buffer.concat([
    record(owner, data.length === 4 ? TYPE.A : TYPE.AAAA, ttlSeconds, data.length),
    data,
  ]);
}

function encodeCname(target: string, ttlSeconds: number): Buffer {
  const labels = target.split('.').map((label) => Buffer.from(label, 'latin1'));
  const name = Buffer.concat([...labels.flatMap((label) => [Buffer.of(label.length), label]), Buffer.of(0)]);
  return Buffer.concat([record(HEADER_BYTES, TYPE.CNAME, ttlSeconds, name.length), name]);
}

/** `owner`: offset of its name in the message. */
function record(owner: number, type: number, ttlSeconds: number, dataBytes: number): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES);
  bytes.writeUInt16BE(0xc000 | owner, 0);
  bytes.writeUInt16BE(type, 2);
  bytes.writeUInt16BE(CLASS_IN, 4);
  bytes.writeUInt32BE(ttlSeconds, 6);
  bytes.writeUInt16BE(dataBytes, 10);
  return bytes;
}

/** The client's EDNS, echoed; nothing without it. */
function encodeOpt(query: DnsQuery): Buffer {
  if (query.edns === undefined) return Buffer.alloc(0);
  const bytes = Buffer.alloc(11);
  bytes.writeUInt16BE(TYPE.OPT, 1);
  bytes.writeUInt16BE(payloadLimit(query), 3);
  bytes.writeUInt16BE(query.edns.flags & DNSSEC_OK, 7);
  return bytes;
}
