import type { Verdict } from '#ztunnel/policy/verdict.ts';

/** Why a caller may not, for the log; the caller itself is only told that it may not. Undefined: it may. */
export function whyDenied(verdict: Verdict): string | undefined {
  if (verdict.kind === 'allow') return undefined;
  const policy = `AuthorizationPolicy ${verdict.policy ?? '(unknown)'}`;
  if (verdict.reason === 'denied-by-policy') return `${policy} denies`;
  if (verdict.reason === 'missing-policy') return `${policy} has not come`;
  return 'no AuthorizationPolicy allows it';
}
