import { Ledger } from './ledger.ts';

/** One from which nobody is ever shed. */
export function roomyLedger(): Ledger {
  return new Ledger({ budgetBytes: 2 ** 40, onShed: () => undefined });
}
