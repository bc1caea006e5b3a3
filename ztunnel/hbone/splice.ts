import type { Leg } from './leg.ts';

/** Which end of a splice: `downstream` is towards the caller. */
export type Side = 'downstream' | 'upstream';

/** How a splice ended. */
export type SpliceEnd =
  | { readonly kind: 'complete' }
  /** One end broke; the other was reset, so that what is missing shows. */
  | { readonly kind: 'aborted'; readonly side: Side; readonly reason: string }
  /** By {@link Splice.cut}. */
  | { readonly kind: 'cut'; readonly reason: string };

/** Two ends that are being copied to each other. */
export interface Splice {
  /** Resets both ends. */
  readonly cut: (reason: string) => void;
  /**
   * Writes nothing more to one end, and takes all that comes from it however slow the other is, up to a few megabytes; until
   * `proceed`. What the other end has to say meanwhile waits with it.
   */
  readonly halt: (side: Side) => void;
  readonly proceed: () => void;
  /** Forgets both ends, which somebody else has by now: nobody is told of an end. */
  readonly release: () => void;
  /** Bytes from downstream to upstream, and back, so far. */
  readonly bytes: () => { readonly received: number; readonly sent: number };
}

/** What an end that is halted may have sent before it heard of it: its window, and what it had queued. */
const MOST_AFTER_HALT = 8 * 1024 * 1024;

/**
 * Copies both ways between two ends until both directions have ended or one end breaks. Either end is read only as fast as
 * the other takes it.
 * @param onEnd called once, when it is over
 */
export function splice(downstream: Leg, upstream: Leg, onEnd: (end: SpliceEnd) => void): Splice {
  let unfinished = 2;
  let isOver = false;
  let halted: Side | undefined;
  let takenSinceHalt = 0;
  let isEndHeld = false;

  const finish = (end: SpliceEnd): void => {
    if (isOver) return;
    isOver = true;
    onEnd(end);
  };
  const isTooMuch = (bytes: number): boolean => {
    takenSinceHalt += bytes;
    return takenSinceHalt > MOST_AFTER_HALT;
  };
  const connect = (from: Leg, to: Leg, side: Side): void =>
    from.start({
      onData: (bytes) => {
        if (!to.write(bytes) && (side !== halted || isTooMuch(bytes.length))) from.pause();
      },
      onEnd: () => {
        if (halted === undefined || side === halted) to.end();
        else isEndHeld = true;
      },
      onDrain: () => {
        if (side !== halted) to.resume();
      },
      onFinish: () => {
        if (--unfinished === 0) finish({ kind: 'complete' });
      },
      onAbort: (reason) => {
        if (isOver) return;
        finish({ kind: 'aborted', side, reason });
        to.abort();
      },
    });

  connect(downstream, upstream, 'downstream');
  connect(upstream, downstream, 'upstream');
  return {
    cut: (reason) => {
      if (isOver) return;
      finish({ kind: 'cut', reason });
      downstream.abort();
      upstream.abort();
    },
    halt: (side) => {
      halted = side;
      takenSinceHalt = 0;
      (side === 'downstream' ? upstream : downstream).pause();
      (side === 'downstream' ? downstream : upstream).resume();
    },
    proceed: () => {
      if (halted === undefined) return;
      const tunnel = halted === 'downstream' ? downstream : upstream;
      const other = halted === 'downstream' ? upstream : downstream;
      halted = undefined;
      if (isEndHeld) tunnel.end();
      else other.resume();
    },
    release: () => {
      isOver = true;
    },
    bytes: () => ({ received: downstream.bytesRead(), sent: upstream.bytesRead() }),
  };
}
