import { z } from 'zod';

/**
 * How a retiring process and its successor speak of connections: lines of JSON on one Unix socket.
 *
 *     retiring                     successor
 *     hello {pid}           →
 *     offer {connection}    →                     takes the descriptors, and holds them
 *                           ←      taken {id}     or refused {id, reason}: it has none of them
 *     go {id}               →                     from here on it is the successor's, and closed at the other end
 *     withdraw {id}         →                     or: not answered in time; it goes on where it was
 *     outcome {of, outcome} →                     what was not offered, for the figures
 *
 * Bytes are moved by one of both at a time, whoever dies when: without `go` the successor touches nothing, unless the retiring
 * process is gone.
 */
export const HAND_OVER_PROTOCOL = 'tulle-hand-over/1' as const;

const id: z.ZodType<string> = z.string().regex(/^[0-9a-f]{32}$/);
/** A cookie of a socket, decimal; null: there is no descriptor. */
const cookie: z.ZodType<string | null> = z.string().regex(/^\d+$/).nullable();
/** A label of a metric. */
const word: z.ZodType<string> = z.string().regex(/^[a-z_-]{1,60}$/);

/** What a retiring process says. */
export type FromRetiring =
  | { readonly type: 'hello'; readonly pid: number }
  | {
      readonly type: 'offer';
      readonly cookies: readonly (string | null)[];
      /** A carried connection as it is formatted. */
      readonly connection: { readonly id: string };
    }
  | { readonly type: 'go'; readonly id: string }
  | { readonly type: 'withdraw'; readonly id: string }
  | { readonly type: 'outcome'; readonly of: string; readonly outcome: string };

/** What its successor says. */
export type FromSuccessor =
  | { readonly type: 'taken'; readonly id: string }
  | { readonly type: 'refused'; readonly id: string; readonly reason: string };

const FROM_RETIRING: z.ZodType<FromRetiring> = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('hello'), pid: z.number().int().positive() }),
  z.strictObject({
    type: z.literal('offer'),
    cookies: z.array(cookie).max(2),
    connection: z.looseObject({ id }),
  }),
  z.strictObject({ type: z.literal('go'), id }),
  z.strictObject({ type: z.literal('withdraw'), id }),
  z.strictObject({ type: z.literal('outcome'), of: word, outcome: word }),
]);

const FROM_SUCCESSOR: z.ZodType<FromSuccessor> = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('taken'), id }),
  z.strictObject({ type: z.literal('refused'), id, reason: z.string().max(1_000) }),
]);

/** @throws ZodError */
export function parseFromRetiring(message: unknown): FromRetiring {
  return FROM_RETIRING.parse(message);
}

/** @throws ZodError */
export function parseFromSuccessor(message: unknown): FromSuccessor {
  return FROM_SUCCESSOR.parse(message);
}
