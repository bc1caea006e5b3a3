/** Size of a batch: what is written at a time. TLS and the kernel have no use for more. */
export const BATCH_BYTES: number = 128 * 1024;
/** Batches that are kept for the next who needs one. */
const MAX_SPARE = 128;

/** Batches that nobody uses: the last one back is the first to go, while it is still in the processor's cache. */
const spare: Buffer[] = [];

/** Memory for a batch; to be given back with {@link giveBack}. */
export function takeBatch(): Buffer {
  return spare.pop() ?? Buffer.allocUnsafeSlow(BATCH_BYTES);
}

/** Nobody looks at the batch any more. */
export function giveBack(batch: Buffer): void {
  if (spare.length < MAX_SPARE) spare.push(batch);
}
