interface Share<Item> {
  amount: number;
  /** Oldest first. */
  readonly items: Map<Item, number>;
}

/**
 * Who has how much of something that is bounded in all. When there is no more of it, one with little takes the place of the oldest
 * of the one with the most: whoever fills it keeps out nobody but itself.
 */
export class Shares<Item> {
  readonly #limit: number;
  readonly #shares = new Map<string, Share<Item>>();
  #total = 0;

  /** @param limit of all amounts together */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Those that have to go before an owner can have so much more; undefined: nobody has more than it would. Changes nothing. */
  inTheWayOf(owner: string, amount: number): readonly Item[] | undefined {
    const missing = amount === 0 ? 0 : this.#total + amount - this.#limit;
    if (missing <= 0) return [];
    let most: Share<Item> | undefined;
    for (const share of this.#shares.values()) if (share.amount > (most?.amount ?? 0)) most = share;
    const own = this.#shares.get(owner)?.amount ?? 0;
    if (most === undefined || most.amount <= own + amount) return undefined;
    const items: Item[] = [];
    let freed = 0;
    for (const [item, size] of most.items) {
      if (freed >= missing) break;
      if (size > 0) items.push(item);
      freed += size;
    }
    return freed < missing ? undefined : items;
  }

  put(owner: string, item: Item, amount: number): void {
    const share = this.#shares.get(owner) ?? { amount: 0, items: new Map() };
    this.#shares.set(owner, share);
    share.items.set(item, amount);
    share.amount += amount;
    this.#total += amount;
  }

  /** Harmless when it is not there. */
  remove(owner: string, item: Item): void {
    const share = this.#shares.get(owner);
    const amount = share?.items.get(item);
    if (share === undefined || amount === undefined) return;
    share.items.delete(item);
    share.amount -= amount;
    this.#total -= amount;
    if (share.items.size === 0) this.#shares.delete(owner);
  }
}
