import type { Logger } from 'pino';
import { type Debounce, debounce } from '#control-plane/debounce.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import { runTool } from '../system-tool.ts';
import { vipRulesOf } from './vip-rules.ts';

const QUIET_MS = 30;
const CAP_MS = 300;
const RETRY_MS = 5_000;

/** Keeps the VIPs of this namespace translated; see vip-rules.ts. Disposing of it leaves the rules in force. */
export interface VipTranslation extends AsyncDisposable {
  /** The tables have changed. */
  readonly changed: () => void;
}

/**
 * Writes the rules of the namespace that the process is in, soon after each change, when they differ. A failure is logged
 * and tried again; what was in force stays.
 */
export function createVipTranslation(tables: Tables, logger: Logger): VipTranslation {
  let last: string | undefined;
  let retry: NodeJS.Timeout | undefined;
  const apply = async (): Promise<void> => {
    clearTimeout(retry);
    // Until the first answer nothing is known, and an earlier agent's rules are better than none.
    const rules = tables.synced('addresses') ? vipRulesOf(tables) : last;
    if (rules === undefined || rules === last) return;
    try {
      await runTool(['nft', '-f', '-'], rules);
      last = rules;
    } catch (error) {
      logger.error({ error: String(error) }, 'cannot translate the addresses of services');
      retry = setTimeout(due.touch, RETRY_MS);
    }
  };
  const due: Debounce = debounce({ quietMs: QUIET_MS, capMs: CAP_MS, action: apply });
  return {
    changed: due.touch,
    [Symbol.asyncDispose]: async () => {
      clearTimeout(retry);
      await due[Symbol.asyncDispose]();
    },
  };
}
