import type { ByteTunnel } from '../exchange.ts';

/** How two tunnels that were joined ended: whose end broke, if one did, or that they were cut. */
export type TunnelEnd =
  | { readonly kind: 'complete' }
  | { readonly kind: 'aborted'; readonly side: 'downstream' | 'upstream'; readonly reason: string }
  | { readonly kind: 'cut'; readonly reason: string };

/**
 * Copies both ways between two tunnels until both directions have ended, or one end breaks: then the other is reset.
 * @param onEnd called once
 * @returns resets both
 */
export function joinTunnels(
  downstream: ByteTunnel,
  upstream: ByteTunnel,
  onEnd: (end: TunnelEnd) => void,
): (reason: string) => void {
  let open = 2;
  let isOver = false;
  const finish = (end: TunnelEnd): void => {
    if (isOver) return;
    isOver = true;
    onEnd(end);
  };
  const connect = (from: ByteTunnel, to: ByteTunnel, side: 'downstream' | 'upstream'): void =>
    from.start({
      onData: (chunk) => {
        if (!to.write(chunk)) from.pause();
      },
      onEnd: () => {
        to.end();
        if (--open === 0) finish({ kind: 'complete' });
      },
      onDrain: () => to.resume(),
      onAbort: (reason) => {
        if (isOver) return;
        finish({ kind: 'aborted', side, reason });
        to.abort();
      },
    });
  connect(upstream, downstream, 'upstream');
  connect(downstream, upstream, 'downstream');
  return (reason) => {
    if (isOver) return;
    finish({ kind: 'cut', reason });
    downstream.abort();
    upstream.abort();
  };
}
