import type { Rest } from './control-messages.ts';

/**
 * How a tunnel comes to rest, as each of its ends sees it. One decides: who has announced it, and the client if both have.
 *
 *     open ─ retire, announced ─> pausing ─ both rest ─> committing (who decides) ─ sent ─> settled
 *       ^                            │                                              commit ──^ (who follows)
 *       └── late; revert ────────────┘
 *
 * What one end sends on a session arrives in that order, whichever stream it is on: so END_STREAM before `rested` is the
 * application's end, and END_STREAM after `commit` is none.
 */
export type PauseState =
  | { readonly kind: 'open' }
  | {
      readonly kind: 'pausing';
      readonly decides: boolean;
      /** By this end: the other one may not have heard of it yet when it gives its own announcement up. */
      readonly announced: boolean;
      readonly own: Rest | undefined;
      readonly peer: Rest | undefined;
    }
  | { readonly kind: 'committing' }
  /** Handed over, or broken: what comes now does not matter. */
  | { readonly kind: 'over' };

export type PauseEvent =
  /** This end goes away. */
  | { readonly kind: 'retire' }
  /** The other one does. */
  | { readonly kind: 'announced' }
  /** Nothing more will be sent, and all that was is on its way. */
  | { readonly kind: 'rested'; readonly rest: Rest }
  /** The peer says so. @param received what has come in of it */
  | { readonly kind: 'peer-rested'; readonly rest: Rest; readonly received: Rest }
  | { readonly kind: 'commit' }
  | { readonly kind: 'revert' }
  /** The `commit` is on its way. */
  | { readonly kind: 'sent' }
  /** It has taken too long. */
  | { readonly kind: 'late' }
  /** The control stream is gone. */
  | { readonly kind: 'lost' };

export type PauseAction =
  | { readonly kind: 'announce' }
  /** Stop sending, and say when all is on its way. */
  | { readonly kind: 'halt' }
  | { readonly kind: 'tell-rest'; readonly rest: Rest }
  /** To be followed by the event `sent`. */
  | { readonly kind: 'tell-commit' }
  /** To be on its way before anything else is sent. */
  | { readonly kind: 'tell-revert' }
  /** Send again. */
  | { readonly kind: 'proceed'; readonly why: 'not_flushed' | 'reverted' | 'control_lost' }
  /** It is handed over. */
  | { readonly kind: 'settle' }
  /** Nobody can tell any more what the other end has: to be reset. */
  | { readonly kind: 'abort'; readonly reason: string };

export interface PauseStep {
  readonly state: PauseState;
  readonly actions: readonly PauseAction[];
}

export const OPEN: PauseState = { kind: 'open' };
const OVER: PauseState = { kind: 'over' };

/** What follows from an event. @param isClient whether this end has opened the session */
export function stepPause(state: PauseState, event: PauseEvent, isClient: boolean): PauseStep {
  switch (state.kind) {
    case 'open':
      return fromOpen(event);
    case 'pausing':
      return fromPausing(state, event, isClient);
    case 'committing':
      if (event.kind === 'sent') return { state: OVER, actions: [{ kind: 'settle' }] };
      return event.kind === 'late' || event.kind === 'lost'
        ? abort('the control stream was lost in a hand-over')
        : stay(state);
    case 'over':
      return stay(state);
  }
}

function fromOpen(event: PauseEvent): PauseStep {
  const pausing = { kind: 'pausing', own: undefined, peer: undefined } as const;
  if (event.kind === 'retire')
    return {
      state: { ...pausing, decides: true, announced: true },
      actions: [{ kind: 'announce' }, { kind: 'halt' }],
    };
  if (event.kind === 'announced')
    return { state: { ...pausing, decides: false, announced: false }, actions: [{ kind: 'halt' }] };
  // What a peer said before it heard that the hand-over was given up.
  if (event.kind === 'commit') return abort('the peer handed over what did not rest');
  return stay(OPEN);
}

type Pausing = PauseState & { readonly kind: 'pausing' };

function fromPausing(state: Pausing, event: PauseEvent, isClient: boolean): PauseStep {
  switch (event.kind) {
    case 'retire':
    case 'sent':
      return stay(state);
    case 'announced':
      return stay({ ...state, decides: state.decides && isClient });
    case 'rested':
      return commitIfBoth({ ...state, own: event.rest }, [{ kind: 'tell-rest', rest: event.rest }]);
    case 'peer-rested':
      if (state.peer !== undefined) return abort('the peer came to rest twice');
      if (event.rest.sent !== event.received.sent || event.rest.fin !== event.received.fin)
        return abort(`the peer has sent ${event.rest.sent} bytes, and ${event.received.sent} came`);
      return commitIfBoth({ ...state, peer: event.rest }, []);
    case 'commit':
      if (state.decides || state.own === undefined || state.peer === undefined)
        return abort('the peer handed over what did not rest');
      return { state: OVER, actions: [{ kind: 'settle' }] };
    case 'revert':
      if (state.decides) return stay(state);
      return state.announced ? stay({ ...state, decides: true, peer: undefined }) : proceed('reverted');
    case 'late':
      return onLate(state);
    case 'lost':
      if (state.decides || state.own === undefined) return proceed('control_lost');
      return abort('the control stream was lost in a hand-over');
  }
}

function commitIfBoth(state: Pausing, actions: readonly PauseAction[]): PauseStep {
  if (!state.decides || state.own === undefined || state.peer === undefined) return { state, actions };
  return { state: { kind: 'committing' }, actions: [...actions, { kind: 'tell-commit' }] };
}

/** Who follows and has said that it rests can no longer go back by itself: the other may have handed it over. */
function onLate(state: Pausing): PauseStep {
  if (state.decides) {
    const { actions } = proceed('not_flushed');
    return { state: OPEN, actions: [{ kind: 'tell-revert' }, ...actions] };
  }
  if (state.own === undefined) return proceed('not_flushed');
  return abort('the peer did not say what became of a hand-over');
}

function proceed(why: (PauseAction & { readonly kind: 'proceed' })['why']): PauseStep {
  return { state: OPEN, actions: [{ kind: 'proceed', why }] };
}

function abort(reason: string): PauseStep {
  return { state: OVER, actions: [{ kind: 'abort', reason }] };
}

function stay(state: PauseState): PauseStep {
  return { state, actions: [] };
}
