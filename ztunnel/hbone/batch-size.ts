/** Size of a batch: what is written at a time. TLS and the kernel have no use for more. */
export const BATCH_BYTES: number = 128 * 1024;
