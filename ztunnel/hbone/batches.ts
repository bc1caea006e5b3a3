import { BATCH_BYTES } from './batch-size.ts';
import { countBatches } from './memory-budget.ts';

/** Batches that are kept for the next who needs one. */
const MAX_SPARE = 128;

/** Batches that nobody uses: the last one back is the first to go, while it is still in the processor's cache. */
const spare: Buffer[] = [];

/** Memory for a batch; to be given back with {@link giveBack}. */
export function takeBatch(): Buffer {
  countBatches(1);
  return spare.pop() ?? Buffer.allocUnsafeSlow(BATCH_BYTES);
}

/** Nobody looks at the batch any more. */
export function giveBack(batch: Buffer): void {
  countBatches(-1);
  if (spare.length < MAX_SPARE) spare.push(batch);
}
