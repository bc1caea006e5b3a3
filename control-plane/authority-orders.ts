import { AuthorityError } from '#certs/authority-files.ts';
import type { MeshAuthority } from './mesh-authority.ts';
import { type Order, OrderRefused } from './status-socket.ts';

/** What an operator may have done to the authority, over the control plane's socket. */
export function authorityOrders(ca: MeshAuthority): ReadonlyMap<string, Order> {
  return new Map<string, Order>([['/ca/rotate', refusing(() => ca.rotate())]]);
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
