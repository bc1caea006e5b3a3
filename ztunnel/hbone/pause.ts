import type { Rest } from './control-messages.ts';

/**
 * How a tunnel comes to rest, as each of its ends sees it. One decides: who has announced it, and the client if both have.
 *
 *     open ─ retire, announced ─> pausing ─ both rest ─> committing (who decides) ─ sent ─> settled
 *       ^                            │                                              commit ──^ (who follows)
 *       └── late; revert ────────────┘
 *
 * What one end sends on a session arrives in that order, whichever stream it is on: so END_STREAM before `rested` is the
 * application's end, and END_STREAM after `commit` is none. Announcements have numbers, and who rests says which one it follows:
 * who has announced it as well and has not heard of the client's yet still believes that it decides, and may go back.
 */
export type PauseState =
  | { readonly kind: 'open' }
  | {
      readonly kind: 'pausing';
      /** The peer's announcement whose decision this end waits for. Undefined: it decides itself. */
      readonly follows: number | undefined;
      /** The announcement of this end: the other one may not have heard of it yet when it gives its own up. */
      readonly announced: number | undefined;
      readonly own: Rest | undefined;
      /** For who decides: a rest that the peer cannot give up by itself, since it follows {@link announced}. */
      readonly peer: Rest | undefined;
    }
  | { readonly kind: 'committing' }
  /** Handed over, or broken: what comes now does not matter. */
  | { readonly kind: 'over' };

export type PauseEvent =
  /** This end goes away. @param number of the announcement, if there is to be one: another one each time */
  | { readonly kind: 'retire'; readonly number: number }
  /** The other one does. */
  | { readonly kind: 'announced'; readonly number: number }
  /** Nothing more will be sent, and all that was is on its way. */
  | { readonly kind: 'rested'; readonly rest: Rest }
  /** The peer says so. @param follows the announcement of this end that it follows @param received what has come in of it */
  | {
      readonly kind: 'peer-rested';
      readonly rest: Rest;
      readonly follows: number | undefined;
      readonly received: Rest;
    }
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
  | { readonly kind: 'tell-rest'; readonly rest: Rest; readonly follows: number | undefined }
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
      state: { ...pausing, follows: undefined, announced: event.number },
      actions: [{ kind: 'announce' }, { kind: 'halt' }],
    };
  if (event.kind === 'announced')
    return {
      state: { ...pausing, follows: event.number, announced: undefined },
      actions: [{ kind: 'halt' }],
    };
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
      return onAnnounced(state, event.number, isClient);
    case 'rested':
      return commitIfBoth({ ...state, own: event.rest }, [tellRest(event.rest, state.follows)]);
    case 'peer-rested':
      if (event.rest.sent !== event.received.sent || event.rest.fin !== event.received.fin)
        return abort(`the peer has sent ${event.rest.sent} bytes, and ${event.received.sent} came`);
      // It can still go back: it has not heard yet that it follows.
      if (decides(state) && event.follows !== state.announced) return stay(state);
      return commitIfBoth({ ...state, peer: event.rest }, []);
    case 'commit':
      if (decides(state) || state.own === undefined || state.peer === undefined)
        return abort('the peer handed over what did not rest');
      return { state: OVER, actions: [{ kind: 'settle' }] };
    case 'revert':
      if (decides(state)) return stay(state);
      return state.announced === undefined
        ? proceed('reverted')
        : stay({ ...state, follows: undefined, peer: undefined });
    case 'late':
      return onLate(state);
    case 'lost':
      if (decides(state) || state.own === undefined) return proceed('control_lost');
      return abort('the control stream was lost in a hand-over');
  }
}

function decides(state: Pausing): boolean {
  return state.follows === undefined;
}

/** Of two who have announced it the client decides. Who has said that it rests says so again, as it now follows. */
function onAnnounced(state: Pausing, number: number, isClient: boolean): PauseStep {
  if (decides(state) && isClient) return stay(state);
  const actions = state.own === undefined ? [] : [tellRest(state.own, number)];
  return { state: { ...state, follows: number }, actions };
}

function tellRest(rest: Rest, follows: number | undefined): PauseAction {
  return { kind: 'tell-rest', rest, follows };
}

function commitIfBoth(state: Pausing, actions: readonly PauseAction[]): PauseStep {
  if (!decides(state) || state.own === undefined || state.peer === undefined) return { state, actions };
  return { state: { kind: 'committing' }, actions: [...actions, { kind: 'tell-commit' }] };
}

/** Who follows and has said that it rests can no longer go back by itself: the other may have handed it over. */
function onLate(state: Pausing): PauseStep {
  if (!decides(state) && state.own !== undefined)
    return abort('the peer did not say what became of a hand-over');
  const { actions } = proceed('not_flushed');
  return {
    state: OPEN,
    actions: state.announced === undefined ? actions : [{ kind: 'tell-revert' }, ...actions],
  };
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
