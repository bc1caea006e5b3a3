import {
  type HeaderValueOption,
  HeaderValueOption_HeaderAppendAction,
} from '#api/envoy/gen/envoy/config/core/v3/base_pb.ts';
import type { HeaderMutations } from '../model.ts';
import { bytesOfText } from './byte-text.ts';
import { refuse } from './config-error.ts';

/** Of what leaves headers alone; one object, so that it can be told by identity. */
export const NO_MUTATIONS: HeaderMutations = { set: [], add: [], remove: [] };

/** RFC 9110, 5.6.2: what a name is made of. */
const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** @throws ConfigError */
export function compileMutations(
  additions: readonly HeaderValueOption[],
  removals: readonly string[],
): HeaderMutations {
  if (additions.length === 0 && removals.length === 0) return NO_MUTATIONS;
  const set: (readonly [string, string])[] = [];
  const add: (readonly [string, string])[] = [];
  for (const option of additions) {
    const name = headerName(option.header?.key ?? '');
    const value = plainValue(option.header?.value ?? '');
    if (value === '' && !option.keepEmptyValue) continue; // As Envoy has it.
    (replaces(option) ? set : add).push([name, value]);
  }
  return { set, add, remove: removals.map(headerName) };
}

function replaces(option: HeaderValueOption): boolean {
  if (option.append !== undefined) return !option.append;
  switch (option.appendAction) {
    case HeaderValueOption_HeaderAppendAction.APPEND_IF_EXISTS_OR_ADD:
      return false;
    case HeaderValueOption_HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD:
      return true;
    default:
      return refuse(`append_action ${option.appendAction} is not supported`);
  }
}

/** Lower case. @throws ConfigError for a pseudo header, Host, or what is no name */
export function headerName(name: string): string {
  if (!NAME.test(name)) return refuse(`${JSON.stringify(name)} is no name of a header that can be used here`);
  const lower = name.toLowerCase();
  return lower === 'host' ? refuse('the header host cannot be used here') : lower;
}

/** Envoy's command operators (`%REQ(…)%`) are not: a value is text, in which `%%` stands for a percent sign. */
function plainValue(value: string): string {
  const plain = value.replaceAll('%%', '');
  if (plain.includes('%'))
    refuse(`header value ${JSON.stringify(value)} has a command operator (%…%), which is not supported`);
  if (/[\0\r\n]/.test(value)) refuse('a header value has a line break or NUL');
  return bytesOfText(value.replaceAll('%%', '%'));
}
