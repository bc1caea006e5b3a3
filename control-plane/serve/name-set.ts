/** Names, and how many characters they have together: what they cost, of a client that chooses them. */
export class NameSet {
  readonly #names = new Set<string>();
  #characters = 0;

  get size(): number {
    return this.#names.size;
  }

  get characters(): number {
    return this.#characters;
  }

  add(name: string): void {
    if (!this.#names.has(name)) this.#characters += name.length;
    this.#names.add(name);
  }

  delete(name: string): void {
    if (this.#names.delete(name)) this.#characters -= name.length;
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  clear(): void {
    this.#names.clear();
    this.#characters = 0;
  }

  [Symbol.iterator](): IterableIterator<string> {
    return this.#names.values();
  }
}
