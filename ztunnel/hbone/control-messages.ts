import { parseConnectionId } from './headers.ts';

/** How one end of a tunnel has come to rest: nothing more is sent, unless the hand-over is given up. */
export interface Rest {
  /** Bytes that were sent on the stream, all in all. */
  readonly sent: number;
  /** The application's own end was sent, too: END_STREAM of before is a FIN. */
  readonly fin: boolean;
}

/** What two ztunnels tell each other on the control stream of a session. IDs are those of connections. */
export type ControlMessage =
  /** This end goes away; it asks to hand these tunnels over. @param number another one each time, from 1 */
  | { readonly kind: 'announce'; readonly number: number; readonly ids: readonly string[] }
  /** @param follows number of the peer's announcement whose decision it waits for; none: who says so decides */
  | ({ readonly kind: 'rested'; readonly id: string; readonly follows?: number | undefined } & Rest)
  /** Both ends rest, and the tunnel is handed over; END_STREAM of after means no more than that the stream is over. */
  | { readonly kind: 'commit'; readonly id: string }
  /** It is not handed over: both ends go on where they stopped. */
  | { readonly kind: 'revert'; readonly id: string };

/** Thrown for what is no message: nothing on the control stream can be trusted any more. */
export class ControlError extends Error {
  override readonly name = 'ControlError';
}

/** A session carries 200 streams at most; an ID has 32 digits. */
const MAX_MESSAGE_BYTES = 16 * 1024;
const MAX_IDS = 256;
const LENGTH_BYTES = 4;

/** Length of what follows in 4 bytes, big endian, then JSON. */
export function encodeControlMessage(message: ControlMessage): Buffer {
  const text = Buffer.from(JSON.stringify(message));
  const frame = Buffer.alloc(LENGTH_BYTES + text.length);
  frame.writeUInt32BE(text.length, 0);
  text.copy(frame, LENGTH_BYTES);
  return frame;
}

/** Takes messages out of the bytes of a control stream, in whatever pieces they come. */
export class ControlReader {
  readonly #count: () => void;
  #pending: Buffer = Buffer.alloc(0);

  /** @param count called for each message, also of a kind that is not known; what it throws is `read`'s */
  constructor(count: () => void = () => undefined) {
    this.#count = count;
  }

  /**
   * Messages that are complete now. Those of a kind that is not known are passed over: a later make may have more to say.
   * @throws ControlError
   */
  read(bytes: Buffer): readonly ControlMessage[] {
    const messages: ControlMessage[] = [];
    let rest = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    while (rest.length >= LENGTH_BYTES) {
      const length = rest.readUInt32BE(0);
      if (length > MAX_MESSAGE_BYTES) throw new ControlError(`a message of ${length} bytes`);
      if (rest.length < LENGTH_BYTES + length) break;
      this.#count();
      const message = decode(rest.subarray(LENGTH_BYTES, LENGTH_BYTES + length));
      if (message !== undefined) messages.push(message);
      rest = rest.subarray(LENGTH_BYTES + length);
    }
    // A copy: the bytes are the caller's again.
    this.#pending = Buffer.from(rest);
    return messages;
  }
}

function decode(bytes: Buffer): ControlMessage | undefined {
  const value = parse(bytes);
  if (typeof value !== 'object' || value === null) throw new ControlError('a message that is no object');
  const { kind, id, ids, sent, fin, number, follows } = value as Readonly<Record<string, unknown>>;
  switch (kind) {
    case 'announce':
      return { kind, number: countOf(number), ids: idsOf(ids) };
    case 'rested':
      if (typeof fin !== 'boolean') throw new ControlError('a rest that is none');
      return {
        kind,
        id: idOf(id),
        sent: countOf(sent),
        fin,
        ...(follows === undefined ? {} : { follows: countOf(follows) }),
      };
    case 'commit':
    case 'revert':
      return { kind, id: idOf(id) };
    default:
      if (typeof kind !== 'string') throw new ControlError('a message of no kind');
      return undefined;
  }
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch (cause) {
    throw new ControlError('a message that is not JSON', { cause });
  }
}

function countOf(value: unknown): number {
  if (!Number.isSafeInteger(value) || Number(value) < 0) throw new ControlError('a number that is none');
  return Number(value);
}

function idsOf(value: unknown): readonly string[] {
  if (!Array.isArray(value) || value.length > MAX_IDS) throw new ControlError('no list of IDs, or too many');
  return value.map(idOf);
}

function idOf(value: unknown): string {
  const id = parseConnectionId(typeof value === 'string' ? value : undefined);
  if (id === undefined) throw new ControlError('an ID that is none');
  return id;
}
