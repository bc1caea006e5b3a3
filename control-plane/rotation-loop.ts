import type { Logger } from 'pino';
import type { RotatingAuthority } from '#certs/authority.ts';
import {
  type ClientProgress,
  clientProgress,
  decideStep,
  isDone,
  type RootsClient,
  type SigningFiles,
} from '#certs/rotation.ts';

/** Carries rotations through, also those from before a restart. Disposing of it stops between two steps. */
export interface RotationLoop extends Disposable {
  /**
   * Changes to another authority, step by step.
   * @throws AuthorityError while a rotation is under way
   */
  readonly begin: (next: SigningFiles) => void;
  /** Who has the new root and who has not; nobody while there is none. */
  readonly progress: () => readonly ClientProgress[];
}

export interface RotationLoopOptions {
  readonly authority: RotatingAuthority;
  /** Everyone who verifies peers. */
  readonly clients: () => readonly RootsClient[];
  /** When the last certificate ends that the authority has signed or is signing; milliseconds since the epoch. */
  readonly lastLeafEndsMs: () => number;
  /** Other roots are trusted from now on. */
  readonly onRoots: () => void;
  /** Another authority signs from now on. */
  readonly onSigner: () => void;
  readonly logger: Logger;
  /** Milliseconds between two looks. Default 250. */
  readonly everyMs?: number;
}

const EVERY_MS = 250;

/** Looks again and again at how far a rotation is, and takes the next step when it is due. */
export function followRotation(options: RotationLoopOptions): RotationLoop {
  const { authority, logger, everyMs = EVERY_MS } = options;
  let timer: NodeJS.Timeout | undefined;
  let allDoneSinceMs: number | undefined;

  const progress = (): readonly ClientProgress[] => {
    const rotation = authority.rotation();
    if (rotation.kind !== 'distributing') return [];
    return options.clients().map((client) => clientProgress(client, rotation.startedMs, Date.now()));
  };
  const step = (): void => {
    const clients = progress();
    const nowMs = Date.now();
    allDoneSinceMs = clients.every(isDone) ? (allDoneSinceMs ?? nowMs) : undefined;
    const next = decideStep(authority.rotation(), { clients, allDoneSinceMs, nowMs });
    if (next.kind === 'sign-with-next') {
      authority.signWithNext(options.lastLeafEndsMs());
      logger.info({ clients: clients.length }, 'authority: the new one signs');
      options.onSigner();
    } else if (next.kind === 'retire') {
      authority.retire();
      logger.info('authority: the old root is retired');
      options.onRoots();
    }
  };
  const look = (): void => {
    try {
      step();
    } catch (error) {
      logger.error({ err: error }, 'rotation does not go on; it is tried again');
    }
    follow();
  };
  const follow = (): void => {
    clearTimeout(timer);
    if (authority.rotation().kind !== 'none') timer = setTimeout(look, everyMs);
  };
  follow();
  return {
    begin: (next) => {
      authority.distribute(next);
      allDoneSinceMs = undefined;
      logger.info('authority: a new root is being distributed');
      options.onRoots();
      follow();
    },
    progress,
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}
