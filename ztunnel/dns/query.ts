/** Numbers of the wire format: RFC 1035 (3.2.2, 4.1.1), RFC 3596, RFC 6891. */
export const HEADER_BYTES = 12 as const;
export const TYPE: { readonly A: 1; readonly CNAME: 5; readonly AAAA: 28; readonly OPT: 41 } = {
  A: 1,
  CNAME: 5,
  AAAA: 28,
  OPT: 41,
};
export const CLASS_IN = 1 as const;
export const FLAG_RESPONSE = 0x8000 as const;
export const FLAG_TRUNCATED = 0x0200 as const;
export const MASK_OPCODE = 0x7800 as const;
/** Types that logs and metrics name; the rest is `other`, so that clients cannot make up labels. */
const TYPE_NAMES: ReadonlyMap<number, string> = new Map([
  [1, 'A'],
  [2, 'NS'],
  [5, 'CNAME'],
  [6, 'SOA'],
  [12, 'PTR'],
  [15, 'MX'],
  [16, 'TXT'],
  [28, 'AAAA'],
  [33, 'SRV'],
  [35, 'NAPTR'],
  [43, 'DS'],
  [48, 'DNSKEY'],
  [64, 'SVCB'],
  [65, 'HTTPS'],
  [255, 'ANY'],
]);
/** Payload of a UDP message without EDNS. */
const PLAIN_PAYLOAD = 512;

/** A query as far as we look into it; everything else travels as bytes. */
export interface DnsQuery {
  readonly message: Buffer;
  /** As it was asked, no last dot; bytes that are not ASCII stand as they are (latin1). */
  readonly name: string;
  /** `A`, `AAAA` …; `other` for what has no name here or is not of class IN. */
  readonly type: string;
  /** Whether it is a standard query. */
  readonly isStandard: boolean;
  /** End of the question in the message. */
  readonly questionEnd: number;
  readonly edns?: { readonly payload: number; readonly flags: number };
}

/** What came in: a query, something that gets a FORMERR, or something that gets no answer. */
export type Incoming =
  | { readonly kind: 'query'; readonly query: DnsQuery }
  | { readonly kind: 'malformed' }
  | { readonly kind: 'ignored' };

/** Reads a message from a client. Never throws. */
export function readQuery(message: Buffer): Incoming {
  if (message.length < HEADER_BYTES || (message.readUInt16BE(2) & FLAG_RESPONSE) !== 0)
    return { kind: 'ignored' };
  const question = message.readUInt16BE(4) === 1 ? readQuestion(message) : undefined;
  const additional = question && readAdditional(message, question.end);
  if (question === undefined || additional === undefined) {
    return { kind: 'malformed' };
  }
  const query = {
    message,
    name: question.name,
    type: (question.class === CLASS_IN ? TYPE_NAMES.get(question.type) : undefined) ?? 'other',
    isStandard: (message.readUInt16BE(2) & MASK_OPCODE) === 0,
    questionEnd: question.end,
  };
  return {
    kind: 'query',
    query: additional.edns === undefined ? query : { ...query, edns: additional.edns },
  };
}

/** Largest message that the client takes over UDP. */
export function payloadLimit({ edns }: DnsQuery): number {
  return Math.max(PLAIN_PAYLOAD, edns?.payload ?? PLAIN_PAYLOAD);
}

/** Whether a message is the response to a request with that ID and question (in whatever case). */
export function isResponseTo(query: DnsQuery, id: number, response: Buffer): boolean {
  if (response.length < query.questionEnd || response.readUInt16BE(0) !== id) return false;
  if ((response.readUInt16BE(2) & FLAG_RESPONSE) === 0) return false;
  const asked = query.message.toString('latin1', HEADER_BYTES, query.questionEnd).toLowerCase();
  return response.toString('latin1', HEADER_BYTES, query.questionEnd).toLowerCase() === asked;
}

/** Whether the TC bit of a response is set. */
export function isTruncated(response: Buffer): boolean {
  return (response.readUInt16BE(2) & FLAG_TRUNCATED) !== 0;
}

/** A copy of the message under another ID. */
export function withId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}

interface Question {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  readonly end: number;
}

/** Undefined for a name that is too long, cut off or compressed (there is nothing before it to point at). */
function readQuestion(message: Buffer): Question | undefined {
  const labels: string[] = [];
  let at = HEADER_BYTES;
  for (let length = message[at]; length !== 0; length = message[at]) {
    if (length === undefined || length > 63 || at + length > HEADER_BYTES + 254) return undefined;
    labels.push(message.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  if (at + 5 > message.length) return undefined;
  return {
    name: labels.join('.'),
    type: message.readUInt16BE(at + 1),
    class: message.readUInt16BE(at + 3),
    end: at + 5,
  };
}

interface Additional {
  readonly edns?: { readonly payload: number; readonly flags: number };
}

/** Walks over the records behind the question in search of EDNS; undefined if they are cut off. */
function readAdditional(message: Buffer, start: number): Additional | undefined {
  const records = message.readUInt16BE(6) + message.readUInt16BE(8) + message.readUInt16BE(10);
  let at: number | undefined = start;
  let found: Additional = {};
  for (let record = 0; record < records; record += 1) {
    at = skipName(message, at);
    if (at === undefined || at + 10 > message.length) return undefined;
    const end: number = at + 10 + message.readUInt16BE(at + 8);
    if (end > message.length) return undefined;
    if (message.readUInt16BE(at) === TYPE.OPT) {
      found = { edns: { payload: message.readUInt16BE(at + 2), flags: message.readUInt16BE(at + 6) } };
    }
    at = end;
  }
  return found;
}

function skipName(message: Buffer, start: number): number | undefined {
  let at = start;
  for (let length = message[at]; length !== undefined; length = message[at]) {
    if (length === 0) return at + 1;
    if (length >= 0xc0) return at + 2;
    if (length > 63) return undefined;
    at += 1 + length;
  }
  return undefined;
}
