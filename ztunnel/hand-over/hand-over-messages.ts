import { z } from 'zod';

/**
 * How a retiring process and its successor speak of connections: lines of JSON on one Unix socket.
 *
 *     retiring                         successor
 *     hello {pid}               →
 *     offer {number, connection} →                takes the descriptors, and holds them
 *                               ←      taken {number}     or refused {number, reason}: it has none of them
 *     go {number}               →                 from here on it is the successor's, and closed at the other end
 *     withdraw {number}         →                 or: not answered in time; it goes on where it was
 *     outcome {of, outcome}     →                 what was not offered, for the figures
 *
 * Bytes are moved by one of both at a time, whoever dies when. Without `go` the successor touches nothing, unless the retiring
 * process is gone and has left it on offer (`system.ts`). Each offer has a number of its own: an ID may come again, and an answer
 * that is late is not to be taken for the next one's.
 */
export const HAND_OVER_PROTOCOL = 'tulle-hand-over/2' as const;

const number: z.ZodType<number> = z.number().int().positive();
/** A cookie of a socket, decimal; null: there is no descriptor. */
const cookie: z.ZodType<string | null> = z.string().regex(/^\d+$/).nullable();
/** A label of a metric. */
const word: z.ZodType<string> = z.string().regex(/^[a-z_-]{1,60}$/);

/** What a retiring process says. */
export type FromRetiring =
  | { readonly type: 'hello'; readonly pid: number }
  | {
      readonly type: 'offer';
      readonly number: number;
      readonly cookies: readonly (string | null)[];
      /** A carried connection as it is formatted. */
      readonly connection: object;
    }
  | { readonly type: 'go'; readonly number: number }
  | { readonly type: 'withdraw'; readonly number: number }
  | { readonly type: 'outcome'; readonly of: string; readonly outcome: string };

/** What its successor says. */
export type FromSuccessor =
  | { readonly type: 'taken'; readonly number: number }
  | { readonly type: 'refused'; readonly number: number; readonly reason: string };

const FROM_RETIRING: z.ZodType<FromRetiring> = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('hello'), pid: z.number().int().positive() }),
  z.strictObject({
    type: z.literal('offer'),
    cookies: z.array(cookie).max(2),
    number,
    connection: z.looseObject({}),
  }),
  z.strictObject({ type: z.literal('go'), number }),
  z.strictObject({ type: z.literal('withdraw'), number }),
  z.strictObject({ type: z.literal('outcome'), of: word, outcome: word }),
]);

const FROM_SUCCESSOR: z.ZodType<FromSuccessor> = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('taken'), number }),
  z.strictObject({ type: z.literal('refused'), number, reason: z.string().max(1_000) }),
]);

/** @throws ZodError */
export function parseFromRetiring(message: unknown): FromRetiring {
  return FROM_RETIRING.parse(message);
}

/** @throws ZodError */
export function parseFromSuccessor(message: unknown): FromSuccessor {
  return FROM_SUCCESSOR.parse(message);
}
