/** What an authority signs with, as text. */
export interface SigningFiles {
  readonly rootPem: string;
  /** A key, or a comment that says where it is: an imported authority's root keeps its own. */
  readonly rootKeyPem: string;
  /** The certificate that signs, then those between it and the root, if any. */
  readonly issuingPem: string;
  readonly issuingKeyPem: string;
}

/** How far the change from one authority to the next is. Kept on disk: a restart goes on where it was. */
export type Rotation =
  | { readonly kind: 'none' }
  /** Both roots are trusted, the old authority signs; everyone is to have the new root. */
  | { readonly kind: 'distributing'; readonly startedMs: number; readonly next: SigningFiles }
  /** Both roots are trusted, the new authority signs; what the old one signed is to end. */
  | {
      readonly kind: 'retiring';
      readonly startedMs: number;
      readonly switchedMs: number;
      /** When the last certificate that the old one signed ends. */
      readonly untilMs: number;
      readonly signing: SigningFiles;
      readonly previous: { readonly rootPem: string; readonly issuingPem: string };
    };

/** A certificate that a client holds: its newest for that identity. */
export interface HeldLeaf {
  readonly identity: string;
  /** Milliseconds since the epoch. */
  readonly issuedMs: number;
  readonly notAfterMs: number;
}

/** Who verifies peers, and what is known of it. */
export interface RootsClient {
  /** `node/NODE`, `waypoint/NAMESPACE/NAME` */
  readonly name: string;
  /** What became of the roots that it was sent; `none`: it does not ask for them, or is away. */
  readonly subscription: 'acknowledged' | 'pending' | 'none';
  /** Of the identities that it has to have. */
  readonly leaves: readonly HeldLeaf[];
}

/** Whether a client verifies with the new root, too, and how that is known. */
export type ClientProgress = { readonly name: string } & (
  | { readonly kind: 'acknowledged' }
  | { readonly kind: 'reissued' }
  | { readonly kind: 'holds-nothing' }
  | { readonly kind: 'asked' }
  | { readonly kind: 'holds-older'; readonly identities: readonly string[] }
);

/** What is to be done next. */
export type RotationStep =
  | { readonly kind: 'rest' }
  | { readonly kind: 'wait'; readonly waitsFor: readonly string[] }
  | { readonly kind: 'sign-with-next' }
  | { readonly kind: 'retire' };

/** A worker thread and a clock may be that far behind what was acknowledged. */
export const SETTLE_MS = 1000;

/**
 * Whether a client has the roots that are distributed since then. One that asks for them has acknowledged them; of another
 * every certificate that it still holds has to have been issued since, as the roots come with it.
 */
export function clientProgress(client: RootsClient, sinceMs: number, nowMs: number): ClientProgress {
  const { name, subscription } = client;
  if (subscription === 'acknowledged') return { name, kind: 'acknowledged' };
  if (subscription === 'pending') return { name, kind: 'asked' };
  const live = client.leaves.filter(({ notAfterMs }) => notAfterMs > nowMs);
  if (live.length === 0) return { name, kind: 'holds-nothing' };
  const older = live.filter(({ issuedMs }) => issuedMs <= sinceMs).map(({ identity }) => identity);
  return older.length === 0 ? { name, kind: 'reissued' } : { name, kind: 'holds-older', identities: older };
}

/** Whether nothing more is waited for of a client. */
export function isDone({ kind }: ClientProgress): boolean {
  return kind === 'acknowledged' || kind === 'reissued' || kind === 'holds-nothing';
}

/**
 * What a rotation needs next. The new authority signs when every client has had its root for a moment; the old root goes when
 * everything that it stands for has ended.
 */
export function decideStep(
  rotation: Rotation,
  facts: {
    readonly clients: readonly ClientProgress[];
    /** Since when nobody is waited for; undefined while somebody is. Milliseconds since the epoch. */
    readonly allDoneSinceMs: number | undefined;
    readonly nowMs: number;
  },
): RotationStep {
  const { clients, allDoneSinceMs, nowMs } = facts;
  switch (rotation.kind) {
    case 'none':
      return { kind: 'rest' };
    case 'distributing': {
      const waitsFor = clients.filter((client) => !isDone(client)).map(({ name }) => name);
      const hasSettled = allDoneSinceMs !== undefined && nowMs - allDoneSinceMs >= SETTLE_MS;
      return waitsFor.length === 0 && hasSettled ? { kind: 'sign-with-next' } : { kind: 'wait', waitsFor };
    }
    case 'retiring':
      return nowMs >= rotation.untilMs ? { kind: 'retire' } : { kind: 'wait', waitsFor: [] };
  }
}
