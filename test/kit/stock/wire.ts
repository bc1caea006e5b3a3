/** Protobuf's wire format by hand: bytes are compared with recordings here, and read as a stranger would read them. */

interface Field {
  readonly number: number;
  readonly value: bigint | Buffer;
}

/** A message whose schema the reader knows by field numbers. */
export class Message {
  readonly #fields: readonly Field[];

  /** @throws Error when the bytes are no message */
  constructor(bytes: Uint8Array) {
    this.#fields = readFields(Buffer.from(bytes));
  }

  /** Field numbers in the order in which they are written. */
  get numbers(): readonly number[] {
    return this.#fields.map(({ number }) => number);
  }

  bytes(number: number): readonly Buffer[] {
    return this.#values(number).filter((value) => typeof value !== 'bigint');
  }

  texts(number: number): readonly string[] {
    return this.bytes(number).map((value) => value.toString('utf8'));
  }

  /** Empty when the field is not there, as proto3 has it. */
  text(number: number): string {
    return this.texts(number).at(-1) ?? '';
  }

  messages(number: number): readonly Message[] {
    return this.bytes(number).map((value) => new Message(value));
  }

  message(number: number): Message | undefined {
    return this.messages(number).at(-1);
  }

  /** Repeated integers, packed or not. */
  integers(number: number): readonly number[] {
    return this.#values(number).flatMap((value) =>
      typeof value === 'bigint' ? Number(value) : readPacked(value),
    );
  }

  /** Zero when the field is not there. */
  integer(number: number): number {
    return this.integers(number).at(-1) ?? 0;
  }

  #values(number: number): readonly (bigint | Buffer)[] {
    return this.#fields.filter((field) => field.number === number).map(({ value }) => value);
  }
}

/** A length-delimited field: text, bytes or a message. */
export function bytesField(number: number, value: string | Uint8Array): Buffer {
  const body = Buffer.from(value as string, 'utf8');
  return Buffer.concat([varint(BigInt(number * 8 + 2)), varint(BigInt(body.length)), body]);
}

/** A varint field. */
export function integerField(number: number, value: number): Buffer {
  return Buffer.concat([varint(BigInt(number * 8)), varint(BigInt(value))]);
}

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return Buffer.from([...bytes, Number(rest)]);
}

function readFields(bytes: Buffer): readonly Field[] {
  const fields: Field[] = [];
  let at = 0;
  const next = (): bigint => {
    const { value, end } = readVarint(bytes, at);
    at = end;
    return value;
  };
  const take = (length: number): Buffer => {
    if (at + length > bytes.length) throw new Error('a field goes past the end of its message');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = Number(next());
    const number = key >> 3;
    if (number === 0) throw new Error('there is no field 0');
    if ((key & 7) === 0) fields.push({ number, value: next() });
    else if ((key & 7) === 2) fields.push({ number, value: take(Number(next())) });
    else throw new Error(`field ${number} has wire type ${key & 7}, which no message here uses`);
  }
  return fields;
}

function readPacked(bytes: Buffer): readonly number[] {
  const values: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const { value, end } = readVarint(bytes, at);
    values.push(Number(value));
    at = end;
  }
  return values;
}

function readVarint(bytes: Buffer, start: number): { readonly value: bigint; readonly end: number } {
  let value = 0n;
  for (let at = start, shift = 0n; at < bytes.length && shift < 70n; at++, shift += 7n) {
    const byte = bytes[at] ?? 0;
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return { value, end: at + 1 };
  }
  throw new Error('a number goes past the end of its message');
}
