/** Why a resource was not taken: `MALFORMED` bytes that are no such message, `INVALID` a message that says something wrong. */
export type ResourceErrorCode = 'MALFORMED' | 'INVALID';

/** A resource that cannot be taken; the message names each path and what is wrong there. */
export class ResourceError extends Error {
  override readonly name = 'ResourceError';
  readonly code: ResourceErrorCode;

  constructor(message: string, options: { readonly code: ResourceErrorCode; readonly cause?: unknown }) {
    super(message, { cause: options.cause });
    this.code = options.code;
  }
}

/** More than these are counted, not listed. */
const LISTED = 5;

/** Collects what is wrong with one resource, so that a rejection names all of it. */
export class Faults {
  readonly #listed: string[] = [];
  #count = 0;

  add(path: string, message: string): void {
    this.#count += 1;
    if (this.#listed.length < LISTED) this.#listed.push(`${path}: ${message}`);
  }

  /** @throws ResourceError when anything was added. */
  throwIfAny(): void {
    if (this.#count === 0) return;
    const more = this.#count > LISTED ? `, and ${this.#count - LISTED} more` : '';
    throw new ResourceError(`${this.#listed.join(', ')}${more}`, { code: 'INVALID' });
  }
}
