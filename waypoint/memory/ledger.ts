/** Something that holds memory for a caller, and can be made to let go of it. */
export interface Holder {
  /** For whom: one caller's pod. See {@link ownerOf}. */
  readonly owner: string;
  /** Bytes, about, that it holds now. */
  readonly held: () => number;
  /** Lets go of all of it: whatever it is, it ends. `why` is for people. */
  readonly shed: (why: string) => void;
}

export interface LedgerOptions {
  /** What all holders may hold together, in bytes. */
  readonly budgetBytes: number;
  /** Something had to go, for the one who held most. */
  readonly onShed: (shed: Shed) => void;
}

/** What was let go of at one look. */
export interface Shed {
  readonly owner: string;
  readonly holders: number;
  readonly bytes: number;
}

/** At a look, what is held is brought down from the first share of the budget to the second. */
const HIGH_SHARE = 0.9;
const LOW_SHARE = 0.75;
/** Also without anything coming in: what is held may change its form. */
const LOOK_MS = 250;

/**
 * What a process holds for its callers, in total: the sum of its holders. Nothing is counted for each piece of data: what has come
 * in since the last look is added to what was found then, and only when that could be more than the budget they are asked again.
 * The caller who holds most loses what holds most of it, until enough is free: whoever takes what he is sent holds next to nothing.
 */
export class Ledger implements Disposable {
  readonly #options: LedgerOptions;
  readonly #holders = new Set<Holder>();
  readonly #timer: NodeJS.Timeout;
  #found = 0;
  #arrived = 0;
  #isPlanned = false;
  #shedHolders = 0;

  constructor(options: LedgerOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#look(), LOOK_MS).unref();
  }

  get budgetBytes(): number {
    return this.#options.budgetBytes;
  }

  /** Bytes, by a look now. */
  get heldBytes(): number {
    let bytes = 0;
    for (const holder of this.#holders) bytes += holder.held();
    return bytes;
  }

  /** How many holders had to go so far. */
  get shedCount(): number {
    return this.#shedHolders;
  }

  add(holder: Holder): void {
    this.#holders.add(holder);
  }

  /** It holds nothing any more. Harmless for one that is not there. */
  delete(holder: Holder): void {
    this.#holders.delete(holder);
  }

  /** Bytes have come in that may have to be held. */
  note(bytes: number): void {
    this.#arrived += bytes;
    if (this.#isPlanned || this.#found + this.#arrived <= this.#options.budgetBytes) return;
    this.#isPlanned = true;
    // Not in the middle of whatever is being done with them.
    setImmediate(() => this.#look());
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#holders.clear();
  }

  #look(): void {
    this.#isPlanned = false;
    this.#arrived = 0;
    const { budgetBytes, onShed } = this.#options;
    const found = [...this.#holders].map((holder) => ({ holder, bytes: holder.held() }));
    this.#found = found.reduce((sum, { bytes }) => sum + bytes, 0);
    if (this.#found <= budgetBytes * HIGH_SHARE) return;
    const why = `the waypoint holds ${mebibytes(this.#found)} of ${mebibytes(budgetBytes)} MiB`;
    const chosen = chooseShed(found, this.#found - budgetBytes * LOW_SHARE);
    for (const { holder } of chosen) {
      this.#holders.delete(holder);
      holder.shed(why);
    }
    this.#shedHolders += chosen.length;
    for (const shed of byOwner(chosen)) {
      this.#found -= shed.bytes;
      onShed(shed);
    }
  }
}

/** A holder, and what it said that it holds. */
export interface HeldShare {
  readonly holder: Holder;
  readonly bytes: number;
}

interface Account {
  total: number;
  readonly shares: HeldShare[];
}

const NOBODY: Account = { total: 0, shares: [] };

/**
 * Whom to take from, so that at least so much is free: always the owner who holds most, and of his the largest.
 */
export function chooseShed(shares: readonly HeldShare[], bytes: number): readonly HeldShare[] {
  const owners = new Map<string, Account>();
  for (const share of shares) {
    const account = owners.get(share.holder.owner) ?? { total: 0, shares: [] };
    account.total += share.bytes;
    account.shares.push(share);
    owners.set(share.holder.owner, account);
  }
  const accounts = [...owners.values()];
  for (const { shares: own } of accounts) own.sort((one, other) => one.bytes - other.bytes);
  const chosen: HeldShare[] = [];
  for (let missing = bytes; missing > 0; ) {
    const most = accounts.reduce((one, other) => (other.total > one.total ? other : one), NOBODY);
    const share = most.shares.pop();
    if (share === undefined) break;
    most.total -= share.bytes;
    missing -= share.bytes;
    chosen.push(share);
  }
  return chosen;
}

function byOwner(chosen: readonly HeldShare[]): Iterable<Shed> {
  const sheds = new Map<string, Shed>();
  for (const { holder, bytes } of chosen) {
    const { owner } = holder;
    const known = sheds.get(owner) ?? { owner, holders: 0, bytes: 0 };
    sheds.set(owner, { owner, holders: known.holders + 1, bytes: known.bytes + bytes });
  }
  return sheds.values();
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 1024 / 1024);
}
