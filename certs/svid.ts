import type { Identity } from './identity.ts';

/**
 * An X.509-SVID with its private key and the roots that came with it. Plain data: it crosses threads by structured
 * clone. The key is never logged.
 */
export interface Svid {
  readonly identity: Identity;
  /** PKCS#8 PEM. */
  readonly privateKeyPem: string;
  /** PEM, leaf first, then intermediates; no root. */
  readonly certificateChainPem: string;
  /** PEM bundle of roots with which the holder verifies its peers. */
  readonly rootsPem: string;
  /** Serial number of the leaf, lower-case hexadecimal. */
  readonly serial: string;
  /** Milliseconds since the epoch. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}
