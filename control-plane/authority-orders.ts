import { z } from 'zod';
import { AuthorityError } from '#certs/authority-files.ts';
import type { MeshAuthority } from './mesh-authority.ts';
import { type Order, OrderRefused } from './status-socket.ts';

const TEXT = z.string().max(256 * 1024);
const IMPORT = z
  .strictObject({
    certificatePem: TEXT,
    keyPem: TEXT,
    chainPem: TEXT.default(''),
    rootPem: TEXT.default(''),
  })
  .readonly();

const REVOKE = z.strictObject({ what: z.string().max(4096), undo: z.boolean().default(false) }).readonly();

/** What an operator may have done to the authority, over the control plane's socket. */
export function authorityOrders(ca: MeshAuthority): ReadonlyMap<string, Order> {
  return new Map<string, Order>([
    ['/ca/rotate', refusing(() => ca.rotate())],
    ['/ca/import', refusing((body) => ca.import(read(IMPORT, body)))],
    [
      '/ca/revoke',
      refusing(async (body) => {
        const { what, undo } = read(REVOKE, body);
        return ca.revoke(what, undo);
      }),
    ],
  ]);
}

function read<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new OrderRefused(z.prettifyError(parsed.error));
}

/** What the authority says no to is said to whoever asked. */
function refusing(order: Order): Order {
  return async (body) => {
    try {
      return await order(body);
    } catch (cause) {
      if (cause instanceof AuthorityError) throw new OrderRefused(cause.message, { cause });
      throw cause;
    }
  };
}
