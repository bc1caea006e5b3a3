import { RE2JS } from 're2js';
import { z } from 'zod';
import type { DurationMs } from './route-objects.ts';
import { dnsSubdomain, shown } from './schema-parts.ts';

const DURATION = /^(?:\d{1,5}(?:h|m|s|ms)){1,4}$/;
const DURATION_PART = /(\d{1,5})(ms|h|m|s)/g;
const MS: ReadonlyMap<string | undefined, number> = new Map([
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
]);

/** A duration as the Gateway API writes it (GEP-2257), in milliseconds: `1h30m`, `500ms`, `0s`. */
export const duration: z.ZodType<DurationMs> = z.string().transform((text, context) => {
  if (DURATION.test(text)) {
    const parts = [...text.matchAll(DURATION_PART)];
    return parts.reduce((sum, [, count, unit]) => sum + Number(count) * (MS.get(unit) ?? 0), 0);
  }
  const rule = 'up to four of a whole number with h, m, s or ms, such as 1m30s or 500ms';
  context.addIssue(`${shown(text)} is not a duration: ${rule}`);
  return z.NEVER;
});

const TOKEN = /^[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}$/;

/** The name of an HTTP header (RFC 9110), as it is written. */
export const headerName: z.ZodType<string> = z.string().superRefine((text, context) => {
  if (!TOKEN.test(text)) context.addIssue(`${shown(text)} is not the name of a header`);
});

/** The value of an HTTP header: no line breaks or other controls in it. */
export const headerValue: z.ZodType<string> = textUpTo(4096).superRefine((text, context) => {
  const isControl = (character: string): boolean =>
    (character < ' ' && character !== '\t') || character === '\x7f';
  if ([...text].some(isControl)) context.addIssue(`${shown(text)} has control characters in it`);
});

/** A number of times: at least 1, and no more than the wire has room for. */
export const count: z.ZodType<number> = z
  .int()
  .min(1, 'must be at least 1')
  .max(0xffff_ffff, `is more than ${0xffff_ffff}`);

/** Text of at least one character and at most so many. */
export function textUpTo(length: number): z.ZodType<string> {
  return z.string().superRefine((text, context) => {
    if (text === '') context.addIssue('is empty');
    else if (text.length > length) context.addIssue(`is longer than ${length} characters`);
  });
}

const HOSTNAME = /^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** A host name in lower case; a `*` may be its first label. */
export const hostnamePattern: z.ZodType<string> = z.string().superRefine((text, context) => {
  const isAddress = /^[\d.]+$/.test(text);
  if (text.length <= 253 && HOSTNAME.test(text) && !isAddress) return;
  const rule = isAddress ? 'addresses are not allowed' : 'lower case, and a * may only be its first label';
  context.addIssue(`${shown(text)} is not a host name: ${rule}`);
});

/** A host name without `*`. */
export const preciseHostname: z.ZodType<string> = z.string().superRefine((text, context) => {
  if (text.length > 253 || !HOSTNAME.test(text) || text.startsWith('*'))
    context.addIssue(`${shown(text)} is not a host name in lower case`);
});

const KIND = /^[A-Za-z]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?$/;

/** The name of a kind. */
export const kindName: z.ZodType<string> = z.string().superRefine((text, context) => {
  if (!KIND.test(text)) context.addIssue(`${shown(text)} is not the name of a kind`);
});

/** The name of an API group; empty for the core. */
export const groupName: z.ZodType<string> = z.union([z.literal(''), dnsSubdomain], {
  error: 'is not the name of an API group',
});

const PATH_CHARACTERS = /^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+$/;

/** What is wrong with a path that a request's is compared with, if anything. */
export function pathFault(path: string): string | undefined {
  return formFault(path) ?? formFault(canonicalEscapes(path));
}

function formFault(path: string): string | undefined {
  if (!path.startsWith('/')) return `${shown(path)} does not begin with /`;
  if (path.includes('#')) return `${shown(path)} contains #, which is never part of a request's path`;
  const forbidden = ['//', '/./', '/../'].find((part) => path.includes(part));
  if (forbidden !== undefined) return `${shown(path)} contains ${forbidden}, which is never part of a path`;
  if (path.toLowerCase().includes('%2f')) return `${shown(path)} contains an escaped /`;
  if (path.endsWith('/..') || path.endsWith('/.')) return `${shown(path)} ends with a dot segment`;
  if (PATH_CHARACTERS.test(path)) return undefined;
  return `${shown(path)} has characters that are not allowed in a path; escape them with %`;
}

/** What is wrong with a path that is put in the place of a request's, if anything: it is sent on as it is written. */
export function newPathFault(path: string): string | undefined {
  if (!path.startsWith('/')) return `${shown(path)} does not begin with /`;
  if (PATH_CHARACTERS.test(path)) return undefined;
  return `${shown(path)} has characters that are not allowed in a path; escape them with %`;
}

/**
 * A path with its escapes as those of a request are before they are compared: escapes of unreserved characters decoded, others in
 * upper case (RFC 3986, 6.2.2).
 */
export function canonicalEscapes(path: string): string {
  return path.replaceAll(/%[0-9a-fA-F]{2}/g, (written) => {
    const character = String.fromCharCode(Number.parseInt(written.slice(1), 16));
    return /[A-Za-z0-9._~-]/.test(character) ? character : written.toUpperCase();
  });
}

/** What is wrong with a regular expression (RE2's grammar), if anything. */
export function regexFault(text: string): string | undefined {
  try {
    RE2JS.compile(text);
    return undefined;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return `${shown(text)} is not a regular expression of RE2: ${reason.replace(/^error parsing regexp: /, '')}`;
  }
}
